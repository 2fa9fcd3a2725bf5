"""Parity: the exported graph against the trained model on real inputs, on the output's scale (DESIGN §4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.errors import OcadError

if TYPE_CHECKING:
    from ocad.protocols import Arrays
    from ocad_registry import Parity, Signature

EXPORT_TOLERANCE = 1e-5
"""Largest difference between graph and reference, divided by the output's scale; two float32 ulps come on top."""
BATCH_SIZES = (1, 7, 256)
MINIMUM_SAMPLES = 512
SAMPLES_FILE = "parity.npz"
"""The inputs and reference outputs that parity was measured on, stored with the version so that anyone can measure again."""


def measure_parity(
    predict: Callable[[Arrays], Mapping[str, NDArray[Any]]],
    signature: Signature,
    samples: Arrays,
    reference: Arrays,
    tolerance: float = EXPORT_TOLERANCE,
) -> Parity:
    """Asks `predict` for `samples` at batch sizes 1, 7 and 256 and compares with `reference`, output by output.

    `max_scaled_diff` is the largest |difference| / scale; `passed` allows two float32 ulps of the reference on top of
    `tolerance`, and nothing where an output is not finite. Raises `OcadError` where there is nothing to compare: no
    samples, a missing output, another shape.
    """
    from ocad_registry import Parity

    rows = len(next(iter(samples.values())))
    if rows == 0:
        raise OcadError("there are no samples to measure parity on", "return validation inputs in `Export.samples`")
    for tensor in signature.outputs:
        if tensor.name not in reference:
            raise OcadError(f"the reference has no output `{tensor.name}`", "return every output of the signature")
    largest, passed = 0.0, True
    for size in BATCH_SIZES:
        answers = [
            predict({name: array[i : i + size] for name, array in samples.items()}) for i in range(0, rows, size)
        ]
        for tensor in signature.outputs:
            got = np.concatenate([answer[tensor.name] for answer in answers])
            difference, fits = _compare(got, reference[tensor.name], tensor.scale or 1.0, tolerance)
            largest, passed = max(largest, difference), passed and fits
    return Parity(reference="ocad_reference", samples=rows, max_scaled_diff=largest, tolerance=tolerance, passed=passed)


def _compare(got: NDArray[Any], reference: NDArray[Any], scale: float, tolerance: float) -> tuple[float, bool]:
    if got.shape != reference.shape:
        raise OcadError(
            f"the graph answers shape {got.shape} where the reference has {reference.shape}", "correct `ocad_reference`"
        )
    expected = reference.astype(np.float64)
    difference = np.abs(got.astype(np.float64) - expected)
    if not np.isfinite(difference).all():
        return float(np.finfo(np.float64).max), False
    allowed = tolerance * scale + 2 * np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
    return float(difference.max(initial=0.0) / scale), bool((difference <= allowed).all())


def save_samples(path: Path, samples: Arrays, reference: Arrays) -> None:
    """Writes inputs (`input.NAME`) and reference outputs (`reference.NAME`) as a compressed npz without pickles."""
    arrays = {f"input.{name}": array for name, array in samples.items()}
    arrays |= {f"reference.{name}": array for name, array in reference.items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_samples(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The inputs and reference outputs that `save_samples` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        samples = {name.removeprefix("input."): stored[name] for name in stored.files if name.startswith("input.")}
        reference = {
            name.removeprefix("reference."): stored[name] for name in stored.files if name.startswith("reference.")
        }
    return samples, reference
