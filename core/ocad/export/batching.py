"""Whether the rows of a batch depend on one another: a graph whose rows do must not serve several requests in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.export.parity import EXPORT_TOLERANCE

if TYPE_CHECKING:
    from ocad.protocols import Arrays
    from ocad_registry import Signature

Predict = Callable[["Arrays"], Mapping[str, NDArray[Any]]]

ALONE = 12
"""Rows that are asked by themselves."""
LARGEST_BATCH = 256
LOUDNESS = 1000.0
"""What the numbers of neighbours are multiplied by, so that whatever leaks from them is seen."""


def is_batchable(predict: Predict, signature: Signature, samples: Arrays) -> bool:
    """Whether `predict` answers each row in a batch as it does alone, whoever its neighbours are and wherever it stands.

    Rows of `samples` are asked alone, then among the others in two orders, among copies of themselves, and next to
    neighbours a thousand times as large and to missing ones (float inputs). Differences count as in `measure_parity`.
    False where an input or output has no free first dimension, or a batch is refused.
    """
    ports = (*signature.inputs, *signature.outputs)
    rows = len(next(iter(samples.values()), ()))
    if rows == 0 or any(list(port.shape[:1]) != [-1] for port in ports):
        return False
    for row in np.unique(np.linspace(0, rows - 1, ALONE).astype(int)):
        alone = predict(_take(samples, np.array([row])))
        for batch, place, must_run in _batches(samples, rows, int(row)):
            try:
                answer = predict(batch)
            except Exception:  # a runtime's own; the server runs such requests one by one
                if must_run:
                    return False
                continue
            if not all(
                _agrees(answer[out.name], place, alone[out.name], out.scale or 1.0) for out in signature.outputs
            ):
                return False
    return True


def _batches(samples: Arrays, rows: int, row: int) -> Iterator[tuple[Arrays, int, bool]]:
    """Batches that hold `row`, its place in each, and whether they are ordinary ones, which a graph must take."""
    start = max(0, min(row, rows - LARGEST_BATCH))
    order = np.arange(start, min(rows, start + LARGEST_BATCH))
    yield _take(samples, order), row - start, True
    yield _take(samples, order[::-1]), len(order) - 1 - (row - start), True
    yield _take(samples, np.full(3, row)), 1, True
    others = np.append(np.delete(order, row - start)[: ALONE - 1], row)
    for change in (lambda values: values * -LOUDNESS - 1, lambda values: np.full_like(values, np.nan)):
        yield _changed(_take(samples, others), change), len(others) - 1, False


def _take(samples: Arrays, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(array)[rows] for name, array in samples.items()}


def _changed(batch: dict[str, NDArray[Any]], change: Callable[[NDArray[Any]], NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """`batch` with the numbers of all rows but the last changed."""
    changed = dict(batch)
    for name, array in batch.items():
        if array.dtype.kind == "f":
            with np.errstate(over="ignore", invalid="ignore"):
                changed[name] = np.concatenate([change(array[:-1]).astype(array.dtype), array[-1:]])
    return changed


def _agrees(batch: NDArray[Any], place: int, alone: NDArray[Any], scale: float) -> bool:
    if len(alone) != 1 or len(batch) <= place or batch.shape[1:] != alone.shape[1:]:
        return False
    got, expected = batch[place], alone[0]
    if expected.dtype.kind not in "fiu":
        return bool(np.array_equal(got, expected))
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        allowed = EXPORT_TOLERANCE * scale + 2 * np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
        return bool((same | (np.abs(got - expected) <= allowed)).all())
