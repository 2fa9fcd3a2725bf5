"""Rolling features of each metric, relative to what is normal for its endpoint: vectorised or row by row, to the same.

All rest on the standardised level `asinh((value - median) / (1.4826 · MAD))`, linear near the normal and logarithmic far
from it, so that one spike neither drowns what follows nor leaves the range of float32. A missing value keeps the level
of the one before it and counts as missing. Averages are exponentially weighted: exact in one pass, and their state is
one number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from ocad.errors import DataError

Floats = NDArray[np.float64]
State = list[list[float]]
"""For each metric: level of the last row, its fast, medium and slow average, average step, share of missing rows."""

PER_METRIC = ("level", "deviation", "shift", "trend", "jitter", "missing")
JOINT = ("mean_deviation", "mean_shift", "largest_deviation", "largest_jitter", "largest_missing")
"""Over the metrics, where there are several: what hits all a little stands out in a mean, what hits one in the largest."""

FAST, MEDIUM, SLOW, RECENT = 1 / 8, 1 / 32, 1 / 256, 1 / 8
"""Weights of the newest row in the averages of the level, and (`RECENT`) in those of steps and missing rows."""
_KEEP_FAST, _KEEP_MEDIUM, _KEEP_SLOW, _KEEP_RECENT = 1 - FAST, 1 - MEDIUM, 1 - SLOW, 1 - RECENT
LARGEST_STEP = 64.0
"""In typical steps: a larger one says no more of the jitter."""
_FARTHEST = 30.0
"""asinh of 5e12: beyond that all levels are the same."""
_TENFOLD = 3.0
"""asinh of 10, and a little more than the logarithm of 10."""
_SMALLEST_SCALE = 0.01
_CALM = 0.05
"""Added to the jitter before its logarithm."""
_MAD_TO_SIGMA = 1.4826
_FEW_ROWS = 32
"""Values below which an endpoint is measured by all endpoints together."""


@dataclass(frozen=True, slots=True)
class Normal:
    """What is normal for an endpoint, one number for each metric, in its unit."""

    center: tuple[float, ...]
    """The median."""
    scale: tuple[float, ...]
    """The robust standard deviation."""
    step: tuple[float, ...]
    """The median change of the standardised level from row to row."""

    def to_json(self) -> dict[str, list[float]]:
        """The numbers as JSON-able values."""
        return {"center": list(self.center), "scale": list(self.scale), "step": list(self.step)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Normal:
        """What `to_json` wrote."""
        center, scale, step = (tuple(map(float, value[name])) for name in ("center", "scale", "step"))
        return cls(center, scale, step)


class RollingFeatures:
    """The features of rows of `metrics`; endpoints that are not in `normals` are measured by `everywhere`."""

    def __init__(self, metrics: Sequence[str], everywhere: Normal, normals: Mapping[str, Normal]) -> None:
        self.metrics, self.everywhere, self.normals = tuple(metrics), everywhere, dict(normals)
        names = [f"{metric}_{feature}" for metric in self.metrics for feature in PER_METRIC]
        self.names = tuple(names + list(JOINT if len(self.metrics) > 1 else ()))

    @classmethod
    def fit(cls, metrics: Sequence[str], values: Mapping[str, Floats]) -> RollingFeatures:
        """From mostly normal rows `(n, m)` of each endpoint in time order; raises `DataError` for a metric without values."""
        columns = range(len(metrics))
        for column in columns:
            if not any(np.isfinite(rows[:, column]).any() for rows in values.values()):
                raise DataError(f"the metric `{metrics[column]}` has no value to learn from", "leave it out")
        together = [_normal_of([rows[:, column] for rows in values.values()]) for column in columns]
        normals = {}
        for endpoint, rows in values.items():
            enough = np.isfinite(rows).sum(axis=0) >= _FEW_ROWS
            own = (_normal_of([rows[:, column]]) if enough[column] else together[column] for column in columns)
            normals[endpoint] = _joined(own)
        return cls(metrics, _joined(together), normals)

    def fresh(self) -> State:
        """The state before an endpoint's first row: all is as usual."""
        return [[0.0, 0.0, 0.0, 0.0, 1.0, 0.0] for _ in self.metrics]

    def rows(self, endpoint: str, state: State, breaks: NDArray[np.bool_], values: Floats) -> Floats:
        """Features `(n, k)` of an endpoint's rows `(n, m)` in time order, as `names`; advances `state`.

        `breaks` `(n,)` says which rows begin a new stretch: there only the slow average goes on.
        """
        result = np.empty((len(self.names), len(values)))
        single = result[: len(PER_METRIC) * len(self.metrics)].reshape(len(self.metrics), len(PER_METRIC), -1)
        normal = self.normals.get(endpoint, self.everywhere)
        bounds = [0, *(np.flatnonzero(breaks[1:]) + 1).tolist(), len(values)]
        for first, last in itertools.pairwise(bounds):
            if first < last:
                _stretch(normal, state, bool(breaks[first]), values[first:last].T, single[:, :, first:last])
        if len(self.metrics) > 1:
            _join(single, result[-len(JOINT) :])
        return result.T

    def row(self, endpoint: str, state: State, is_break: bool, values: Sequence[float]) -> list[float]:
        """The features of one row, `rows` without numpy; advances `state`."""
        normal = self.normals.get(endpoint, self.everywhere)
        result: list[float] = []
        for place, value in enumerate(values):
            last, fast, medium, slow, jitter, missing = track = state[place]
            if is_break:
                last, fast, medium, jitter, missing = slow, slow, slow, 1.0, 0.0
            if math.isnan(value):
                level, step, lost = last, 0.0, RECENT
            else:
                level = math.asinh((value - normal.center[place]) / normal.scale[place])
                level = min(max(level, -_FARTHEST), _FARTHEST)
                step = 0.0 if is_break else min(abs(level - last) / normal.step[place], LARGEST_STEP)
                lost = 0.0
            fast = FAST * level + _KEEP_FAST * fast
            medium = MEDIUM * level + _KEEP_MEDIUM * medium
            jitter = RECENT * step + _KEEP_RECENT * jitter
            missing = lost + _KEEP_RECENT * missing
            result += (level, level - slow, fast - slow, medium - slow, math.log(jitter + _CALM), missing)
            track[:] = level, fast, medium, SLOW * level + _KEEP_SLOW * slow, jitter, missing
        if len(self.metrics) > 1:
            result += _joint_of(result)
        return result

    def ranges(self, features: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Lowest and highest value `(k,)` of each feature, as far as seen in `features` `(n, k)` and at least as far as usual.

        Shares reach from 0 to 1 and the others, logarithms of multiples of the normal, to ten times the normal either way.
        """
        shares = np.array([name.endswith("missing") for name in self.names])
        low = np.where(shares, 0, np.minimum(features.min(axis=0), -_TENFOLD))
        high = np.where(shares, 1, np.maximum(features.max(axis=0), _TENFOLD))
        return low, high

    def to_json(self) -> dict[str, Any]:
        """What is normal, as JSON-able values."""
        normals = {endpoint: normal.to_json() for endpoint, normal in self.normals.items()}
        return {"everywhere": self.everywhere.to_json(), "endpoints": normals}

    @classmethod
    def from_json(cls, metrics: Sequence[str], value: Mapping[str, Any]) -> RollingFeatures:
        """What `to_json` wrote."""
        normals = {str(endpoint): Normal.from_json(normal) for endpoint, normal in value["endpoints"].items()}
        return cls(metrics, Normal.from_json(value["everywhere"]), normals)


def _stretch(normal: Normal, state: State, is_break: bool, values: Floats, result: Floats) -> None:
    """Features `(m, 6, n)` of unbroken `values` `(m, n)` into `result`; advances `state`."""
    last, fast, medium, slow, jitter, missing = np.array(state).T
    if is_break:
        last, fast, medium = slow, slow, slow
        jitter, missing = np.ones_like(slow), np.zeros_like(slow)
    center, scale, step = (np.array(part)[:, None] for part in (normal.center, normal.scale, normal.step))
    with np.errstate(over="ignore"):
        level = np.clip(np.arcsinh((values - center) / scale), -_FARTHEST, _FARTHEST)
    lost = np.isnan(level)
    any_lost = bool(lost.any())
    if any_lost:
        level = _carried(level, lost, last)
    steps = np.abs(np.diff(level, axis=1, prepend=last[:, None])) / step
    if is_break:
        steps[:, 0] = 0
    usual = _average(level, SLOW, slow)
    result[:, 0] = level
    result[:, 1:4] = -np.concatenate([slow[:, None], usual[:, :-1]], axis=1)[:, None]
    result[:, 1] += level
    averages = (_average(level, FAST, fast), _average(level, MEDIUM, medium))
    result[:, 2] += averages[0]
    result[:, 3] += averages[1]
    jitters = _average(np.minimum(steps, LARGEST_STEP), RECENT, jitter)
    np.log(jitters + _CALM, out=result[:, 4])
    result[:, 5] = _average(lost.astype(np.float64), RECENT, missing) if any_lost or missing.any() else 0.0
    ends = (level, *averages, usual, jitters, result[:, 5])
    state[:] = np.stack([end[:, -1] for end in ends], axis=1).tolist()


def _join(single: Floats, result: Floats) -> None:
    """The joint features `(5, n)` of features `(m, 6, n)`."""
    deviation, shift, jitter, missing = single[:, 1], single[:, 2], single[:, 4], single[:, 5]
    np.mean(deviation, axis=0, out=result[0])
    np.mean(shift, axis=0, out=result[1])
    np.max(np.abs(deviation), axis=0, out=result[2])
    np.max(jitter, axis=0, out=result[3])
    np.max(missing, axis=0, out=result[4])


def _joint_of(single: list[float]) -> tuple[float, float, float, float, float]:
    """The same of one row's features, metric after metric."""
    deviation, shift, jitter, missing = (single[feature :: len(PER_METRIC)] for feature in (1, 2, 4, 5))
    largest = max(*deviation, -min(deviation))
    return sum(deviation) / len(deviation), sum(shift) / len(shift), largest, max(jitter), max(missing)


def _average(values: Floats, weight: float, start: Floats) -> Floats:
    """The exponentially weighted average of each row of `values` `(m, n)`, going on from `start` `(m,)`."""
    keep = 1 - weight
    averages: Floats = lfilter([weight], [1.0, -keep], values, zi=(keep * start)[:, None])[0]
    return averages


def _carried(level: Floats, lost: NDArray[np.bool_], last: Floats) -> Floats:
    """`level` `(m, n)` with the value before it where it is lost, `last` `(m,)` before the first."""
    whole = np.concatenate([last[:, None], level], axis=1)
    source = np.where(lost, 0, np.arange(1, lost.shape[1] + 1))
    return np.asarray(np.take_along_axis(whole, np.maximum.accumulate(source, axis=1), axis=1))


def _joined(parts: Iterable[tuple[float, float, float]]) -> Normal:
    center, scale, step = zip(*parts, strict=True)
    return Normal(center, scale, step)


def _normal_of(columns: Sequence[Floats]) -> tuple[float, float, float]:
    """Center, scale and step of one metric from the values of one or more endpoints.

    A metric that is constant has 1 % of its level as scale, and 0.01 (a hundredth of a share) where that is zero.
    """
    measured = [column[np.isfinite(column)] for column in columns]
    values = np.concatenate(measured)
    center = float(np.median(values))
    scale = _MAD_TO_SIGMA * float(np.median(np.abs(values - center))) or float(np.std(values)) or abs(center) / 100
    scale = scale or _SMALLEST_SCALE
    steps = np.concatenate([np.abs(np.diff(np.arcsinh((column - center) / scale))) for column in measured])
    step = (float(np.median(steps)) or float(np.mean(steps))) if len(steps) else 0.0
    return center, scale, step or 1.0
