"""The detector: each row's deviation from the level that is normal now, summed up by a two-sided CUSUM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.detector import Series, SeriesDetector
from ocad_changepoint.config import CusumSettings
from ocad_changepoint.level import MAD_TO_SIGMA, MovingLevel, Normal, column_medians
from ocad_changepoint.sums import loss_sum, point_sum, window_sums

Floats = NDArray[np.float64]

_CHUNK = 4096
"""Rows that are summed up at once: few enough that running sums lose no digit."""
_LEAST_LOSS, _MOST_LOSS = 0.001, 0.5


class ChangepointDetector(SeriesDetector):
    """Raw score: the largest sum of any metric, up, down or of lost rows (log-likelihood ratio), in robust deviations."""

    def __init__(self, metrics: Sequence[str], settings: CusumSettings) -> None:
        super().__init__(metrics)
        self.settings = settings
        self.everywhere: Normal | None = None
        self.endpoints: dict[str, Normal] = {}
        self._movings: dict[str, MovingLevel] = {}
        self._gains: dict[str, list[tuple[float, float]]] = {}
        self._drifts = [settings.drift * (rows + 1) for rows in range(settings.window)]
        self._down_too = settings.direction == "both"
        self._whole_window = (1 << settings.window) - 1

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`."""
        self._movings.clear()
        self.endpoints = {part.endpoint: self._fit(part) for part in series}
        sigma = np.median([normal.sigma for normal in self.endpoints.values()], axis=0)
        lost = np.median([normal.lost for normal in self.endpoints.values()], axis=0)
        self.everywhere = Normal([None] * len(sigma), sigma.tolist(), lost.tolist())

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        return {
            "cusum": self.settings.model_dump(mode="json"),
            "everywhere": self.everywhere.to_json() if self.everywhere else None,
            "endpoints": {name: normal.to_json() for name, normal in self.endpoints.items()},
        }

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`."""
        detector = cls(metrics, CusumSettings.model_validate(parameters["cusum"]))
        detector.everywhere = Normal.from_json(parameters["everywhere"])
        detector.endpoints = {name: Normal.from_json(value) for name, value in parameters["endpoints"].items()}
        return detector

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        track, broken = self._track(endpoint), self.breaks(endpoint, times)
        level, sigma = self._moving(endpoint).move(track, values, broken)
        deviations = np.nan_to_num(np.clip((values - level) / sigma, -self.settings.clip, self.settings.clip), nan=0.0)
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
        recent, lost = track["recent"], track["lost"]
        if self.is_break(endpoint, time_us):
            for index in range(len(values)):
                recent[index], lost[index], track["block"][index] = [], 0, []
        worst = 0.0
        for index, (value, level, sigma) in enumerate(zip(values, track["level"], track["sigma"], strict=True)):
            bits, deviation = lost[index] << 1, 0.0
            if value != value:  # noqa: PLR0124 - the fastest test for NaN
                bits |= 1
            elif level is not None:
                deviation = max(-clip, min(clip, (value - level) / sigma))
            window = recent[index]
            window.insert(0, deviation)
            if len(window) > longest:
                window.pop()
            worst = max(worst, point_sum(window, self._drifts, self._down_too))
            if bits:
                bits &= self._whole_window
                worst = max(worst, loss_sum(bits, *gains[index]))
            lost[index] = bits
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
        window, drift = self.settings.window, self.settings.drift
        places = np.arange(window, window + len(broken)) + window * np.cumsum(broken)
        rows = np.zeros((int(places[-1]) + 1, deviations.shape[1]))
        for index, recent in enumerate(track["recent"]):
            rows[window - len(recent) : window, index] = recent[::-1]
        rows[places] = deviations
        sums = [window_sums(rows - drift, window)]
        if self._down_too:
            sums.append(window_sums(-rows - drift, window))
        if lost.any() or any(track["lost"]):
            flags = np.zeros(rows.shape, dtype=bool)
            flags[:window] = [[bits >> (window - 1 - place) & 1 for bits in track["lost"]] for place in range(window)]
            flags[places] = lost
            sums.append(window_sums(np.where(flags, gains[:, 0], gains[:, 1]), window))
            track["lost"] = [int("".join(map(str, bits)), 2) for bits in flags[-window:].astype(int).T.tolist()]
        track["recent"] = [column[::-1] for column in rows[-window:].T.tolist()]
        worst = np.maximum.reduce([part[places - window].max(axis=1) for part in sums])
        return np.asarray(np.maximum(worst, 0.0))

    def _fit(self, part: Series) -> Normal:
        """The level at the end of the training part, and the deviation of its rows from the level that moved along."""
        values, settings = part.values, self.settings
        beginning = column_medians(values[None, : settings.block * settings.memory or None])[0]
        beginning = np.where(np.isnan(beginning), column_medians(values[None])[0], beginning)
        start = [None if np.isnan(level) else float(level) for level in beginning]
        moving = MovingLevel(Normal(start, [0.0] * len(start), [0.0] * len(start)), settings)
        track = moving.fresh()
        level, _ = moving.move(track, values, self.breaks(part.endpoint, part.times))
        self.forget()
        residuals = np.abs(values - level)[None]
        sigma = np.nan_to_num(MAD_TO_SIGMA * column_medians(residuals)[0])
        present = np.nan_to_num(values - level)
        sigma = np.where(sigma > 0, sigma, present.std(axis=0))
        lost = np.clip(np.isnan(values).mean(axis=0), _LEAST_LOSS, _MOST_LOSS)
        return Normal(track["level"], np.where(sigma > 0, sigma, 1.0).tolist(), lost.tolist())

    def _track(self, endpoint: str) -> dict[str, Any]:
        """The level's track, `recent` deviations by metric, the newest first, and `lost` rows as bits, the newest the lowest."""
        track = self.track(endpoint)
        if "recent" not in track:
            track |= self._moving(endpoint).fresh()
            track["recent"], track["lost"] = [[] for _ in self.metrics], [0] * len(self.metrics)
        return track

    def _moving(self, endpoint: str) -> MovingLevel:
        found = self._movings.get(endpoint)
        if found is None:
            normal = self.endpoints.get(endpoint, self.everywhere)
            assert normal is not None
            found = self._movings[endpoint] = MovingLevel(normal, self.settings)
            self._gains[endpoint] = [self._loss_gain(share) for share in normal.lost]
        return found

    def _loss_gain(self, share: float) -> tuple[float, float]:
        """What a lost and an answered row add: log likelihood of the sought share of loss over that of the usual `share`."""
        sought = min(0.95, max(self.settings.lost_share, 4 * share))
        return math.log(sought / share), math.log((1 - sought) / (1 - share))
