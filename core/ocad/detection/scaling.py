"""Metrics in a scale in which their noise is even: logarithms of delays, square roots of small shares.

Delays vary by factors, not by microseconds: in raw values the upper tail of normal rows looks like an incident. A count of
few lost messages varies by the root of its mean, which the root makes even.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ocad.detection.config import Scale

Floats = NDArray[np.float64]


def scale_columns(metrics: Sequence[str], scales: Mapping[str, Scale], values: Floats) -> Floats:
    """`values` `(n, m)` of `metrics`, those in `scales` as natural logarithm or square root.

    A value without one (not above 0, for the root below 0) becomes NaN, as a missing one.
    """
    if not scales:
        return values
    scaled = values.copy()
    for index, metric in enumerate(metrics):
        column = values[:, index]
        with np.errstate(invalid="ignore", divide="ignore"):
            match scales.get(metric):
                case "log":
                    scaled[:, index] = np.where(column > 0, np.log(column), np.nan)
                case "root":
                    scaled[:, index] = np.sqrt(column)
                case None:
                    pass
    return scaled


def point_scales(
    metrics: Sequence[str], scales: Mapping[str, Scale]
) -> tuple[tuple[int, Callable[[float], float]], ...]:
    """The places in `metrics` of those that are scaled, and the function of each for one value."""
    functions = {"log": _log, "root": _root}
    return tuple((index, functions[scales[metric]]) for index, metric in enumerate(metrics) if metric in scales)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan


def _root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan
