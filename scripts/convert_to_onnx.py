"""Converts a TCN's weights (a `.pth` file or a reference) to an ONNX graph with a free batch size."""

import argparse
from pathlib import Path

from ocad.errors import OcadError
from ocad_registry import RegistryError
from ocad_tcn.files import convert

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-path", required=True, help="a .pth file or a reference")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--input-shape", default="1,10,1")
    given = parser.parse_args()
    try:
        shape = tuple(int(size) for size in given.input_shape.split(","))
        print(*convert(given.model_path, given.output, shape), sep="\n")
    except (OcadError, RegistryError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
