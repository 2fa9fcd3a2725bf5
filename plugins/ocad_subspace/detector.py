"""Windowed T² and Q: standardised metrics, their combined index φ, and its logarithm averaged over several spans of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.calibration import ENOUGH_ROWS
from ocad.detection.detector import Series, SeriesDetector, normal_rows
from ocad.errors import UsageError
from ocad_subspace.config import PcaSettings
from ocad_subspace.spans import SpanUnits, smooth, weights_of
from ocad_subspace.subspace import Scale, Subspace, usual_rows, wandering

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

SCALE_ROWS = 50
"""Fitted rows from which an endpoint is standardised by its own normal."""
COMPONENT_ROWS = 200
"""Fitted rows from which an endpoint has components of its own; each of its averages asks for `_ROWS_EACH` besides."""
_ROWS_EACH = 20
STEADY_SPAN = 5
"""Rows of the average that a wandering metric is measured from."""


@dataclass(frozen=True, slots=True)
class Normal:
    """What is usual on an endpoint: its scale, how its metrics go together, and the units of what lasts."""

    scale: Scale
    subspace: Subspace
    rest: float
    """The score of a usual row: the median of held-out log φ."""
    units: SpanUnits

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "scale": self.scale.to_json(),
            "subspace": self.subspace.to_json(),
            "rest": self.rest,
            "units": self.units.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Normal:
        """What `to_json` wrote."""
        scale, subspace = Scale.from_json(value["scale"]), Subspace.from_json(value["subspace"])
        return cls(scale, subspace, float(value["rest"]), SpanUnits.from_json(value["units"]))


@dataclass(frozen=True, slots=True)
class _Learned:
    """Of one endpoint: its scale, and the standardised averages that are fitted on and those held out."""

    scale: Scale
    fitted: Floats
    held_out: Floats


class SubspaceDetector(SeriesDetector):
    """A row's raw score is the most that an average of log φ says, in noise units; each stretch begins as if normal.

    φ is the combined index of the metrics' trailing averages. Averages are exponential: the state is a number for each. A
    metric that wanders has no fixed normal, and is measured from its own last rows.
    """

    in_noise_units = True

    def __init__(self, metrics: Sequence[str], settings: PcaSettings) -> None:
        super().__init__(metrics)
        self.settings = settings
        self.wandering: NDArray[np.bool_] = np.zeros(len(self.metrics), dtype=bool)
        self.everywhere: Normal | None = None
        self.endpoints: dict[str, Normal] = {}
        self._window_weights = np.repeat(weights_of(settings.windows), len(self.metrics))
        """The weight of the newest row in each average: all metrics of the first window, then of the next."""
        self._span_weights = weights_of(settings.spans)
        self._steady_weight = float(weights_of([STEADY_SPAN])[0])

    # fitting

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`; the newest `held_out` of each endpoint's rows set the limits."""
        self.everywhere, self.endpoints = None, {}
        after = 3 * max(self.settings.windows)
        usual = [usual_rows(part.values, after) for part in series]
        self.wandering = wandering([part.values[rows] for part, rows in zip(series, usual, strict=True)])
        broken = {part.endpoint: self.breaks(part.endpoint, part.times) for part in series}
        steady = {part.endpoint: self._steady(part.endpoint, broken[part.endpoint], part.values) for part in series}
        together = Scale.fit(
            np.concatenate([steady[part.endpoint][rows] for part, rows in zip(series, usual, strict=True)])
        )
        learned = [
            self._learn(part, broken[part.endpoint], steady[part.endpoint], rows, together)
            for part, rows in zip(series, usual, strict=True)
        ]
        fitted = np.concatenate([one.fitted for one in learned])
        everywhere = self._normal(together, fitted, [one.held_out for one in learned])
        self.everywhere = everywhere
        least = max(COMPONENT_ROWS, _ROWS_EACH * len(self._window_weights))
        for part, one in zip(series, learned, strict=True):
            if len(one.fitted) + len(one.held_out) >= least:
                self.endpoints[part.endpoint] = self._normal(one.scale, one.fitted, [one.held_out])
            elif one.scale is not together:
                self.endpoints[part.endpoint] = replace(everywhere, scale=one.scale)
        self.forget()

    def calibrate(self, frame: pd.DataFrame, pooled: bool = False) -> None:
        """See `SeriesDetector`; the units of what lasts are measured first, on the same rows."""
        self.forget()
        averages = self.averages(normal_rows(frame))
        everywhere = self._fitted("")
        if averages:
            rows = np.concatenate(list(averages.values()))
            self.everywhere = replace(everywhere, units=self._units(rows, everywhere.subspace))
        for endpoint, normal in self.endpoints.items():
            own = averages.get(endpoint, np.empty((0, len(self.settings.spans))))
            known = len(own) >= ENOUGH_ROWS and not pooled
            units = self._units(own, normal.subspace) if known else self._fitted("").units
            self.endpoints[endpoint] = replace(normal, units=units)
        super().calibrate(frame, pooled)

    # scoring

    def averages(self, frame: pd.DataFrame) -> dict[str, Floats]:
        """log φ of the rows of `frame` averaged over each span `(n, spans)`, by endpoint; goes on from the state."""
        return {part.endpoint: self._averages(part.endpoint, part.times, part.values) for part in self.series(frame)}

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        return self._fitted(endpoint).units.most(self._averages(endpoint, times, values))

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """See `SeriesDetector`."""
        normal, track = self._fitted(endpoint), self._track(endpoint)
        if self.is_break(endpoint, time_us):
            self._begin_stretch(endpoint, track)
        deviations = normal.scale.deviations(self._steady_point(track, np.array(values, np.float64)))
        standard = np.tile(self._standard(deviations), len(self.settings.windows))
        levels = self._window_weights * standard + (1 - self._window_weights) * np.array(track["levels"])
        track["levels"] = levels.tolist()
        index = normal.subspace.index_point(levels)
        track["averages"] = [
            weight * index + (1 - weight) * before
            for weight, before in zip(self._span_weights.tolist(), track["averages"], strict=True)
        ]
        return normal.units.most_point(track["averages"])

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "wandering": self.wandering.tolist(),
            "everywhere": self._fitted("").to_json(),
            "endpoints": {name: normal.to_json() for name, normal in self.endpoints.items()},
        }

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`."""
        detector = cls(metrics, PcaSettings.model_validate(parameters["settings"]))
        detector.wandering = np.array(parameters["wandering"], dtype=bool)
        detector.everywhere = Normal.from_json(parameters["everywhere"])
        detector.endpoints = {name: Normal.from_json(value) for name, value in parameters["endpoints"].items()}
        return detector

    # inner parts

    def _fitted(self, endpoint: str) -> Normal:
        found = self.endpoints.get(endpoint, self.everywhere)
        if found is None:
            raise UsageError("the detector is not fitted", "call `fit` first")
        return found

    def _learn(
        self, part: Series, broken: NDArray[np.bool_], steady: Floats, usual: NDArray[np.bool_], together: Scale
    ) -> _Learned:
        """What one endpoint's usual rows are; those with too few are standardised by what is usual of all."""
        scale = Scale.fit(steady[usual]) if len(part.times) >= SCALE_ROWS else together
        levels = self._levels(part.endpoint, broken, self._standard(scale.deviations(steady)))[usual]
        if len(levels) < 2:
            return _Learned(scale, levels, levels)
        first = min(max(1, round(len(levels) * (1 - self.settings.held_out))), len(levels) - 1)
        return _Learned(scale, levels[:first], levels[first:])

    def _normal(self, scale: Scale, fitted: Floats, held_out: Sequence[Floats]) -> Normal:
        """From standardised averages `(n, windows · m)`, the held-out ones a stretch each."""
        limiting = np.concatenate(held_out)
        subspace = Subspace.fit(fitted, limiting, self.settings.variance)
        rest = float(np.median(subspace.index(limiting)))
        averages = np.concatenate([self._spanned(subspace.index(rows), rest) for rows in held_out])
        return Normal(scale, subspace, rest, self._units(averages, subspace))

    def _units(self, averages: Floats, subspace: Subspace) -> SpanUnits:
        """From held-out averages `(n, spans)`: a single metric as far out as counts is an alarm within two rows."""
        rows = np.tile(np.eye(len(self.metrics)) * self.settings.clip, len(self.settings.windows))
        return SpanUnits.fit(averages, 1 - (1 - self._span_weights) ** 2, float(subspace.index(rows).min()))

    def _spanned(self, index: Floats, rest: float) -> Floats:
        """The averages `(n, spans)` of one stretch of log φ `(n,)`."""
        broken = np.zeros(len(index), dtype=bool)
        start = np.array([rest])
        return np.hstack(
            [smooth(index[:, None], start, rest, broken, weight) for weight in self._span_weights.tolist()]
        )

    def _track(self, endpoint: str) -> dict[str, Any]:
        """`before`: what wandering metrics are measured from, None at first; `levels`: the averages of the standardised
        metrics, window by window; `averages`: those of log φ.
        """
        track = self.track(endpoint)
        if "levels" not in track:
            self._begin_stretch(endpoint, track)
        return track

    def _begin_stretch(self, endpoint: str, track: dict[str, Any]) -> None:
        track["before"] = [None] * len(self.metrics)
        track["levels"] = [0.0] * len(self._window_weights)
        normal = self.endpoints.get(endpoint, self.everywhere)
        track["averages"] = [normal.rest if normal else 0.0] * len(self._span_weights)

    def _steady(self, endpoint: str, broken: NDArray[np.bool_], values: Floats) -> Floats:
        """`values` `(n, m)`, the wandering ones as what they are above the average of the rows before; advances the track."""
        if not self.wandering.any():
            return values
        track, result = self._track(endpoint), values.copy()
        for column in np.flatnonzero(self.wandering).tolist():
            before = track["before"][column]
            for row, (value, fresh) in enumerate(zip(values[:, column].tolist(), broken.tolist(), strict=True)):
                result[row, column], before = self._above(value, None if fresh else before)
            track["before"][column] = before
        return result

    def _steady_point(self, track: dict[str, Any], values: Floats) -> Floats:
        for column in np.flatnonzero(self.wandering).tolist():
            values[column], track["before"][column] = self._above(float(values[column]), track["before"][column])
        return values

    def _above(self, value: float, before: float | None) -> tuple[float, float | None]:
        """`value` above the average `before` it, and the average after it; a lost value moves nothing."""
        if math.isnan(value):
            return value, before
        if before is None:
            return 0.0, value
        return value - before, before + self._steady_weight * (value - before)

    def _standard(self, deviations: Floats) -> Floats:
        """Robust `deviations` `(…, m)`, clipped; what is missing counts as far out."""
        standard = np.clip(deviations, -self.settings.clip, self.settings.clip)
        return np.where(np.isnan(standard), self.settings.missing, standard)

    def _levels(self, endpoint: str, broken: NDArray[np.bool_], standard: Floats) -> Floats:
        """The trailing averages `(n, windows · m)` of `standard` `(n, m)`; advances the endpoint's track."""
        track, count = self._track(endpoint), len(self.settings.windows)
        starts = np.split(np.array(track["levels"]), count)
        weights = self._window_weights[:: len(self.metrics)].tolist()
        levels = np.hstack(
            [smooth(standard, start, 0.0, broken, weight) for start, weight in zip(starts, weights, strict=True)]
        )
        track["levels"] = levels[-1].tolist()
        return levels

    def _averages(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """The averages of log φ `(n, spans)` of one endpoint's rows; advances its track."""
        normal, broken, track = self._fitted(endpoint), self.breaks(endpoint, times), self._track(endpoint)
        deviations = normal.scale.deviations(self._steady(endpoint, broken, values))
        levels = self._levels(endpoint, broken, self._standard(deviations))
        index = normal.subspace.index(levels)[:, None]
        parts = zip(track["averages"], self._span_weights.tolist(), strict=True)
        averages = np.hstack([smooth(index, np.array([start]), normal.rest, broken, weight) for start, weight in parts])
        track["averages"] = averages[-1].tolist()
        return averages
