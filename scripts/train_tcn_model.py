"""Trains, proves and registers a TCN like `ocad train`, and writes its weights and metadata under their known names."""

import argparse
from pathlib import Path

from ocad.errors import OcadError
from ocad_registry import RegistryError
from ocad_tcn.files import train_files

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metric-type", default="udp_echo")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--version", default="v2.0.0")
    parser.add_argument("--output-dir", type=Path, default=Path("exported/tcn"))
    given = parser.parse_args()
    try:
        print(*train_files(given.metric_type, given.epochs, given.version, given.output_dir), sep="\n")
    except (OcadError, RegistryError) as error:
        raise SystemExit(f"error: {error}") from None
