"""The promises of equal numbers, on the processors that the libraries can be told to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROMISES = (
    "tests/detection/test_spot.py",
    "tests/detection/test_calibration.py",
    "tests/residual/test_detector.py",
    "tests/detection/test_detector.py",
    "tests/detection/test_features.py",
    "tests/detectors",
    "tests/isolation_forest",
    "tests/subspace",
    "tests/composite/test_composite.py",
    "tests/training/test_resume.py",
    "tests/tabular/test_raw_graph.py",
    "tests/serving/test_answers.py",
)
PROCESSORS = {
    # a 64-bit processor without AVX, and one with AVX2 but not AVX-512, on two threads
    "old": {
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OMP_NUM_THREADS": "1",
    },
    "newer": {
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OMP_NUM_THREADS": "2",
    },
}
"""What OpenBLAS, numpy, torch and oneDNN take the processor for."""


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_equal_numbers_are_equal_on_other_processors(processor: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", "--tb=short", *PROMISES]
    environment = {**os.environ, **PROCESSORS[processor]}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]


def test_spot_is_equal_by_row_and_by_file_on_an_old_processor() -> None:
    """The quick part of it, where each change is tested: a matrix product there differs by row and by file."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/residual/test_detector.py"]
    environment = {**os.environ, **PROCESSORS["old"]}
    done = subprocess.run(
        [*command, "-k", "whole_in_pieces and not registered"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
