"""Proves that an ONNX graph answers as the TCN's weights do; each is a file or a reference. Exit code 3 when it does not."""

import argparse
import json
import sys

from ocad.errors import OcadError
from ocad_registry import RegistryError
from ocad_tcn.files import verify

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx-model", required=True, help="an .onnx file or a reference")
    parser.add_argument("--pytorch-model", required=True, help="a .pth file or a reference")
    given = parser.parse_args()
    try:
        print(json.dumps(verify(given.onnx_model, given.pytorch_model), indent=2))
    except (OcadError, RegistryError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
