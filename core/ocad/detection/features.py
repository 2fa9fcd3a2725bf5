"""Rolling features of each metric, relative to what is normal for its endpoint: vectorised or row by row, to the same.

All rest on the standardised level `asinh((value - median) / (1.4826 · MAD))`, linear near the normal and logarithmic far
from it, so that one spike neither drowns what follows nor leaves the range of float32. A missing value keeps the level
of the one before it and counts as missing. What is usual of late is a median of means, so that an incident leaves no
trace in it; the other averages are exponentially weighted, whose state is one number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.signal import lfilter

from ocad.detection.units import TO_SIGMA
from ocad.errors import DataError

Floats = NDArray[np.float64]
State = dict[str, Any]
"""`rows` of the unfinished block; for each metric in `tracks` level, smooth level, step, share of missing rows, usual
level and sum of the unfinished block, and in `blocks` the means of the last finished ones."""

EACH = ("level", "deviation")
"""Of every metric: its standardised level, and how far that is from the usual level of late."""
ALONE = ("smooth", "shift", "jitter", "missing")
"""Of a single metric: its level averaged, how far that is from the usual one, logarithm of the averaged step, loss."""
JOINT = (
    "mean_level",
    "mean_smooth",
    "mean_deviation",
    "mean_shift",
    "largest_deviation",
    "largest_jitter",
    "largest_missing",
)
"""Of several metrics: what hits all a little stands out in a mean, what hits one in the largest.

A forest draws the feature of each split at random, so few and telling ones find more than many that repeat each other.
"""

RECENT = 1 / 4
"""Weight of the newest row in the averages of levels, steps and missing rows."""
_KEEP = 1 - RECENT
BLOCK_ROWS, BLOCKS = 16, 15
"""The usual level is the median of the means of this many finished blocks of rows."""
LARGEST_STEP = 64.0
"""In typical steps: a larger one says no more of the jitter."""
_FARTHEST = 30.0
"""asinh of 5e12: beyond that all levels are the same."""
_TENFOLD = 3.0
"""asinh of 10, and a little more than the logarithm of 10."""
_SMALLEST_SCALE = 0.01
_CALM = 0.05
"""Added to the jitter before its logarithm."""
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
        names = [f"{metric}_{feature}" for metric in self.metrics for feature in EACH]
        alone = [f"{metric}_{feature}" for metric in self.metrics for feature in ALONE]
        self.names = (*names, *(alone if len(self.metrics) == 1 else JOINT))

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
        tracks = [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0] for _ in self.metrics]
        return {"rows": 0, "tracks": tracks, "blocks": [[0.0] * BLOCKS for _ in self.metrics]}

    def rows(self, endpoint: str, state: State, breaks: NDArray[np.bool_], values: Floats) -> Floats:
        """Features `(n, k)` of an endpoint's rows `(n, m)` in time order, as `names`; advances `state`.

        `breaks` `(n,)` says which rows begin a new stretch: there only the usual level goes on.
        """
        if len(values) == 0:
            return np.empty((0, len(self.names)))
        normal = self.normals.get(endpoint, self.everywhere)
        last, smooth, step, missing, usual, total = np.array(state["tracks"]).T
        level, lost = _levels(normal, values.T, last)
        steps = np.minimum(np.abs(np.diff(level, axis=1, prepend=last[:, None])) / _column(normal.step), LARGEST_STEP)
        steps[:, breaks] = 0
        usually, total = _usual(level, usual, total, state)
        averages = _averages((level, steps, lost), (smooth, step, missing), breaks, usually)
        ends = (level, *averages, usually)
        state["tracks"] = np.stack([*(end[:, -1] for end in ends), total], axis=1).tolist()
        smooth, step, missing = averages
        return self._assembled(level, smooth, step, missing, usually[:, :-1]).T

    def row(self, endpoint: str, state: State, is_break: bool, values: Sequence[float]) -> list[float]:
        """The features of one row, `rows` without numpy; advances `state`."""
        normal, tracks = self.normals.get(endpoint, self.everywhere), state["tracks"]
        result: list[float] = []
        usually = 0.0
        for place, value in enumerate(values):
            last, smooth, step, missing, usual, total = track = tracks[place]
            if is_break:
                smooth, step, missing = usual, 1.0, 0.0
            if math.isnan(value):
                level, now, lost = last, 0.0, RECENT
            else:
                level = math.asinh((value - normal.center[place]) / normal.scale[place])
                level = min(max(level, -_FARTHEST), _FARTHEST)
                now, lost = min(abs(level - last) / normal.step[place], LARGEST_STEP), 0.0
            smooth = RECENT * level + _KEEP * smooth
            step = RECENT * (0.0 if is_break else now) + _KEEP * step
            missing = lost + _KEEP * missing
            track[:] = level, smooth, step, missing, usual, total + level
            usually += usual
            result += (level, level - usual)
        result += _row_together(tracks, usually, result)
        state["rows"] += 1
        if state["rows"] == BLOCK_ROWS:
            _finish_block(state)
        return result

    def _assembled(self, level: Floats, smooth: Floats, step: Floats, missing: Floats, usual: Floats) -> Floats:
        """The features `(k, n)` of what is known of each metric `(m, n)`."""
        count = len(level)
        result = np.empty((len(self.names), level.shape[1]))
        result[0 : 2 * count : 2] = level
        deviation = np.subtract(level, usual, out=result[1 : 2 * count : 2])
        rest = result[2 * count :]
        if count == 1:
            np.subtract(smooth, usual, out=rest[1:2])
            rest[0], rest[2], rest[3] = smooth, np.log(step + _CALM), missing
            return result
        usually = usual.mean(axis=0)
        np.mean(level, axis=0, out=rest[0])
        np.mean(smooth, axis=0, out=rest[1])
        np.subtract(rest[0], usually, out=rest[2])
        np.subtract(rest[1], usually, out=rest[3])
        np.max(np.abs(deviation), axis=0, out=rest[4])
        np.log(step.max(axis=0) + _CALM, out=rest[5])
        np.max(missing, axis=0, out=rest[6])
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


def _levels(normal: Normal, values: Floats, last: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Standardised levels of `values` `(m, n)` and which are missing, carried on from `last` `(m,)`."""
    with np.errstate(over="ignore"):
        level = np.clip(np.arcsinh((values - _column(normal.center)) / _column(normal.scale)), -_FARTHEST, _FARTHEST)
    lost = np.isnan(level)
    if lost.any():
        whole = np.concatenate([last[:, None], level], axis=1)
        source = np.maximum.accumulate(np.where(lost, 0, np.arange(1, lost.shape[1] + 1)), axis=1)
        level = np.take_along_axis(whole, source, axis=1)
    return level, lost


def _usual(level: Floats, usual: Floats, total: Floats, state: State) -> tuple[Floats, Floats]:
    """The usual level `(m, n + 1)` before each row of `level` `(m, n)` and after the last, and the unfinished block's sum.

    Advances `state["rows"]` and `state["blocks"]`.
    """
    count, begun = len(level), int(state["rows"])
    start = np.zeros((count, begun))
    start[:, :1] = total[:, None]  # the sum of the unfinished block stands for its rows
    rows = np.concatenate([start, level], axis=1)
    finished, rest = divmod(rows.shape[1], BLOCK_ROWS)
    whole = finished * BLOCK_ROWS
    means = rows[:, :whole].reshape(count, finished, BLOCK_ROWS).sum(axis=2) / BLOCK_ROWS
    blocks = np.concatenate([np.array(state["blocks"]), means], axis=1)
    state["rows"], state["blocks"] = rest, blocks[:, -BLOCKS:].tolist()
    windows = sliding_window_view(blocks, BLOCKS, axis=1)[:, 1:]
    medians = np.partition(windows, BLOCKS // 2, axis=2)[:, :, BLOCKS // 2]
    steps = np.concatenate([usual[:, None], medians], axis=1)
    return np.repeat(steps, BLOCK_ROWS, axis=1)[:, begun : begun + level.shape[1] + 1], rows[:, whole:].sum(axis=1)


def _finish_block(state: State) -> None:
    """The same at the last row of a block."""
    for track, blocks in zip(state["tracks"], state["blocks"], strict=True):
        blocks.append(track[5] / BLOCK_ROWS)
        del blocks[0]
        track[4], track[5] = sorted(blocks)[BLOCKS // 2], 0.0
    state["rows"] = 0


def _averages(
    series: tuple[Floats, Floats, NDArray[np.bool_]],
    starts: tuple[Floats, Floats, Floats],
    breaks: NDArray[np.bool_],
    usual: Floats,
) -> tuple[Floats, ...]:
    """Averages of levels, steps and losses `(m, n)`, going on from `starts` and begun anew at each of `breaks` `(n,)`."""
    results = tuple(np.empty(one.shape) for one in series)
    now: tuple[Floats, ...] = starts
    bounds = [0, *(np.flatnonzero(breaks[1:]) + 1).tolist(), len(breaks)]
    for first, last in itertools.pairwise(bounds):
        if breaks[first]:
            now = usual[:, first], np.ones(len(usual)), np.zeros(len(usual))
        for one, start, result in zip(series, now, results, strict=True):
            part = one[:, first:last]
            quiet = part.dtype == bool and not part.any() and not start.any()
            result[:, first:last] = 0.0 if quiet else _average(part.astype(np.float64, copy=False), start)
        now = tuple(result[:, last - 1] for result in results)
    return results


def _average(values: Floats, start: Floats) -> Floats:
    """The exponentially weighted average of each row of `values` `(m, n)`, going on from `start` `(m,)`."""
    averages: Floats = lfilter([RECENT], [1.0, -_KEEP], values, zi=(_KEEP * start)[:, None])[0]
    return averages


def _row_together(tracks: Sequence[Sequence[float]], usual: float, each: Sequence[float]) -> tuple[float, ...]:
    """What `each` metric's level and deviation are followed by: `ALONE` of one metric, `JOINT` of several.

    `usual` is the sum of the usual levels.
    """
    count = len(tracks)
    if count == 1:
        smooth, step, missing = tracks[0][1:4]
        return smooth, smooth - usual, math.log(step + _CALM), missing
    usual /= count
    level, smooth = sum(each[::2]) / count, sum(track[1] for track in tracks) / count
    farthest = max(map(abs, each[1::2]))
    step, missing = max(track[2] for track in tracks), max(track[3] for track in tracks)
    return level, smooth, level - usual, smooth - usual, farthest, math.log(step + _CALM), missing


def _column(numbers: Sequence[float]) -> Floats:
    return np.array(numbers)[:, None]


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
    scale = TO_SIGMA * float(np.median(np.abs(values - center))) or float(np.std(values)) or abs(center) / 100
    scale = scale or _SMALLEST_SCALE
    steps = np.concatenate([np.abs(np.diff(np.arcsinh((column - center) / scale))) for column in measured])
    step = (float(np.median(steps)) or float(np.mean(steps))) if len(steps) else 0.0
    return center, scale, step or 1.0
