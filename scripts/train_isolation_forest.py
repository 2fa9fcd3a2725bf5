"""Trains, proves and registers an Isolation Forest over four metrics, like `ocad train --plugin isolation_forest`."""

import argparse
from pathlib import Path

from ocad.errors import OcadError
from ocad.recipes import TEST_ROWS, TRAIN_ROWS, open_default_session, train_forest
from ocad_registry import RegistryError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-data", type=Path, default=TRAIN_ROWS)
    parser.add_argument("--test-data", type=Path, default=TEST_ROWS)
    parser.add_argument("--n-estimators", type=int, default=100)
    parser.add_argument("--contamination", type=float, default=0.1)
    parser.add_argument("--version", default="v2.0.0")
    given = parser.parse_args()
    about = (given.train_data, given.test_data, given.n_estimators, given.contamination, given.version)
    try:
        print(train_forest(open_default_session(), *about).version.ref)
    except (OcadError, RegistryError) as error:
        raise SystemExit(f"error: {error}") from None
