"""Optimises the composite on labelled rows; reads and writes configs/detection/detection_config.yaml."""

import argparse
from pathlib import Path

from ocad.errors import OcadError
from ocad.recipes import DETECTION_CONFIG, SCENARIOS, open_default_session, optimise_weights
from ocad_registry import RegistryError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--validation-data", type=Path, default=SCENARIOS)
    given = parser.parse_args()
    try:
        found = optimise_weights(open_default_session(), given.validation_data)
    except (OcadError, RegistryError) as error:
        raise SystemExit(f"error: {error}") from None
    for member, weight in found.weights.items():
        print(f"{member:>24} {weight:.3f}")
    print(f"written to {DETECTION_CONFIG}")
