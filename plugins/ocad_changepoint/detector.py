"""The detector: each row's deviation from the level that is normal now, summed up by a window-limited CUSUM."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.detector import GAP_FACTOR, Series
from ocad.detection.deviations import DeviationDetector
from ocad.detection.level import Normal, median_of
from ocad.detection.sums import point_sum, window_sums
from ocad.detection.units import ALARM_NATS, TO_SIGMA, of_nats, of_nats_point
from ocad.errors import ConfigError
from ocad_changepoint.config import CusumSettings
from ocad_changepoint.peers import averages, common, common_point, remember_point

Floats = NDArray[np.float64]

_CHUNK = 4096
"""Rows that are summed up at once: few enough that running sums lose no digit."""
_ALARM_SUM = 16.0
"""The sum around a drift of 1 that is an alarm. A sum times its drift is a log-likelihood ratio; what normal rows really
reach, whose noise is neither normal nor independent, was measured on other links than those of the published figures."""


class ChangepointDetector(DeviationDetector):
    """Raw score: the largest sum of any metric or group, or a single row's deviation where that says more, in noise units."""

    def __init__(self, metrics: Sequence[str], settings: CusumSettings) -> None:
        super().__init__(metrics, settings)
        self.settings = settings
        self.group_units: dict[str, list[float]] = {}
        """What deviations less the common part, and the sums of each group, are counted in, by endpoint; "" for others."""
        self._ready: dict[str, Floats] = {}
        """Deviations that `meet` has taken for `raw_series`."""
        self._alone: dict[str, Floats] = {}
        """What each of those rows says by itself, in noise units."""
        self._peer_shares = [settings.peers.get(metric, 0.0) for metric in self.metrics]
        _places(self.metrics, [*settings.peers, *settings.least])
        self._drifts = [settings.drift * (rows + 1) for rows in range(settings.window)]
        self._nats = ALARM_NATS / _ALARM_SUM * settings.drift
        self._groups = [_places(self.metrics, group) for group in settings.together]

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`."""
        self.fit_normals(series)
        self.group_units = {"": [1.0] * (len(self.metrics) + len(self._groups))}
        if self._groups or self.settings.peers:
            units = {name: self._fit_units(rows) for name, rows in self._reduced(series).items()}
            self.group_units = units | {"": np.median(list(units.values()), axis=0).tolist()}
            self.forget()

    def adjusted(self, normal: Normal) -> Normal:
        """See `DeviationDetector`: no deviation is less than `least`."""
        least = [self.settings.least.get(metric, 0.0) for metric in self.metrics]
        return replace(normal, sigma=np.maximum(normal.sigma, least).tolist())

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        cusum = self.settings.model_dump(mode="json")
        return {"cusum": cusum, "units": self.group_units, **self.normals_to_json()}

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`."""
        detector = cls(metrics, CusumSettings.model_validate(parameters["cusum"]))
        detector.group_units = {str(name): list(map(float, row)) for name, row in parameters["units"].items()}
        detector.read_normals(parameters)
        return detector

    def meet(self, parts: Sequence[Series]) -> None:
        """See `SeriesDetector`: takes the deviations of all endpoints, less what they have in common."""
        self._ready = {name: self._columns(rows, self._units(name)) for name, rows in self._reduced(parts).items()}

    def caches(self) -> Sequence[MutableMapping[str, Any]]:
        """See `SeriesDetector.caches`."""
        return (*super().caches(), self._ready, self._alone)

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        if endpoint not in self._ready:
            self.meet([Series(endpoint, times, values, np.arange(len(times)), values)])
        track, broken, deviations = self._track(endpoint), self.breaks(endpoint, times), self._ready.pop(endpoint)
        sums = np.empty(len(times))
        for first in range(0, len(times), _CHUNK):
            rows = slice(first, first + _CHUNK)
            laid, places = self._laid_out(track, deviations[rows], broken[rows])
            sums[rows] = self._largest(laid)[places - self.settings.window]
            track["recent"] = [column[::-1] for column in laid[-self.settings.window :].T.tolist()]
        return np.maximum(of_nats(self._nats * np.maximum(sums, 0.0)), self._alone.pop(endpoint))

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """See `SeriesDetector`."""
        settings, track, is_break = self.settings, self._track(endpoint), self.is_break(endpoint, time_us)
        clip, recent = settings.clip, track["recent"]
        if is_break:
            track["recent"] = recent = [[] for _ in recent]
        found = self.deviations_point(endpoint, time_us, values, is_break)
        deviations = [max(-clip, min(clip, one)) if one == one else 0.0 for one in found]  # noqa: PLR0124
        if settings.peers:
            deviations = self._reduce_point(endpoint, time_us, deviations)
        if self._groups:
            units = self._units(endpoint)[len(values) :]
            sums = (sum(deviations[place] for place in places) for places in self._groups)
            deviations += [max(-clip, min(clip, total / unit)) for total, unit in zip(sums, units, strict=True)]
        worst = 0.0
        for window, deviation, down in zip(recent, deviations, self._both_ways, strict=True):
            window.insert(0, deviation)
            if len(window) > settings.window:
                window.pop()
            worst = max(worst, point_sum(window, self._drifts, down, settings.shortest, settings.prompt))
        return max(of_nats_point(self._nats * worst), self.spike_point(endpoint, found))

    @property
    def _both_ways(self) -> tuple[bool, ...]:
        """For each metric, then each group, whether sums downwards count: of a group, when they do for all in it."""
        down = self.down_too
        return (*down, *(all(down[place] for place in places) for places in self._groups))

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
        """The largest sum `(n,)` of any column, in one direction or both, of the deviations `(window + n, c)`."""
        settings, down = self.settings, np.array(self._both_ways)
        largest = window_sums(rows - settings.drift, settings.window, settings.shortest, settings.prompt).max(axis=1)
        if down.any():
            below = -rows[:, down] - settings.drift
            downwards = window_sums(below, settings.window, settings.shortest, settings.prompt)
            largest = np.maximum(largest, downwards.max(axis=1))
        return np.asarray(largest)

    def _fit_units(self, reduced: Floats) -> list[float]:
        """The robust deviation of each metric that peers share, and of each group's sum: wide where metrics move together."""
        singles = [
            _robust(column) if metric in self.settings.peers else 1.0
            for metric, column in zip(self.metrics, reduced.T, strict=True)
        ]
        columns = self._columns(reduced, [*singles, *(1.0 for _ in self._groups)])
        return [*singles, *(_robust(columns[:, places].sum(axis=1)) for places in self._groups)]

    def _reduced(self, parts: Sequence[Series]) -> dict[str, Floats]:
        """Deviations `(n, m)` of each endpoint's metrics from their moving level, clipped, less what peers have in common."""
        found, clip = {}, self.settings.clip
        for part in parts:
            self._track(part.endpoint)
            broken = self.breaks(part.endpoint, part.times)
            rows = self.deviations(part.endpoint, part.times, part.values, broken)
            self._alone[part.endpoint] = self.spikes(part.endpoint, rows)
            found[part.endpoint] = np.nan_to_num(np.clip(rows, -clip, clip), nan=0.0)
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
                times, smooth = zip(*track["smooth"], strict=True)
                known[name] = np.array(times), np.array(smooth)
        for part in parts:
            peers = [seen for name, seen in known.items() if name != part.endpoint]
            if peers:
                found[part.endpoint] -= self._peer_shares * common(part.times, peers, self._stale_us)
        return found

    def _reduce_point(self, endpoint: str, time_us: int, deviations: list[float]) -> list[float]:
        """The same for one row, in the endpoint's units."""
        shared = common_point(endpoint, time_us, self.tracks, self._stale_us)
        remember_point(self.tracks[endpoint], time_us, deviations, self.settings.peer_weight)
        if shared is not None:
            deviations = [
                own - share * other for own, share, other in zip(deviations, self._peer_shares, shared, strict=True)
            ]
        clip = self.settings.clip
        return [max(-clip, min(clip, own / unit)) for own, unit in zip(deviations, self._units(endpoint), strict=False)]

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
        """The level's track and `recent` deviations by metric and group, the newest first."""
        track = self.level_track(endpoint)
        if "recent" not in track:
            track["recent"] = [[] for _ in range(len(self.metrics) + len(self._groups))]
            if self.settings.peers:
                track["smooth"] = []
        return track

    def _units(self, endpoint: str) -> Sequence[float]:
        return self.group_units.get(endpoint, self.group_units[""])


def _robust(values: Floats) -> float:
    """The robust deviation of `values` `(n,)` from 0; 1 where half of them are 0."""
    return TO_SIGMA * float(np.median(np.abs(values))) or 1.0


def _places(metrics: Sequence[str], group: Sequence[str]) -> list[int]:
    """Where the metrics of a group stand; raises `ConfigError` for one that is not read."""
    for metric in group:
        if metric not in metrics:
            raise ConfigError(f"`cusum` names `{metric}`, which is not read", f"name some of {', '.join(metrics)}")
    return [metrics.index(metric) for metric in group]
