"""Writes the rows of the testbed recording to fit and tune on, and those to measure on."""

from ocad.errors import OcadError
from ocad.recipes import write_multivariate

if __name__ == "__main__":
    try:
        for path, rows in write_multivariate().items():
            print(f"{path}: {rows} rows")
    except OcadError as error:
        raise SystemExit(f"error: {error}") from None
