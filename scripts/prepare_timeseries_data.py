"""Writes data/processed/timeseries_train.parquet: windows of ten round-trip times (`sequence`) and the next (`target`)."""

import argparse

from ocad.errors import OcadError
from ocad_tcn.files import SEQUENCES, write_sequences

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        print(f"{SEQUENCES}: {write_sequences():,} sequences")
    except OcadError as error:
        raise SystemExit(f"error: {error}") from None
