"""Writes data/inference_test_scenarios.csv and data/inference_anomaly_only.csv from the testbed recording."""

from ocad.errors import OcadError
from ocad.recipes import write_scenarios

if __name__ == "__main__":
    try:
        for path, rows in write_scenarios().items():
            print(f"{path}: {rows} rows")
    except OcadError as error:
        raise SystemExit(f"error: {error}") from None
