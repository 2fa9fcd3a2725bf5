"""Compares two detectors on the same labelled rows."""

import argparse

from ocad.errors import OcadError
from ocad.recipes import TEST_ROWS, compare, open_default_session
from ocad_registry import RegistryError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", default="rule_based")
    parser.add_argument("--new", default="trained_models")
    parser.add_argument("--data", default=str(TEST_ROWS))
    given = parser.parse_args()
    try:
        compared = compare(open_default_session(), given.baseline, given.new, given.data)
    except (OcadError, RegistryError) as error:
        raise SystemExit(f"error: {error}") from None
    names = list(compared)
    print(" " * 16, *(f"{name:>16}" for name in names))
    for metric in compared[names[0]]:
        print(f"{metric:>16}", *(f"{compared[name][metric]:16.3f}" for name in names))
