"""Writes reports/onnx_benchmark_report.md: torch eager beside onnxruntime at batch 1, time and resident memory."""

import argparse
from pathlib import Path

from ocad.errors import OcadError
from ocad_registry import RegistryError
from ocad_tcn.timing import measure_inference

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pytorch-model", required=True, help="a .pth file or a reference")
    parser.add_argument("--onnx-model", required=True, help="an .onnx file or a reference")
    given = parser.parse_args()
    try:
        figures = measure_inference(given.pytorch_model, given.onnx_model)
    except (OcadError, RegistryError) as error:
        raise SystemExit(f"error: {error}") from None
    report = Path("reports/onnx_benchmark_report.md")
    report.parent.mkdir(exist_ok=True)
    report.write_text(f"# TCN inference\n\n{figures.markdown()}\n", encoding="utf-8")
    print(report)
