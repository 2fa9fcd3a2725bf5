"""The rules over the rows of an endpoint, vectorised and one row at a time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ocad.detection.config import Scale
from ocad.detection.detector import Series
from ocad.detection.deviations import DeviationDetector
from ocad.detection.level import robust_sigma
from ocad.detection.scaling import scale_columns
from ocad.detection.units import ALARM
from ocad_rule_based.config import RuleSettings

Floats = NDArray[np.float64]

LIMIT = 100.0
"""What a value beyond an absolute limit scores at least: far above any alarm level."""


class RuleDetector(DeviationDetector):
    """Raw score: the largest of what the rules say, each in the proportion in which its threshold is reached."""

    def __init__(self, metrics: Sequence[str], rules: RuleSettings) -> None:
        super().__init__(metrics, rules.level)
        self.rules = rules
        self.jumps: dict[str, list[float]] = {}
        """The robust deviation of each metric's differences, by endpoint; "" for others."""
        self._low, self._high = self._limits()
        self._missed = [ALARM / rules.missed[metric] if metric in rules.missed else 0.0 for metric in self.metrics]
        self._alone, self._lasting = ALARM / rules.level.sigmas, ALARM / rules.level.lasting
        self._loss = ALARM / (rules.loss.window * rules.loss.share)

    def use_scales(self, scales: Mapping[str, Scale]) -> Self:
        """See `SeriesDetector`; limits are in the metric's unit and are read in its scale."""
        super().use_scales(scales)
        self._low, self._high = self._limits()
        return self

    def _limits(self) -> tuple[list[float], list[float]]:
        """The lowest and the highest value of each metric that is allowed, in its scale."""
        rows = np.array([[-np.inf, np.inf]] * len(self.metrics))
        for index, metric in enumerate(self.metrics):
            limits = self.rules.limits.get(metric)
            for side, limit in enumerate((limits.low, limits.high) if limits else ()):
                if limit is not None:
                    rows[index, side] = limit
        if self.scales:
            scaled = scale_columns(self.metrics, self.scales, rows.T).T
            rows = np.where(np.isfinite(rows), np.nan_to_num(scaled, nan=-np.inf), rows)
        return rows[:, 0].tolist(), rows[:, 1].tolist()

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`."""
        self.fit_normals(series)
        self.jumps = {
            part.endpoint: [robust_sigma(step, 0.0) for step in np.diff(part.values, axis=0).T] for part in series
        }
        self.jumps[""] = np.median(list(self.jumps.values()), axis=0).tolist()

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        return {"rules": self.rules.model_dump(mode="json"), "jumps": self.jumps, **self.normals_to_json()}

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`."""
        detector = cls(metrics, RuleSettings.model_validate(parameters["rules"]))
        detector.jumps = {str(name): list(map(float, row)) for name, row in parameters["jumps"].items()}
        detector.read_normals(parameters)
        return detector

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        track, broken = self._track(endpoint), self.breaks(endpoint, times)
        deviations = self.deviations(endpoint, times, values, broken)
        raw = self.spikes(endpoint, deviations) * self._alone
        counted = np.nan_to_num(np.fmax(self._counted(deviations), 0.0))
        np.maximum(raw, self._repeated(track["recent"], counted, broken, self.rules.level.n, self._kth), out=raw)
        lost = (np.isnan(values) & ~np.array(self._sparse(endpoint))).astype(np.float64)
        if lost.any() or any(map(any, track["lost"])):
            np.maximum(raw, self._repeated(track["lost"], lost, broken, self.rules.loss.window, self._share), out=raw)
        if any(self._missed):
            np.maximum(raw, np.fmax.reduce(np.fmax(values * self._missed, 0.0), axis=1), out=raw)
        if self.rules.jump.sigmas is not None:
            np.maximum(raw, self._jumped(endpoint, track, values, broken), out=raw)
        if self.rules.limits:
            over = np.fmax(values - self._high, self._low - values)
            beyond = np.fmax.reduce(np.where(over >= 0, over / self.normal(endpoint).sigma, -np.inf), axis=1)
            raw = np.where(beyond >= 0, np.maximum(raw, LIMIT + beyond), raw)
        return raw

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """See `SeriesDetector`."""
        track, is_break = self._track(endpoint), self.is_break(endpoint, time_us)
        if is_break:
            track["recent"], track["lost"] = ([[] for _ in values] for _ in range(2))
            track["before"] = [None] * len(values)
        deviations, down = self.deviations_point(endpoint, time_us, values, is_break), self.down_too
        worst, rules = self.spike_point(endpoint, deviations) * self._alone, self.rules
        recent, lost = track["recent"], track["lost"]
        sparse = self._sparse(endpoint)
        for index, (value, deviation) in enumerate(zip(values, deviations, strict=True)):
            counted = abs(deviation) if down[index] else deviation
            _slide(recent[index], counted if counted > 0 else 0.0, rules.level.n)
            if len(recent[index]) >= rules.level.k:
                worst = max(worst, min(sorted(recent[index])[-rules.level.k], recent[index][-1]) * self._lasting)
            missing = value != value  # noqa: PLR0124 - the fastest test for NaN
            _slide(lost[index], float(missing and not sparse[index]), rules.loss.window)
            worst = max(worst, sum(lost[index]) * self._loss)
            if missing:
                continue
            worst = max(worst, value * self._missed[index])
            over = max(value - self._high[index], self._low[index] - value)
            if over >= 0:
                worst = max(worst, LIMIT + over / self.normal(endpoint).sigma[index])
        if rules.jump.sigmas is not None:
            worst = max(worst, self._jumped_point(endpoint, track["before"], values))
        return worst

    def _track(self, endpoint: str) -> dict[str, Any]:
        """The level's track; `recent` deviations and `lost` flags by metric, the newest last; `before`, the last value of each."""
        track = self.level_track(endpoint)
        if "recent" not in track:
            track["recent"], track["lost"] = ([[] for _ in self.metrics] for _ in range(2))
            track["before"] = [None] * len(self.metrics)
        return track

    def _sparse(self, endpoint: str) -> Sequence[bool]:
        """Of which metrics the endpoint has no value in most rows: these are not lost."""
        return [usual.sparse for usual in self._lost_of(endpoint).usual]

    def _kth(self, windows: Floats) -> Floats:
        """What the `k`-th largest deviation of `windows` `(n, m, w)` says, `(n,)`; the newest must be as far out itself."""
        k = self.rules.level.k
        kth = np.partition(windows, -k, axis=2)[:, :, -k]
        return np.asarray(np.minimum(kth, windows[:, :, -1]).max(axis=1) * self._lasting)

    def _share(self, windows: Floats) -> Floats:
        """What the lost rows of `windows` `(n, m, w)` say, `(n,)`."""
        return np.asarray(windows.sum(axis=2).max(axis=1) * self._loss)

    @staticmethod
    def _repeated(recent: list[list[float]], rows: Floats, broken: NDArray[np.bool_], window: int, said: Any) -> Floats:
        """What `said` makes `(n,)` of each row's window of `rows` `(n, m)`; keeps the newest rows in `recent`, oldest first."""
        result = np.empty(len(rows))
        bounds = [0, *np.flatnonzero(broken).tolist(), len(rows)]
        for number, (first, last) in enumerate(itertools.pairwise(bounds)):
            before = np.zeros((window - 1, rows.shape[1]))
            if number == 0:
                for index, column in enumerate(recent):
                    kept = column[max(0, len(column) - window + 1) :]
                    before[window - 1 - len(kept) :, index] = kept
            if first < last:
                laid = np.concatenate([before, rows[first:last]])
                result[first:last] = said(sliding_window_view(laid, window, axis=0))
        newest = bounds[-2] if broken.any() else 0
        for index, column in enumerate(recent):
            column[:] = [*([] if broken.any() else column), *rows[newest:, index].tolist()[-window:]][-window:]
        return result

    def _jumped(self, endpoint: str, track: dict[str, Any], values: Floats, broken: NDArray[np.bool_]) -> Floats:
        """What differences from the last measured value of the stretch say, `(n,)`."""
        assert self.rules.jump.sigmas is not None
        factor = ALARM / (self.rules.jump.sigmas * np.asarray(self.jumps.get(endpoint) or self.jumps[""]))
        result, before = np.zeros(len(values)), track["before"]
        for index, column in enumerate(values.T):
            stretch = np.cumsum(broken)
            known = np.flatnonzero(np.isfinite(column))
            if before[index] is not None and len(known) and stretch[known[0]] == 0:
                result[known[0]] = max(result[known[0]], abs(column[known[0]] - before[index]) * factor[index])
            steps = np.where(np.diff(stretch[known]) == 0, np.abs(np.diff(column[known])), 0.0)
            np.maximum.at(result, known[1:], steps * factor[index])
            if broken.any():
                before[index] = None
            if len(known) and stretch[known[-1]] == stretch[-1]:
                before[index] = float(column[known[-1]])
        return result

    def _jumped_point(self, endpoint: str, before: list[float | None], values: Sequence[float]) -> float:
        """The same for one row."""
        assert self.rules.jump.sigmas is not None
        worst, sigmas = 0.0, self.jumps.get(endpoint) or self.jumps[""]
        for index, value in enumerate(values):
            if value != value:  # noqa: PLR0124 - the fastest test for NaN
                continue
            last = before[index]
            if last is not None:
                worst = max(worst, abs(value - last) * (ALARM / (self.rules.jump.sigmas * sigmas[index])))
            before[index] = value
        return worst


def _slide(window: list[float], newest: float, size: int) -> None:
    """Takes in the newest number and forgets the oldest beyond `size`."""
    window.append(newest)
    if len(window) > size:
        del window[0]
