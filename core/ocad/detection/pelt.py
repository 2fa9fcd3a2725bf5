"""Change points of a finished series by PELT (Killick et al. 2012): offline, for reports only."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ocad.detection.units import TO_SIGMA
from ocad.errors import OcadError


def change_points(values: ArrayLike, penalty: float | None = None, least_rows: int = 5) -> list[int]:
    """The rows at which a new level begins, in rising order, of `values` `(n,)` or `(n, m)` in time order.

    The cost is the squared distance from each segment's mean after robust scaling by the noise from row to row, so
    `penalty` (what a change point must save) is in squared deviations; without one it is 3 · m · ln n. Lost values (NaN) are
    left out: rows in which every metric is lost belong to no segment. Raises `OcadError` without the package `ruptures`.
    """
    table = np.asarray(values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    places = np.flatnonzero(np.isfinite(table).any(axis=1))
    if len(places) < 2 * least_rows:
        return []
    scaled = np.column_stack([_scaled(column) for column in table[places].T])
    saved = 3 * scaled.shape[1] * math.log(len(scaled)) if penalty is None else penalty
    search = _ruptures().KernelCPD(kernel="linear", min_size=least_rows).fit(scaled)
    return [int(places[row]) for row in search.predict(pen=saved) if row < len(places)]


def _scaled(column: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The column in deviations of its differences, the last measured value standing in for lost ones."""
    rows = np.arange(len(column))
    last = np.maximum.accumulate(np.where(np.isfinite(column), rows, 0))
    filled = np.nan_to_num(column[last], nan=float(np.nanmedian(column)) if np.isfinite(column).any() else 0.0)
    differences = np.diff(filled)
    sigma = TO_SIGMA * float(np.median(np.abs(differences))) / math.sqrt(2) or float(np.std(differences)) or 1.0
    return np.asarray((filled - np.median(filled)) / sigma)


def _ruptures() -> Any:
    try:
        return importlib.import_module("ruptures")
    except ImportError:
        raise OcadError("PELT needs the package `ruptures`, which is not installed", "`pip install ruptures`") from None
