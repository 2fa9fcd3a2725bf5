"""The rules over the rows of an endpoint, vectorised and one row at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.detector import Series, SeriesDetector
from ocad_rule_based.config import RuleSettings
from ocad_rule_based.levels import HOUR_US, HOURS, Levels, fit_levels

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The rules of one endpoint as factors: `center`, `factor` `(24, m)` by hour, `jump`, `low`, `high` `(m,)`.

    A value's level ratio is `|value - center| * factor`, its jump ratio `|difference| * jump`. For a share of missed
    messages `center` is 0, `factor` 1 / share and `jump` 0. `points` has the same numbers by hour and metric.
    """

    center: Floats
    factor: Floats
    jump: Floats
    low: Floats
    high: Floats
    points: list[list[tuple[float, float, float, float, float]]]
    by_hour: bool


class RuleDetector(SeriesDetector):
    """Raw score: the largest ratio of any rule and metric; 1 where a threshold is reached. A lost row has its loss ratio."""

    def __init__(self, metrics: Sequence[str], rules: RuleSettings) -> None:
        super().__init__(metrics)
        self.rules = rules
        self.everywhere: Levels | None = None
        self.endpoints: dict[str, Levels] = {}
        self._thresholds: dict[str, Thresholds] = {}

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`."""
        self.everywhere, self.endpoints = fit_levels(series, self.rules.level)
        self._thresholds = {}

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        return {
            "rules": self.rules.model_dump(mode="json"),
            "everywhere": self.everywhere.to_json() if self.everywhere else None,
            "endpoints": {name: levels.to_json() for name, levels in self.endpoints.items()},
        }

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`."""
        detector = cls(metrics, RuleSettings.model_validate(parameters["rules"]))
        detector.everywhere = Levels.from_json(parameters["everywhere"])
        detector.endpoints = {name: Levels.from_json(value) for name, value in parameters["endpoints"].items()}
        return detector

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        track, broken = self._track(endpoint), self.breaks(endpoint, times)
        thresholds = self._of(endpoint)
        hours = times // HOUR_US % HOURS if thresholds.by_hour else np.zeros(1, np.int64)
        factor = thresholds.factor[hours]
        ratio = np.abs(values - thresholds.center[hours]) * factor
        if self.rules.limits:
            over = np.maximum(values - thresholds.high, thresholds.low - values)
            ratio = np.fmax(ratio, np.where(over >= 0, 1.0 + np.maximum(over, 0.0) * factor, 0.0))
        starts = np.maximum.accumulate(np.where(broken, np.arange(1, len(times) + 1), 0))
        lost = np.isnan(values)
        any_lost = bool(lost.any())
        before = self._before(track, values, lost, starts) if any_lost else self._before_all(track, values, broken)
        ratio = np.fmax(ratio, np.abs(values - before) * thresholds.jump)
        raw = np.nan_to_num(np.fmax.reduce(ratio, axis=1), nan=0.0)
        if any_lost or any(track["lost"]):
            raw = np.maximum(raw, self._losses(track, lost, starts).max(axis=1) * self._loss_factor)
        return np.asarray(raw)

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """See `SeriesDetector`."""
        track = self._track(endpoint)
        before, lost = track["before"], track["lost"]
        if self.is_break(endpoint, time_us):
            for index in range(len(before)):
                before[index], lost[index] = None, 0
        worst, most_lost, whole_window = 0.0, 0, self._whole_window
        for index, (center, factor, jump, low, high) in enumerate(
            self._of(endpoint).points[time_us // HOUR_US % HOURS]
        ):
            value, last = values[index], before[index]
            flags = lost[index] << 1
            if value == value:  # noqa: PLR0124 - the fastest test for NaN
                ratio = abs(value - center) * factor
                worst = max(worst, ratio)
                if last is not None:
                    worst = max(worst, abs(value - last) * jump)
                over = max(value - high, low - value)
                if over >= 0:
                    worst = max(worst, 1.0 + over * factor)
                before[index] = value
            else:
                flags |= 1
            if flags:
                lost[index] = flags = flags & whole_window
                most_lost = max(most_lost, flags.bit_count())
        return max(worst, most_lost * self._loss_factor)

    @cached_property
    def _loss_factor(self) -> float:
        return 1.0 / (self.rules.loss.window * self.rules.loss.share)

    @cached_property
    def _whole_window(self) -> int:
        """A bit for each row that the loss rule looks back on."""
        return (1 << self.rules.loss.window) - 1

    def _track(self, endpoint: str) -> dict[str, Any]:
        """`before`: each metric's last value since the last gap; `lost`: its lost rows as bits, the newest the lowest."""
        track = self.track(endpoint)
        if "before" not in track:
            track["before"], track["lost"] = [None] * len(self.metrics), [0] * len(self.metrics)
        return track

    def _of(self, endpoint: str) -> Thresholds:
        found = self._thresholds.get(endpoint)
        if found is None:
            levels = self.endpoints.get(endpoint, self.everywhere)
            assert levels is not None
            found = self._thresholds[endpoint] = make_thresholds(self.metrics, levels, self.rules)
        return found

    def _before_all(self, track: dict[str, Any], values: Floats, broken: NDArray[np.bool_]) -> Floats:
        """The value before each of `values` `(n, m)`, none of them lost; NaN at the beginning of a stretch."""
        before = np.concatenate([np.array([track["before"]], np.float64), values[:-1]])
        before[broken] = np.nan
        track["before"] = values[-1].tolist()
        return before

    def _before(
        self, track: dict[str, Any], values: Floats, lost: NDArray[np.bool_], starts: NDArray[np.int64]
    ) -> Floats:
        """The same where some are lost: the last measured value of the stretch. Rows count from 1, 0 is the row before."""
        known = np.concatenate([np.array([track["before"]], np.float64), values])
        rows = np.arange(1, len(values) + 1)[:, None]
        last = np.maximum.accumulate(np.where(lost, 0, rows), axis=0)
        earlier = np.concatenate([np.zeros((1, values.shape[1]), np.int64), last[:-1]])
        before = np.take_along_axis(known, earlier, axis=0)
        before[earlier < starts[:, None]] = np.nan
        newest = np.where(last[-1] >= starts[-1], np.take_along_axis(known, last[-1:], axis=0)[0], np.nan)
        track["before"] = [None if np.isnan(value) else value for value in newest.tolist()]
        return before

    def _losses(self, track: dict[str, Any], lost: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the last `window` rows of the stretch are lost, for each row and metric."""
        window = self.rules.loss.window
        earlier = [[bits >> (window - 1 - place) & 1 for bits in track["lost"]] for place in range(window)]
        flags = np.concatenate([np.array(earlier, np.int64), lost])
        sums = np.concatenate([np.zeros((1, lost.shape[1]), np.int64), np.cumsum(flags, axis=0)])
        ends = np.arange(window + 1, window + 1 + len(lost))
        firsts = np.maximum(ends - window, np.where(starts > 0, window + starts - 1, 0))
        newest = flags[firsts[-1] :].T.tolist()
        track["lost"] = [int("".join(map(str, bits)), 2) for bits in newest]
        return np.asarray(sums[ends] - sums[firsts])


def make_thresholds(metrics: Sequence[str], levels: Levels, rules: RuleSettings) -> Thresholds:
    """The rules with the endpoint's normal put in."""
    center, factor = levels.median.copy(), 1.0 / (levels.sigma * rules.level.sigmas)
    jump = 1.0 / (levels.jump * rules.jump.sigmas)
    low, high = np.full(len(metrics), -np.inf), np.full(len(metrics), np.inf)
    for index, metric in enumerate(metrics):
        if metric in rules.missed:
            center[:, index], factor[:, index], jump[index] = 0.0, 1.0 / rules.missed[metric], 0.0
        limits = rules.limits.get(metric)
        if limits:
            low[index] = -np.inf if limits.low is None else limits.low
            high[index] = np.inf if limits.high is None else limits.high
    points = [
        list(zip(center[hour].tolist(), factor[hour].tolist(), jump.tolist(), low.tolist(), high.tolist(), strict=True))
        for hour in range(HOURS)
    ]
    by_hour = bool((center != center[0]).any() or (factor != factor[0]).any())
    return Thresholds(center, factor, jump, low, high, points, by_hour)
