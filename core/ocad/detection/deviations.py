"""Detectors that look at each metric's deviation from the level that is normal now, in its own noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.config import LevelSettings
from ocad.detection.detector import Series, SeriesDetector
from ocad.detection.level import MovingLevel, Normal, column_medians, fit_normal, robust_sigma, season_of
from ocad.detection.season import Season
from ocad.detection.units import spike_gain

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


def unseen_normal(series: Sequence[Series], normals: Sequence[Normal], known: Sequence[NDArray[np.bool_]]) -> Normal:
    """What an endpoint never seen begins with: no level, and the median of the deviations that are `known` `(m,)` each.

    Where none is: that of the steps between rows of all endpoints together, less what two rows vary by, or of all values
    where no endpoint has two.
    """
    sigma = []
    for index in range(len(normals[0].sigma)):
        found = [normal.sigma[index] for normal, enough in zip(normals, known, strict=True) if enough[index]]
        sigma.append(float(np.median(found)) if found else _sigma_together([part.values[:, index] for part in series]))
    return Normal([None] * len(sigma), sigma, [None] * len(sigma))


def _sigma_together(columns: Sequence[Floats]) -> float:
    """The robust deviation of rows of endpoints `(n,)` each that have few."""
    steps = np.concatenate([np.diff(column) for column in columns])
    if np.isfinite(steps).any():
        return robust_sigma(steps / math.sqrt(2), 0.0)
    values = np.concatenate(columns)
    return robust_sigma(values - column_medians(values[None, :, None])[0, 0], 0.0)


class DeviationDetector(SeriesDetector):
    """Fits each endpoint's normal and follows its level; a subclass makes scores of the deviations.

    A metric that is a share of lost messages has no deviation: the evidence of lost rows counts it (`ocad.detection.loss`).
    """

    in_noise_units = True

    def __init__(self, metrics: Sequence[str], level: LevelSettings) -> None:
        super().__init__(metrics)
        self.level = level
        self.everywhere: Normal | None = None
        self.endpoints: dict[str, Normal] = {}
        self.gains: dict[str, list[float]] = {}
        """By endpoint, "" for others: what a single row's deviation of each metric counts; see `spike_gain`."""
        self._movings: dict[str, MovingLevel] = {}

    def fit(self, frame: pd.DataFrame) -> None:
        """See `SeriesDetector`; delays that are always above 0 are read as their logarithm, unless their scale was given."""
        if self.level.log:
            delays = [metric for metric in self.metrics if metric in self.upward and metric not in self.shares]
            positive = [metric for metric in delays if metric in frame and (frame[metric].dropna() > 0).all()]
            self.use_scales({**dict.fromkeys(positive, "log"), **self.scales})
        super().fit(frame)

    @property
    def down_too(self) -> tuple[bool, ...]:
        """For each metric whether values below the level count."""
        if self.level.direction == "auto":
            return tuple(metric not in self.upward for metric in self.metrics)
        return (self.level.direction == "both",) * len(self.metrics)

    def fit_normals(self, series: Sequence[Series]) -> None:
        """Fits the normal of each endpoint, and what an endpoint never seen begins with.

        Of a metric with fewer values than two blocks an endpoint's noise is not known: it begins as one never seen.
        """
        self._movings.clear()
        fitted = [
            self.adjusted(fit_normal(part.times, part.values, self.breaks(part.endpoint, part.times), self.level))
            for part in series
        ]
        self.forget()
        least = 2 * self.level.block if self.level.memory else 1
        known = [np.isfinite(part.values).sum(axis=0) >= least for part in series]
        self.everywhere = self.adjusted(unseen_normal(series, fitted, known))
        self.endpoints = {
            part.endpoint: normal.where(enough, self.everywhere)
            for part, normal, enough in zip(series, fitted, known, strict=True)
        }
        self.gains = {part.endpoint: self._fit_gains(part) for part in series}
        self.gains[""] = np.median(list(self.gains.values()), axis=0).tolist()
        self.forget()

    def caches(self) -> Sequence[MutableMapping[str, Any]]:
        """See `SeriesDetector.caches`."""
        return (self._movings,)

    def adjusted(self, normal: Normal) -> Normal:
        """What a subclass makes of a fitted normal."""
        return normal

    def deviations(self, endpoint: str, times: NDArray[np.int64], values: Floats, broken: NDArray[np.bool_]) -> Floats:
        """The deviations `(n, m)` of one endpoint's rows, NaN where lost; advances the level."""
        normal, moving, track = self.normal(endpoint), self.moving(endpoint), self.level_track(endpoint)
        if any(normal.season):
            values = values - season_of(normal.season, times, values)
        level, sigma = moving.move(track, values, broken)
        found = (values - level) / sigma
        for index, metric in enumerate(self.metrics):
            if metric in self.shares:
                found[:, index] = 0.0
        return np.asarray(np.where(np.isnan(level), np.where(np.isnan(values), np.nan, 0.0), found))

    def deviations_point(self, endpoint: str, time_us: int, values: Sequence[float], is_break: bool) -> list[float]:
        """The same for one row."""
        track, moving, share = self.level_track(endpoint), self.moving(endpoint), self.is_share
        if is_break:
            track["block"] = [[] for _ in values]
        seasons: Sequence[Season | None] = self.normal(endpoint).season
        rest = [
            value if season is None else value - season.at_point(time_us)
            for value, season in zip(values, seasons, strict=True)
        ]
        levels, sigmas, found = track["level"], track["sigma"], []
        for index, value in enumerate(rest):
            level = levels[index]
            if value != value:  # noqa: PLR0124 - the fastest test for NaN
                found.append(value)
            elif level is None or share[index]:
                found.append(0.0)
            else:
                found.append((value - level) / sigmas[index])
        moving.advance(track, rest)
        return found

    def spikes(self, endpoint: str, deviations: Floats) -> Floats:
        """What each row of `deviations` `(n, m)` says by itself, `(n,)` in noise units."""
        counted = self._counted(deviations) * self._gains(endpoint)
        return np.asarray(np.fmax(np.fmax.reduce(counted, axis=1), 0.0))

    def spike_point(self, endpoint: str, deviations: Sequence[float]) -> float:
        """The same for one row."""
        worst = 0.0
        for deviation, gain, down in zip(deviations, self._gains(endpoint), self.down_too, strict=True):
            counted = (abs(deviation) if down else deviation) * gain
            worst = max(worst, counted)
        return worst

    def normal(self, endpoint: str) -> Normal:
        """What is normal for `endpoint`, or for all together where it was never seen."""
        found = self.endpoints.get(endpoint, self.everywhere)
        assert found is not None
        return found

    def moving(self, endpoint: str) -> MovingLevel:
        """The level of `endpoint`."""
        found = self._movings.get(endpoint)
        if found is None:
            found = self._movings[endpoint] = MovingLevel(self.normal(endpoint), self.level)
        return found

    def level_track(self, endpoint: str) -> dict[str, Any]:
        """The endpoint's track with the names of `MovingLevel.fresh`."""
        track = self.track(endpoint)
        if "votes" not in track:
            track |= self.moving(endpoint).fresh()
        return track

    def normals_to_json(self) -> dict[str, Any]:
        """The fitted normals as JSON-able values, to be among the `parameters`."""
        assert self.everywhere is not None
        return {
            "everywhere": self.everywhere.to_json(),
            "endpoints": {name: normal.to_json() for name, normal in self.endpoints.items()},
            "gains": self.gains,
        }

    def read_normals(self, parameters: Mapping[str, Any]) -> None:
        """Takes what `normals_to_json` wrote."""
        self.everywhere = Normal.from_json(parameters["everywhere"])
        self.endpoints = {name: Normal.from_json(value) for name, value in parameters["endpoints"].items()}
        self.gains = {str(name): list(map(float, row)) for name, row in parameters["gains"].items()}

    def _gains(self, endpoint: str) -> Sequence[float]:
        return self.gains.get(endpoint) or self.gains[""]

    def _counted(self, deviations: Floats) -> Floats:
        """`deviations` `(n, m)` in the direction that counts, upwards."""
        return np.where(self.down_too, np.abs(deviations), deviations)

    def _fit_gains(self, part: Series) -> list[float]:
        broken = self.breaks(part.endpoint, part.times)
        rows = np.nan_to_num(self._counted(self.deviations(part.endpoint, part.times, part.values, broken)))
        return [spike_gain(column) for column in rows.T]
