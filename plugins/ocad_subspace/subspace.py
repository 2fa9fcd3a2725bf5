"""Robust standardisation, and the combined index of T² and Q on principal components, as one quadratic form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.units import TO_SIGMA

Floats = NDArray[np.float64]

LIMIT_QUANTILE = 0.95
"""The quantile of held-out T² and Q that counts as 1."""
_NINETY_PERCENT = 2 * 1.6449
"""Standard deviations between the 5 % and the 95 % quantile of a normal distribution."""
_FAR, _MOST_FAR = 6.0, 0.15
"""Robust deviations from which a fitted row is left out, and the share of rows up to which that is done."""
_BLOCKS, _BLOCK_ROWS, _WANDERING = 8, 10, 0.5
_LEAST_VARIANCE = 1e-9
_LEAST_INDEX = 1e-12
_LEAST_SCALE = 1e-9
"""Of a metric that never varied: any change is far out, and clipped."""


def usual_rows(values: Floats, after: int) -> NDArray[np.bool_]:
    """Which of one endpoint's fitted rows `(n, m)` are no incident and not at most `after` rows behind one.

    In an incident a metric is far from its median for its own deviation; one that is far in many of its rows is like that.
    """
    usual = np.ones(len(values), dtype=bool)
    for column in values.T:
        distance = np.abs(column - np.nanmedian(column)) if np.isfinite(column).any() else np.zeros(len(column))
        deviation = TO_SIGMA * float(np.nanmedian(distance)) if np.isfinite(distance).any() else 0.0
        far = distance > _FAR * deviation
        if deviation > 0 and far.mean() <= _MOST_FAR:
            usual &= ~far
    recently = np.convolve(~usual, np.ones(after + 1))[: len(usual)] > 0.5
    return ~recently if not recently.all() else np.ones(len(values), dtype=bool)


def wandering(parts: Sequence[Floats]) -> NDArray[np.bool_]:
    """Which metrics `(m,)` have no fixed normal, from the usual rows `(n, m)` of each endpoint: on most of them the means of
    `_BLOCKS` stretches hold more than half of the metric's variance, as of a temperature that follows the weather.
    """
    found = [
        [_slow_share(column[np.isfinite(column)]) > _WANDERING for column in values.T]
        for values in parts
        if len(values) >= _BLOCKS * _BLOCK_ROWS
    ]
    count = parts[0].shape[1]
    return np.mean(found, axis=0) > 0.5 if found else np.zeros(count, dtype=bool)


def _slow_share(values: Floats) -> float:
    """The share of the variance of `values` `(n,)` that is between stretches of them."""
    variance = float(np.var(values)) if len(values) >= _BLOCKS else 0.0
    if variance <= _LEAST_SCALE**2:
        return 0.0
    return float(np.var([np.mean(block) for block in np.array_split(values, _BLOCKS)])) / variance


@dataclass(frozen=True, slots=True)
class Scale:
    """The normal of an endpoint: median `center` and robust deviation `scale`, `(m,)` each, in the metrics' units.

    The deviation is the range of the inner 90 %: unlike the MAD it does not vanish for values of few steps.
    """

    center: Floats
    scale: Floats

    @classmethod
    def fit(cls, values: Floats) -> Self:
        """From `values` `(n, m)`, NaN left out; a metric without any value has 0 and 1."""
        center, scale = np.zeros(values.shape[1]), np.ones(values.shape[1])
        for index, column in enumerate(values.T):
            present = column[np.isfinite(column)]
            if len(present):
                low, center[index], high = np.quantile(present, [0.05, 0.5, 0.95])
                scale[index] = max((high - low) / _NINETY_PERCENT or float(np.std(present)), _LEAST_SCALE)
        return cls(center, scale)

    def deviations(self, values: Floats) -> Floats:
        """`values` `(…, m)` in robust deviations."""
        return np.asarray((values - self.center) / self.scale)

    def to_json(self) -> dict[str, list[float]]:
        """As JSON-able values."""
        return {"center": self.center.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        return cls(np.asarray(value["center"], np.float64), np.asarray(value["scale"], np.float64))


class Subspace:
    """Principal components of rows `(n, m)` and their combined index φ = T² / limit + Q / limit (Yue and Qin 2001).

    T² (Hotelling) is the distance within the kept components in their own deviations, Q (also SPE; Jackson and Mudholkar
    1979) the squared distance from them; each is divided by its 95 % quantile on rows that the components were not fitted
    on. Both are quadratic in the row, and so is φ: one matrix holds it.
    """

    def __init__(self, center: Floats, scale: Floats, loadings: Floats, variances: Floats, limits: Floats) -> None:
        self.center, self.scale = center, scale
        """Mean and standard deviation `(m,)` of the fitted rows."""
        self.loadings, self.variances = loadings, variances
        """The kept components `(k, m)` and their variances `(k,)`."""
        self.limits = limits
        """The limits `(2,)` of T² and Q."""
        within = (loadings.T / variances) @ loadings
        outside = np.eye(len(center)) - loadings.T @ loadings
        self._matrix = within / limits[0] + outside / limits[1]

    @classmethod
    def fit(cls, rows: Floats, held_out: Floats, variance: float) -> Self:
        """Components of `rows` `(n, m)` that keep the share `variance`; limits from `held_out` `(l, m)`."""
        center = rows.mean(axis=0)
        deviation = rows.std(axis=0)
        scale = np.where(deviation > _LEAST_SCALE, deviation, 1.0)
        standard = (rows - center) / scale
        values, vectors = np.linalg.eigh(standard.T @ standard / len(rows))
        values, vectors = np.maximum(values[::-1], _LEAST_VARIANCE), vectors[:, ::-1]
        kept = int(np.searchsorted(np.cumsum(values) / values.sum(), variance)) + 1
        found = cls(center, scale, np.ascontiguousarray(vectors[:, :kept].T), values[:kept], np.ones(2))
        limits = np.quantile(found.statistics(held_out), LIMIT_QUANTILE, axis=1)
        return cls(center, scale, found.loadings, found.variances, np.maximum(limits, _LEAST_VARIANCE))

    def statistics(self, rows: Floats) -> Floats:
        """T² and Q `(2, n)` of `rows` `(n, m)`."""
        standard = (rows - self.center) / self.scale
        parts = standard @ self.loadings.T
        outside = standard - parts @ self.loadings
        return np.stack([(parts**2 / self.variances).sum(axis=1), (outside**2).sum(axis=1)])

    def index(self, rows: Floats) -> Floats:
        """log φ `(n,)` of `rows` `(n, m)`; φ is 2 where both statistics are at their limits."""
        standard = (rows - self.center) / self.scale
        form: Floats = ((standard @ self._matrix) * standard).sum(axis=1)
        return np.log(np.maximum(form, _LEAST_INDEX))

    def index_point(self, row: Floats) -> float:
        """The same for one row `(m,)`."""
        standard = (row - self.center) / self.scale
        return math.log(max(float(standard @ self._matrix @ standard), _LEAST_INDEX))

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        names = ("center", "scale", "loadings", "variances", "limits")
        return {name: getattr(self, name).tolist() for name in names}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        names = ("center", "scale", "loadings", "variances", "limits")
        return cls(*(np.asarray(value[name], np.float64) for name in names))
