"""Windowed T² and Q: smoothed standardised metrics, their combined index, and its logarithm smoothed over rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from ocad.detection.detector import Series, SeriesDetector
from ocad.errors import UsageError
from ocad_subspace.config import PcaSettings
from ocad_subspace.subspace import Scale, Subspace, usual_rows

Floats = NDArray[np.float64]

ENDPOINT_ROWS = 50
"""Fitted rows from which an endpoint is standardised by its own normal."""


class SubspaceDetector(SeriesDetector):
    """A row's raw score is the smoothed log φ of the metrics' trailing averages; each stretch begins as if normal.

    The average over a window is exponential: its state is one number for each metric.
    """

    def __init__(self, metrics: Sequence[str], settings: PcaSettings) -> None:
        super().__init__(metrics)
        self.settings = settings
        self.subspace: Subspace | None = None
        self.rest = 0.0
        """The score of a usual row: the median of held-out log φ."""
        self.everywhere: Scale | None = None
        self.endpoints: dict[str, Scale] = {}
        self._score_weight = 2 / (settings.score_smoothing + 1)
        self._weights = np.repeat([2 / (span + 1) for span in settings.windows], len(self.metrics))
        """The weight of the newest row in each average: all metrics of the first window, then of the next."""

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`; the newest `held_out` of each endpoint's rows set the limits."""
        after = 3 * max(self.settings.windows)
        usual = {part.endpoint: usual_rows(part.values, after) for part in series}
        self.everywhere = Scale.fit(np.concatenate([part.values[usual[part.endpoint]] for part in series]))
        self.endpoints = {
            part.endpoint: Scale.fit(part.values[usual[part.endpoint]])
            for part in series
            if len(part.times) >= ENDPOINT_ROWS
        }
        fitted, held_out = [], []
        for part in series:
            rows = self._averages(part.endpoint, self.breaks(part.endpoint, part.times), part.values)
            rows = rows[usual[part.endpoint]]
            first = min(max(1, round(len(rows) * (1 - self.settings.held_out))), len(rows) - 1) if len(rows) > 1 else 1
            fitted.append(rows[:first])
            held_out.append(rows[first:] if len(rows) > 1 else rows)
        limiting = np.concatenate(held_out)
        self.subspace = Subspace.fit(np.concatenate(fitted), limiting, self.settings.variance)
        self.rest = float(np.median(self.subspace.index(limiting)))
        self.forget()

    def ceiling(self) -> float:
        """See `SeriesDetector`: the score of a single metric that is as far out as counts."""
        count = len(self.metrics)
        rows = np.tile(np.eye(count) * self.settings.clip, len(self.settings.windows))
        return float(self._fitted().index(rows).min())

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        broken = self.breaks(endpoint, times)
        index = self._fitted().index(self._averages(endpoint, broken, values))
        track = self.track(endpoint)
        raw = _smooth(index[:, None], np.array([track["score"]]), self.rest, broken, self._score_weight)
        track["score"] = float(raw[-1, 0])
        return raw[:, 0]

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """See `SeriesDetector`."""
        track = self._track(endpoint)
        if self.is_break(endpoint, time_us):
            track["levels"], track["score"] = [0.0] * len(self._weights), self.rest
        standard = np.tile(self._standard(endpoint, np.array(values, np.float64)), len(self.settings.windows))
        levels = self._weights * standard + (1 - self._weights) * np.array(track["levels"])
        track["levels"] = levels.tolist()
        index = self._fitted().index_point(levels)
        score: float = self._score_weight * index + (1 - self._score_weight) * track["score"]
        track["score"] = score
        return score

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "subspace": self._fitted().to_json(),
            "rest": self.rest,
            "everywhere": self.everywhere.to_json() if self.everywhere else None,
            "endpoints": {name: scale.to_json() for name, scale in self.endpoints.items()},
        }

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`."""
        detector = cls(metrics, PcaSettings.model_validate(parameters["settings"]))
        detector.subspace, detector.rest = Subspace.from_json(parameters["subspace"]), float(parameters["rest"])
        detector.everywhere = Scale.from_json(parameters["everywhere"])
        detector.endpoints = {name: Scale.from_json(value) for name, value in parameters["endpoints"].items()}
        return detector

    def _fitted(self) -> Subspace:
        if self.subspace is None:
            raise UsageError("the detector is not fitted", "call `fit` first")
        return self.subspace

    def _track(self, endpoint: str) -> dict[str, Any]:
        """`levels`: the averages of the standardised metrics, window by window; `score`: the average of log φ."""
        track = self.track(endpoint)
        if "levels" not in track:
            track["levels"], track["score"] = [0.0] * len(self._weights), self.rest
        return track

    def _standard(self, endpoint: str, values: Floats) -> Floats:
        """`values` `(…, m)` in robust deviations of the endpoint, clipped; what is missing counts as far out."""
        normal = self.endpoints.get(endpoint) or self.everywhere
        assert normal is not None
        standard = np.clip((values - normal.center) / normal.scale, -self.settings.clip, self.settings.clip)
        return np.where(np.isnan(standard), self.settings.missing, standard)

    def _averages(self, endpoint: str, broken: NDArray[np.bool_], values: Floats) -> Floats:
        """The trailing averages `(n, windows · m)` of the standardised `values`; advances the endpoint's track."""
        track, windows = self._track(endpoint), self.settings.windows
        standard = self._standard(endpoint, values)
        parts = zip(
            np.split(self._weights, len(windows)), np.split(np.array(track["levels"]), len(windows)), strict=True
        )
        levels = np.hstack([_smooth(standard, start, 0.0, broken, float(weights[0])) for weights, start in parts])
        track["levels"] = levels[-1].tolist()
        return levels


def _smooth(rows: Floats, start: Floats, rest: float, broken: NDArray[np.bool_], weight: float) -> Floats:
    """Exponential averages `(n, m)` of `rows` from `start` `(m,)` on, from `rest` again where a row is `broken`."""
    if weight == 1.0:
        return rows
    result = np.empty_like(rows)
    bounds = [0, *np.flatnonzero(broken).tolist(), len(rows)]
    for first, last in pairwise(bounds):
        if first == last:
            continue
        before = np.full_like(start, rest) if broken[first] else start
        carried = (1 - weight) * before[None]
        result[first:last] = lfilter([weight], [1, weight - 1], rows[first:last], axis=0, zi=carried)[0]
    return result
