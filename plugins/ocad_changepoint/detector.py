"""The detector: each row's deviation from the level that is normal now, summed up by a two-sided CUSUM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.detector import GAP_FACTOR, Series, SeriesDetector
from ocad.errors import ConfigError
from ocad_changepoint.config import CusumSettings
from ocad_changepoint.level import MAD_TO_SIGMA, MovingLevel, Normal, column_medians, median_of
from ocad_changepoint.peers import averages, common, common_point, remember_point
from ocad_changepoint.sums import loss_sum, point_sum, window_sums

Floats = NDArray[np.float64]

_CHUNK = 4096
"""Rows that are summed up at once: few enough that running sums lose no digit."""
_LEAST_LOSS, _MOST_LOSS = 0.001, 0.5
_TAIL_SHARE, _LEAST_TAIL = 0.005, 3.0
"""The largest sums whose mean is a unit, and the least unit in deviations: of metrics that hardly ever move."""


class ChangepointDetector(SeriesDetector):
    """Raw score: the largest sum of any metric, up, down or of lost rows (log-likelihood ratio), in robust deviations."""

    def __init__(self, metrics: Sequence[str], settings: CusumSettings) -> None:
        super().__init__(metrics)
        self.settings = settings
        self.everywhere: Normal | None = None
        self.endpoints: dict[str, Normal] = {}
        self._movings: dict[str, MovingLevel] = {}
        self._gains: dict[str, list[tuple[float, float]]] = {}
        self._units: dict[str, list[float]] = {}
        self._ready: dict[str, Floats] = {}
        """Deviations that `meet` has taken for `raw_series`."""
        self.tails: list[float] = []
        """What a sum of each metric and group counts in; see the setting `even`."""
        self._shares = [settings.peers.get(metric, 0.0) for metric in self.metrics]
        _places(self.metrics, [*settings.peers, *settings.least])
        self._drifts = [settings.drift * (rows + 1) for rows in range(settings.window)]
        self._down_too, self._prompt = settings.direction == "both", settings.prompt
        self._groups = [_places(self.metrics, group) for group in settings.together]
        self._whole_window = (1 << settings.window) - 1

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`."""
        self._movings.clear()
        columns = len(self.metrics) + len(self._groups)
        self.tails = [1.0] * columns
        self.endpoints = {part.endpoint: self._fit(part) for part in series}
        if self._groups or self.settings.peers:
            reduced = self._reduced(series)
            self.endpoints = {
                name: replace(self.endpoints[name], units=self._fit_units(reduced[name])) for name in reduced
            }
            self._movings.clear()
            self.forget()
        normals = list(self.endpoints.values())
        sigma, lost, units = (
            np.median([getattr(normal, name) for normal in normals], axis=0).tolist()
            for name in ("sigma", "lost", "units")
        )
        self.everywhere = Normal([None] * len(sigma), sigma, lost, units)
        if self.settings.even:
            self.tails = self._fit_tails(series)
            self._movings.clear()

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        return {
            "cusum": self.settings.model_dump(mode="json"),
            "tails": self.tails,
            "everywhere": self.everywhere.to_json() if self.everywhere else None,
            "endpoints": {name: normal.to_json() for name, normal in self.endpoints.items()},
        }

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`."""
        detector = cls(metrics, CusumSettings.model_validate(parameters["cusum"]))
        detector.tails = parameters.get("tails") or [1.0] * len(detector.metrics)
        detector.everywhere = Normal.from_json(parameters["everywhere"])
        detector.endpoints = {name: Normal.from_json(value) for name, value in parameters["endpoints"].items()}
        return detector

    def meet(self, parts: Sequence[Series]) -> None:
        """See `SeriesDetector`: takes the deviations of all endpoints, less what they have in common."""
        reduced = self._reduced(parts)
        self._ready = {name: self._columns(rows, self._units[name]) for name, rows in reduced.items()}

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        if endpoint not in self._ready:
            self.meet([Series(endpoint, times, values, np.arange(len(times)))])
        track, broken, deviations = self._track(endpoint), self.breaks(endpoint, times), self._ready.pop(endpoint)
        lost, gains = np.isnan(values), np.array(self._gains[endpoint])
        raw = np.empty(len(times))
        for first in range(0, len(times), _CHUNK):
            rows = slice(first, first + _CHUNK)
            raw[rows] = self._sums(track, deviations[rows], lost[rows], broken[rows], gains)
        return raw

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """See `SeriesDetector`."""
        track, moving = self._track(endpoint), self._moving(endpoint)
        clip, longest, gains = self.settings.clip, self.settings.window, self._gains[endpoint]
        shortest, deviations = self.settings.shortest, list[float]()
        recent, lost = track["recent"], track["lost"]
        if self.is_break(endpoint, time_us):
            track["recent"] = recent = [[] for _ in recent]
            for index in range(len(values)):
                lost[index], track["block"][index] = 0, []
        worst = 0.0
        for index, (value, level, sigma) in enumerate(zip(values, track["level"], track["sigma"], strict=True)):
            bits, deviation = lost[index] << 1, 0.0
            if value != value:  # noqa: PLR0124 - the fastest test for NaN
                bits |= 1
            elif level is not None:
                deviation = max(-clip, min(clip, (value - level) / sigma))
            deviations.append(deviation)
            if bits:
                bits &= self._whole_window
                worst = max(worst, loss_sum(bits, *gains[index]))
            lost[index] = bits
        if self.settings.peers:
            deviations = self._reduce_point(endpoint, time_us, deviations)
        if self._groups:
            units = self._units[endpoint][len(values) :]
            sums = (sum(deviations[place] for place in places) for places in self._groups)
            deviations += [max(-clip, min(clip, total / unit)) for total, unit in zip(sums, units, strict=True)]
        for window, deviation, tail in zip(recent, deviations, self.tails, strict=True):
            window.insert(0, deviation)
            if len(window) > longest:
                window.pop()
            worst = max(worst, point_sum(window, self._drifts, self._down_too, shortest, self._prompt) / tail)
        moving.advance(track, values)
        return worst

    def _sums(
        self,
        track: dict[str, Any],
        deviations: Floats,
        lost: NDArray[np.bool_],
        broken: NDArray[np.bool_],
        gains: Floats,
    ) -> Floats:
        """The largest sum `(n,)` of each row; `window` rows of nothing are put in at each break, which no sum reaches over."""
        window = self.settings.window
        rows, places = self._laid_out(track, deviations, broken)
        sums = [self._largest(rows)[places - window] / self.tails]
        if lost.any() or any(track["lost"]):
            flags = np.zeros((len(rows), lost.shape[1]), dtype=bool)
            flags[:window] = [[bits >> (window - 1 - place) & 1 for bits in track["lost"]] for place in range(window)]
            flags[places] = lost
            sums.append(window_sums(np.where(flags, gains[:, 0], gains[:, 1]), window)[places - window])
            track["lost"] = [int("".join(map(str, bits)), 2) for bits in flags[-window:].astype(int).T.tolist()]
        track["recent"] = [column[::-1] for column in rows[-window:].T.tolist()]
        worst = np.maximum.reduce([part.max(axis=1) for part in sums])
        return np.asarray(np.maximum(worst, 0.0))

    def _laid_out(
        self, track: dict[str, Any], deviations: Floats, broken: NDArray[np.bool_]
    ) -> tuple[Floats, NDArray[np.int64]]:
        """The deviations behind the `recent` ones, `window` rows of nothing put in at each break, and their places."""
        window = self.settings.window
        places = np.arange(window, window + len(broken)) + window * np.cumsum(broken)
        rows = np.zeros((int(places[-1]) + 1, deviations.shape[1]))
        for index, recent in enumerate(track["recent"]):
            rows[window - len(recent) : window, index] = recent[::-1]
        rows[places] = deviations
        return rows, places

    def _largest(self, rows: Floats) -> Floats:
        """The largest sum `(n, c)`, in one direction or both, of the deviations `(window + n, c)`."""
        settings = self.settings
        largest = window_sums(rows - settings.drift, settings.window, settings.shortest, settings.prompt)
        if self._down_too:
            down = window_sums(-rows - settings.drift, settings.window, settings.shortest, settings.prompt)
            largest = np.maximum(largest, down)
        return largest

    def _fit(self, part: Series) -> Normal:
        """The level at the end of the training part, and the deviation of its rows from the level that moved along."""
        values, settings = part.values, self.settings
        beginning = column_medians(values[None, : settings.block * settings.memory or None])[0]
        beginning = np.where(np.isnan(beginning), column_medians(values[None])[0], beginning)
        start = [None if np.isnan(level) else float(level) for level in beginning]
        moving = MovingLevel(Normal(start, [0.0] * len(start), [0.0] * len(start), []), settings)
        track = moving.fresh()
        level, _ = moving.move(track, values, self.breaks(part.endpoint, part.times))
        self.forget()
        residuals = np.abs(values - level)[None]
        sigma = np.nan_to_num(MAD_TO_SIGMA * column_medians(residuals)[0])
        present = np.nan_to_num(values - level)
        sigma = np.where(sigma > 0, sigma, present.std(axis=0))
        sigma = np.maximum(sigma, [settings.least.get(metric, 0.0) for metric in self.metrics])
        sigma = np.where(sigma > 0, sigma, 1.0)
        lost = np.clip(np.isnan(values).mean(axis=0), _LEAST_LOSS, _MOST_LOSS)
        units = [1.0] * (len(self.metrics) + len(self._groups))
        return Normal(track["level"], sigma.tolist(), lost.tolist(), units)

    def _fit_units(self, reduced: Floats) -> list[float]:
        """The robust deviation of each metric that peers share, and of each group's sum: wide where metrics move together."""
        singles = [
            _robust(column) if metric in self.settings.peers else 1.0
            for metric, column in zip(self.metrics, reduced.T, strict=True)
        ]
        columns = self._columns(reduced, [*singles, *(1.0 for _ in self._groups)])
        return [*singles, *(_robust(columns[:, places].sum(axis=1)) for places in self._groups)]

    def _fit_tails(self, series: Sequence[Series]) -> list[float]:
        """The mean of the largest sums of each metric and group, of all endpoints together."""
        self.meet(series)
        found = []
        for part in series:
            broken = self.breaks(part.endpoint, part.times)
            increments, places = self._laid_out(self._track(part.endpoint), self._ready.pop(part.endpoint), broken)
            found.append(self._largest(increments)[places - self.settings.window])
        self.forget()
        ordered = np.sort(np.concatenate(found), axis=0)
        largest = ordered[-max(1, int(_TAIL_SHARE * len(ordered))) :].mean(axis=0)
        return list(map(float, np.maximum(largest, _LEAST_TAIL)))

    def _reduced(self, parts: Sequence[Series]) -> dict[str, Floats]:
        """Deviations `(n, m)` of each endpoint's metrics from their moving level, clipped, less what peers have in common."""
        found, clip = {}, self.settings.clip
        for part in parts:
            track, broken = self._track(part.endpoint), self.breaks(part.endpoint, part.times)
            level, sigma = self._moving(part.endpoint).move(track, part.values, broken)
            found[part.endpoint] = np.nan_to_num(np.clip((part.values - level) / sigma, -clip, clip), nan=0.0)
        if not self.settings.peers:
            return found
        known = {
            part.endpoint: averages(
                self._track(part.endpoint), part.times, found[part.endpoint], self.settings.peer_weight
            )
            for part in parts
        }
        for name, track in self.tracks.items():
            if name not in known and track.get("smooth"):
                times, rows = zip(*track["smooth"], strict=True)
                known[name] = np.array(times), np.array(rows)
        for part in parts:
            peers = [seen for name, seen in known.items() if name != part.endpoint]
            if peers:
                found[part.endpoint] -= self._shares * common(part.times, peers, self._stale_us)
        return found

    def _reduce_point(self, endpoint: str, time_us: int, deviations: list[float]) -> list[float]:
        """The same for one row, in the endpoint's units."""
        shared = common_point(endpoint, time_us, self.tracks, self._stale_us)
        remember_point(self.tracks[endpoint], time_us, deviations, self.settings.peer_weight)
        if shared is not None:
            deviations = [
                own - share * other for own, share, other in zip(deviations, self._shares, shared, strict=True)
            ]
        clip = self.settings.clip
        return [max(-clip, min(clip, own / unit)) for own, unit in zip(deviations, self._units[endpoint], strict=False)]

    @property
    def _stale_us(self) -> float:
        """How old a peer's last row may be."""
        return GAP_FACTOR * median_of(list(self.steps.values())) if self.steps else math.inf

    def _columns(self, reduced: Floats, units: Sequence[float]) -> Floats:
        """What is summed up `(n, m + g)`: the metrics' deviations in their units, and those of the groups, clipped."""
        clip, single = self.settings.clip, reduced
        if self.settings.peers:
            single = np.clip(reduced / units[: len(self.metrics)], -clip, clip)
        columns = [single]
        for places, unit in zip(self._groups, units[len(self.metrics) :], strict=True):
            columns.append(np.clip(single[:, places].sum(axis=1, keepdims=True) / unit, -clip, clip))
        return np.hstack(columns) if self._groups else single

    def _track(self, endpoint: str) -> dict[str, Any]:
        """The level's track, `recent` deviations by metric and group, the newest first; `lost` rows as bits."""
        track = self.track(endpoint)
        if "recent" not in track:
            track |= self._moving(endpoint).fresh()
            track["recent"] = [[] for _ in range(len(self.metrics) + len(self._groups))]
            track["lost"] = [0] * len(self.metrics)
            if self.settings.peers:
                track["smooth"] = []
        return track

    def _moving(self, endpoint: str) -> MovingLevel:
        found = self._movings.get(endpoint)
        if found is None:
            normal = self.endpoints.get(endpoint, self.everywhere)
            assert normal is not None
            found = self._movings[endpoint] = MovingLevel(normal, self.settings)
            self._units[endpoint] = list(normal.units)
            self._gains[endpoint] = [self._loss_gain(share) for share in normal.lost]
        return found

    def _loss_gain(self, share: float) -> tuple[float, float]:
        """What a lost and an answered row add: log likelihood of the sought share of loss over that of the usual `share`."""
        sought = min(0.95, max(self.settings.lost_share, 4 * share))
        hit, miss = math.log(sought / share), math.log((1 - sought) / (1 - share))
        return (1.0, miss / hit) if self.settings.even else (hit, miss)


def _robust(values: Floats) -> float:
    """The robust deviation of `values` `(n,)` from 0; 1 where half of them are 0."""
    return MAD_TO_SIGMA * float(np.median(np.abs(values))) or 1.0


def _places(metrics: Sequence[str], group: Sequence[str]) -> list[int]:
    """Where the metrics of a group stand; raises `ConfigError` for one that is not read."""
    for metric in group:
        if metric not in metrics:
            raise ConfigError(f"`cusum` names `{metric}`, which is not read", f"name some of {', '.join(metrics)}")
    return [metrics.index(metric) for metric in group]
