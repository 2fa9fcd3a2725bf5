"""Thresholds of a chosen false-alarm probability by extreme value theory: SPOT and DSPOT.

Siffer, Fouque, Termier and Largouët, "Anomaly Detection in Streams with Extreme Value Theory", KDD 2017: peaks over a
high threshold follow a generalised Pareto distribution (GPD); its fit by Grimshaw's trick ("Computing Maximum Likelihood
Estimates for the Generalized Pareto Distribution", Technometrics 1993) is a search in one dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.errors import DataError, UsageError

Floats = NDArray[np.float64]

LEVEL = 0.98
"""The quantile of the first values above which a value is a peak, as in the paper."""
_FEWEST_VALUES = 100
_GRID = 32
"""Points tried on each side of zero, before the best of them is narrowed down."""
_MOST_BOUNDED = -0.5
"""The least tail index looked for: below it the likelihood has no regular maximum (Smith, Biometrika 1985)."""
_SMALL = 0.02
_SERIES = (*((-1) ** power * (power - 1) / power for power in range(11, 1, -1)), 0.0, 0.0)
"""log(1 + z) - z / (1 + z) in falling powers of z, exact to the last digits for |z| < `_SMALL`."""


@dataclass(frozen=True, slots=True)
class Pareto:
    """A generalised Pareto distribution of excesses: `shape` γ (> 0: heavy tail, < 0: bounded), `scale` σ > 0."""

    shape: float
    scale: float

    def quantile(self, share: float) -> float:
        """The excess that a share `share` of the excesses reaches; negative for a share above 1."""
        if self.shape == 0:
            return -self.scale * math.log(share)
        return self.scale / self.shape * math.expm1(-self.shape * math.log(share))


def fit_pareto(excesses: ArrayLike, censored: float = 0.0, bound: float = 0.0) -> Pareto:
    """The GPD of highest likelihood for positive `excesses` `(n,)` and `censored` more of which only `>= bound` is known.

    Grimshaw's trick: given x = γ/σ the best γ is known, here the sum of log(1 + x Y) over all divided by n, which leaves a
    search over x alone. Raises `DataError` when no excess is positive.
    """
    values = np.asarray(excesses, np.float64)
    if len(values) == 0 or not np.isfinite(values).all() or values.min() < 0 or values.max() <= 0:
        raise DataError("no positive excess to fit a tail on", "give more values, or values that differ")
    mean = float(values.mean())
    profile = _Profile(values / mean, censored, bound / mean)  # numbers around one, whatever the unit
    ratio = profile.best()
    scale = profile.scale(ratio)
    return Pareto(ratio * scale, scale * mean)


class _Profile:
    """The log-likelihood of excesses of mean 1 by x = γ/σ, the other parameter at its best.

    Its top is flat: who looks for the highest value misses its place by the root of a rounding error, a thousand times what
    another order of a sum changes. The slope crosses zero there, and keeps its digits around x = 0, the exponential tail.
    """

    def __init__(self, values: Floats, censored: float, bound: float) -> None:
        self._values, self._bound, self._weight = values, bound, censored / len(values)

    def scale(self, ratio: float) -> float:
        """The best σ for x = `ratio`: the best γ is `ratio` times as much."""
        if ratio == 0:
            return 1 + self._weight * self._bound
        return (float(np.log1p(ratio * self._values).mean()) + self._weight * math.log1p(ratio * self._bound)) / ratio

    def at(self, ratios: Floats) -> Floats:
        """The mean log-likelihood at each of `ratios`; -inf where γ is below its least value."""
        logs = np.log1p(ratios[:, None] * self._values).mean(axis=1)
        shapes = logs + self._weight * np.log1p(ratios * self._bound)
        scales = np.divide(shapes, ratios, out=np.full_like(ratios, self.scale(0.0)), where=ratios != 0)
        return np.where(shapes >= _MOST_BOUNDED, -np.log(scales) - logs - 1, -np.inf)

    def rises(self, ratio: float) -> bool:
        """Whether something above x = `ratio` is likelier: by the sign of the slope, or as γ is below its least value."""
        inner, bound = ratio * self._values, ratio * self._bound
        falls, fall = float((inner / (1 + inner)).mean()), self._weight * bound / (1 + bound)
        shape = float(np.log1p(inner).mean()) + self._weight * math.log1p(bound)
        if shape < _MOST_BOUNDED:
            return True
        bend = shape - falls - fall
        if abs(ratio) < _SMALL:  # there the difference has lost digits
            bend = float(_bend(inner).mean()) + self._weight * float(_bend(np.array([bound]))[0])
        return bend > shape * falls

    def best(self) -> float:
        """The x of highest likelihood: around the best of a grid the slope's zero, halved down to two neighbouring numbers."""
        least = -1 / max(float(self._values.max()), self._bound)
        left, right = least * np.geomspace(1 - 1e-9, 1e-6, _GRID), np.geomspace(1e-6, 1e3, _GRID)
        grid = np.concatenate([left, [0.0], right])
        place = int(np.argmax(self.at(grid)))
        low, high = float(grid[max(place - 1, 0)]), float(grid[min(place + 1, len(grid) - 1)])
        while low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if self.rises(middle) else (low, middle)
        return high


def _bend(z: Floats) -> Floats:
    """log(1 + z) - z / (1 + z), how far log(1 + z) bends; near zero by its series."""
    return np.where(np.abs(z) < _SMALL, np.polyval(_SERIES, z), np.log1p(z) - z / (1 + z))


class Spot:
    """A threshold that values exceed with `probability`, kept up to date by each value that does not exceed it.

    Values above it are alarms; how far above never counts. The paper forgets them altogether, so that its tail loses its
    end and the threshold sinks (three to nine times the promised alarms after 100,000 rows): here as many of them as the
    probability promises count as peaks of unknown height. The tail is fitted again when a fiftieth of its peaks is new
    (each time for fewer than 50), on the newest `most_peaks`. Raises `UsageError` for settings out of range.
    """

    def __init__(self, probability: float = 1e-4, level: float = LEVEL, most_peaks: int = 2000) -> None:
        if not 0 < probability < 1 - level < 1:
            message = f"no threshold of probability {probability:g} above the quantile {level:g}"
            raise UsageError(message, "they must be 0 < probability < 1 - level < 1")
        self.probability, self.level, self.most_peaks = probability, level, most_peaks
        self.peak_level = math.nan
        """What a value must exceed to be a peak."""
        self.threshold = math.nan
        self._rows = self._exceedances = self._alarms = self._fresh = 0
        self._excesses: list[float] = []

    def fit(self, values: ArrayLike) -> None:
        """Begins from the first `values` `(n,)`, NaN left out; raises `DataError` for fewer than 100, or all equal."""
        known = _known(values)
        self.peak_level = float(np.quantile(known, self.level))
        peaks = known[known > self.peak_level] - self.peak_level
        if len(peaks) == 0:
            # more than the share of peaks ties at the top: every other value lies below it
            raise DataError("the first values have no tail", "give values that differ, or a lower level")
        self._rows, self._exceedances, self._alarms, self._fresh = len(known), len(peaks), 0, 0
        self._excesses = peaks[-self.most_peaks :].tolist()
        self._refit()

    def step(self, value: float) -> bool:
        """Whether `value` is an alarm; NaN is none."""
        if value > self.threshold:
            self._alarms += 1
            return True
        if value > self.peak_level:
            self._learn_peak(value)
        elif not math.isnan(value):
            self._rows += 1
        return False

    def run(self, values: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
        """`step` for each of `values` `(n,)`: alarms and the threshold that each was held against, `(n,)` both."""
        array = np.asarray(values, np.float64)
        alarms, thresholds = np.zeros(len(array), dtype=bool), np.empty(len(array))
        known = np.concatenate([[0], np.cumsum(~np.isnan(array))])
        start = 0
        for place in np.flatnonzero(array > self.peak_level).tolist():  # between peaks nothing but the count changes
            self._rows += int(known[place] - known[start])
            thresholds[start : place + 1] = self.threshold
            alarms[place] = self.step(float(array[place]))
            start = place + 1
        self._rows += int(known[len(array)] - known[start])
        thresholds[start:] = self.threshold
        return alarms, thresholds

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs to go on, as JSON-able values."""
        return {
            "peak_level": self.peak_level,
            "threshold": self.threshold,
            "rows": self._rows,
            "exceedances": self._exceedances,
            "alarms": self._alarms,
            "fresh": self._fresh,
            "excesses": list(self._excesses),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.peak_level, self.threshold = float(state["peak_level"]), float(state["threshold"])
        self._rows, self._exceedances = int(state["rows"]), int(state["exceedances"])
        self._alarms, self._fresh = int(state["alarms"]), int(state["fresh"])
        self._excesses = [float(excess) for excess in state["excesses"]]

    def _learn_peak(self, value: float) -> None:
        self._rows += 1
        self._exceedances += 1
        self._fresh += 1
        self._excesses.append(value - self.peak_level)
        del self._excesses[: -self.most_peaks]
        if 50 * self._fresh >= len(self._excesses):
            self._refit()

    def _refit(self) -> None:
        self._fresh = 0
        expected = min(float(self._alarms), self.probability * self._rows)
        censored = expected * len(self._excesses) / self._exceedances
        tail = fit_pareto(self._excesses, censored, self.threshold - self.peak_level if censored else 0.0)
        share = self.probability * (self._rows + expected) / (self._exceedances + expected)
        self.threshold = self.peak_level + max(tail.quantile(share), 0.0)


class DriftSpot:
    """DSPOT: SPOT on how far each value lies above the mean of the `depth` values before it, alarms left out.

    Follows a level that drifts. `probability`, `level` and `most_peaks` as for `Spot`.
    """

    def __init__(
        self, depth: int = 50, probability: float = 1e-4, level: float = LEVEL, most_peaks: int = 2000
    ) -> None:
        if depth < 1:
            raise UsageError(f"a window of {depth} values", "`depth` must be at least 1")
        self.depth = depth
        self.spot = Spot(probability, level, most_peaks)
        self._window: list[float] = []
        self._next = 0
        self._sum = 0.0

    @property
    def threshold(self) -> float:
        """What the next value must exceed to be an alarm."""
        return self.spot.threshold + self._sum / self.depth

    def fit(self, values: ArrayLike) -> None:
        """Begins from the first `values` `(n,)`, NaN left out; raises `DataError` for fewer than 100 + `depth`."""
        known = _known(values, _FEWEST_VALUES + self.depth)
        before = np.convolve(known, np.full(self.depth, 1 / self.depth), "valid")[:-1]
        self.spot.fit(known[self.depth :] - before)
        self._window, self._next = known[-self.depth :].tolist(), 0
        self._sum = math.fsum(self._window)

    def step(self, value: float) -> bool:
        """Whether `value` is an alarm; NaN is none."""
        if math.isnan(value):
            return False
        alarm = self.spot.step(value - self._sum / self.depth)
        if not alarm:
            self._sum += value - self._window[self._next]
            self._window[self._next] = value
            self._next = (self._next + 1) % self.depth
            if self._next == 0:
                self._sum = math.fsum(self._window)  # rounding never adds up beyond one round
        return alarm

    def run(self, values: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
        """`step` for each of `values` `(n,)`: alarms and the threshold that each was held against, `(n,)` both."""
        array = np.asarray(values, np.float64)
        alarms, thresholds = np.zeros(len(array), dtype=bool), np.empty(len(array))
        for place, value in enumerate(array.tolist()):
            thresholds[place] = self.threshold
            alarms[place] = self.step(value)
        return alarms, thresholds

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs to go on, as JSON-able values."""
        return {"spot": self.spot.state(), "window": list(self._window), "next": self._next, "sum": self._sum}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.spot.restore(state["spot"])
        self._window = [float(value) for value in state["window"]]
        self._next, self._sum = int(state["next"]), float(state["sum"])


def _known(values: ArrayLike | Sequence[float], fewest: int = _FEWEST_VALUES) -> Floats:
    """`values` without NaN; raises `DataError` for fewer than `fewest`."""
    array = np.asarray(values, np.float64)
    known = array[~np.isnan(array)]
    if len(known) < fewest:
        raise DataError(f"{len(known)} values are too few to begin from", f"give at least {fewest}")
    return known
