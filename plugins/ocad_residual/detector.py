"""The detector: what a forecast did not expect, per endpoint and metric, in standard deviations of its usual error."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.detector import Series, SeriesDetector
from ocad.detection.spot import DriftSpot, Spot
from ocad.detection.units import ALARM
from ocad.errors import DataError
from ocad.protocols import Predictor
from ocad.timeseries.windows import Windows
from ocad_residual.config import EvidenceSettings, ThresholdSettings
from ocad_residual.evidence import Evidence, Normal, normal_span, robust_deviation
from ocad_residual.forecasters import Autoregression, Forecaster, RegisteredForecaster, forecaster_from_json
from ocad_residual.windows import Window, whole_windows

logger = logging.getLogger("ocad.data")

Floats = NDArray[np.float64]

ENOUGH_VALUES = 200
"""Values of each metric from which an endpoint has a normal of its own."""
_MOST_WINDOWS = 100_000
"""Training windows of an autoregression."""
_NOT_WORTH_IT = 1.25
"""A forecaster whose mean error is this many times that of repeating the last value does not know the series."""


@dataclass(slots=True)
class Live:
    """The streaming state of one endpoint: a window and the evidence so far for each metric, and its threshold."""

    windows: list[Window]
    evidence: list[Evidence]
    threshold: Spot | DriftSpot | None

    def forget(self) -> None:
        """Begins anew, after a gap; the threshold goes on."""
        for window, evidence in zip(self.windows, self.evidence, strict=True):
            window.values = []
            evidence.forget()

    def to_json(self) -> dict[str, Any]:
        """The state as JSON-able values."""
        return {
            "windows": [list(window.values) for window in self.windows],
            "averages": [evidence.average for evidence in self.evidence],
            "threshold": self.threshold.state() if self.threshold else None,
        }


class ResidualDetector(SeriesDetector):
    """Raw score: the evidence of all metrics, or the alarm level where it reaches a SPOT threshold.

    `forecasters` has at most one for each metric; those without one get an autoregression of `length` values in `fit`.
    """

    in_noise_units = True

    def __init__(
        self,
        metrics: Sequence[str],
        forecasters: Mapping[str, Forecaster],
        length: int = 10,
        evidence: EvidenceSettings | None = None,
        threshold: ThresholdSettings | None = None,
    ) -> None:
        super().__init__(metrics)
        self.forecasters = dict(forecasters)
        self.length = length
        self.evidence = evidence or EvidenceSettings()
        self.threshold = threshold or ThresholdSettings()
        self.everywhere: list[Normal] = []
        """What is normal for all endpoints together, in the order of `metrics`."""
        self.normal: dict[str, list[Normal]] = {}
        """The same for each endpoint with enough rows."""
        self.first_threshold: dict[str, Any] | None = None
        """The state that the threshold of an endpoint never seen begins with; None for the kind `none`."""
        self.first_thresholds: dict[str, dict[str, Any]] = {}
        """The same for each endpoint with enough rows."""
        self._live: dict[str, Live] = {}

    # the graphs behind it

    def graphs(self) -> dict[str, Predictor]:
        """The predictor in use for each registered forecaster, by its exact reference."""
        return {item.ref: item.predictor for item in self.references() if item.predictor is not None}

    def use_graph(self, ref: str, predictor: Predictor) -> None:
        """Asks `predictor` from now on for the forecaster `ref`; raises `DataError` when there is no such one."""
        wanted = [item for item in self.references() if item.ref == ref]
        if not wanted:
            raise DataError(f"the detector has no forecaster `{ref}`", "`graphs()` names those that it has")
        for item in wanted:
            item.predictor = predictor

    def references(self) -> list[RegisteredForecaster]:
        """The registered forecasters, in the order of the metrics."""
        found = [self.forecasters.get(metric) for metric in self.metrics]
        return [item for item in found if isinstance(item, RegisteredForecaster)]

    # fitting

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`: the forecasters still missing, what is normal, and where thresholds begin."""
        broken = [self.breaks(part.endpoint, part.times) for part in series]
        for place, metric in enumerate(self.metrics):
            if isinstance(self.forecasters.get(metric), Autoregression | None):
                self.forecasters[metric] = self._autoregression(series, broken, place)
        known = [int(np.isfinite(part.values).sum(axis=0).min()) for part in series]
        anywhere = self._spans([part.values for part in series])
        spans = [
            self._spans([part.values]) if rows >= ENOUGH_VALUES else anywhere
            for part, rows in zip(series, known, strict=True)
        ]
        residuals = [self._residuals(*each) for each in zip(series, broken, spans, strict=True)]
        for place, metric in enumerate(self.metrics):
            self._warn_of_misfit(metric, series, residuals, place)
        self.everywhere = self._normal(anywhere, np.concatenate(residuals))
        self.normal = {
            part.endpoint: self._normal(span, errors)
            for part, rows, span, errors in zip(series, known, spans, residuals, strict=True)
            if rows >= ENOUGH_VALUES
        }
        self.first_threshold, self.first_thresholds = None, {}
        if self.threshold.kind != "none":
            self._begin_thresholds(series)
        self.forget()

    def _autoregression(
        self, series: Sequence[Series], broken: Sequence[NDArray[np.bool_]], place: int
    ) -> Autoregression:
        """Fitted on all endpoints, each in units of its usual step, so that the noisiest does not decide alone."""
        made = []
        for part, starts in zip(series, broken, strict=True):
            values = part.values[:, place]
            steps = np.diff(values)
            unit = robust_deviation(steps[np.isfinite(steps)], 0.0)
            made.append(whole_windows(part.times, values / unit, starts, self.length))
        count = sum(map(len, made))
        if count < 2 * self.length:
            message = f"{count} unbroken windows of `{self.metrics[place]}` are too few for an autoregression"
            raise DataError(message, "give a longer series, or name a registered forecaster")
        kept = np.unique(np.linspace(0, count - 1, min(count, _MOST_WINDOWS)).astype(np.int64))
        sequence, target, times, endpoints = (
            np.concatenate([getattr(windows, name) for windows in made])[kept]
            for name in ("sequence", "target", "timestamp", "endpoint")
        )
        return Autoregression.fit(Windows(sequence, target, times, endpoints))

    def _spans(self, values: Sequence[Floats]) -> list[tuple[float, float]]:
        return [normal_span(column, self.evidence.normal_share) for column in np.concatenate(values).T]

    def _normal(self, spans: Sequence[tuple[float, float]], residuals: Floats) -> list[Normal]:
        return [
            Normal.fit(span, errors[np.isfinite(errors)], metric in self.upward, self.evidence)
            for span, errors, metric in zip(spans, residuals.T, self.metrics, strict=True)
        ]

    def _begin_thresholds(self, series: Sequence[Series]) -> None:
        """Fits a threshold on the evidence of all endpoints, and of each where that has a tail."""
        self.forget()
        evidence = {part.endpoint: self._evidence(part.endpoint, part.times, part.values) for part in series}
        threshold = self._new_threshold()
        threshold.fit(np.concatenate(list(evidence.values())))
        self.first_threshold = threshold.state()
        for endpoint, scores in evidence.items():
            threshold = self._new_threshold()
            try:
                threshold.fit(scores)
            except DataError:  # too few rows, or rows without a tail: what all endpoints say stands for it
                continue
            self.first_thresholds[endpoint] = threshold.state()

    def _warn_of_misfit(self, metric: str, series: Sequence[Series], residuals: Sequence[Floats], place: int) -> None:
        """A forecaster of another step or network is no error: the calibration holds, but little is found."""
        forecaster = self.forecasters[metric]
        if not isinstance(forecaster, RegisteredForecaster):
            return
        own = np.abs(np.concatenate([errors[1:, place] for errors in residuals]))
        last = np.abs(np.concatenate([np.diff(part.values[:, place]) for part in series]))
        both = np.isfinite(own) & np.isfinite(last)
        if both.any() and own[both].mean() > _NOT_WORTH_IT * last[both].mean():
            text = "the forecaster `%s` misses `%s` by %.3g on average, repeating the last value by %.3g: %s"
            hint = "was it trained on another time step or network?"
            logger.warning(text, forecaster.ref, metric, own[both].mean(), last[both].mean(), hint)

    # scoring

    def caches(self) -> Sequence[MutableMapping[str, Any]]:
        """See `SeriesDetector.caches`."""
        return (self._live,)

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        scores = self._evidence(endpoint, times, values)
        threshold = self._live[endpoint].threshold
        return scores if threshold is None else ALARM * scores / threshold.run(scores)[1]

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """See `SeriesDetector`."""
        live = self._live.get(endpoint) or self._begin_live(endpoint)
        if self.is_break(endpoint, time_us):
            live.forget()
        found = []
        for metric, value, window, evidence in zip(self.metrics, values, live.windows, live.evidence, strict=True):
            residual = math.nan
            if window.values and not math.isnan(value):
                residual = value - self.forecasters[metric].next_value(window.values)
            found.append(evidence.step(residual))
            window.slide(value)
        score = self._combined(found)
        if live.threshold is None:
            return score
        limit = live.threshold.threshold
        live.threshold.step(score)
        return ALARM * score / limit

    def state(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        for endpoint, live in self._live.items():
            self.track(endpoint)["live"] = live.to_json()
        return super().state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `SeriesDetector`."""
        super().restore(state)
        self._live = {}

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        return {
            "forecasters": {metric: self.forecasters[metric].to_json() for metric in self.metrics},
            "length": self.length,
            "evidence": self.evidence.model_dump(),
            "threshold": self.threshold.model_dump(),
            "everywhere": [normal.to_json() for normal in self.everywhere],
            "normal": {endpoint: [normal.to_json() for normal in row] for endpoint, row in self.normal.items()},
            "first_threshold": self.first_threshold,
            "first_thresholds": self.first_thresholds,
        }

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`; registered forecasters wait for `use_graph`."""
        forecasters = {metric: forecaster_from_json(value) for metric, value in parameters["forecasters"].items()}
        evidence = EvidenceSettings.model_validate(parameters["evidence"])
        threshold = ThresholdSettings.model_validate(parameters["threshold"])
        detector = cls(metrics, forecasters, int(parameters["length"]), evidence, threshold)
        detector.everywhere = [Normal.from_json(value) for value in parameters["everywhere"]]
        known = parameters["normal"].items()
        detector.normal = {endpoint: [Normal.from_json(value) for value in row] for endpoint, row in known}
        detector.first_threshold = parameters["first_threshold"]
        detector.first_thresholds = dict(parameters["first_thresholds"])
        return detector

    # inner parts

    def _residuals(self, part: Series, broken: NDArray[np.bool_], spans: Sequence[tuple[float, float]]) -> Floats:
        """Value minus forecast `(n, m)`, NaN where there is none, of a series by itself."""
        columns = []
        for metric, values, span in zip(self.metrics, part.values.T, spans, strict=True):
            forecaster = self.forecasters[metric]
            columns.append(values - Window(forecaster.length, *span).forecast(forecaster, values, broken))
        return np.stack(columns, axis=1)

    def _evidence(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """The evidence of all metrics `(n,)`; advances the endpoint's windows and averages."""
        live = self._live.get(endpoint) or self._begin_live(endpoint)
        broken = self.breaks(endpoint, times)
        columns = []
        for place, metric in enumerate(self.metrics):
            column, evidence = values[:, place], live.evidence[place]
            forecasts = live.windows[place].forecast(self.forecasters[metric], column, broken)
            found = []
            for residual, begins in zip((column - forecasts).tolist(), broken.tolist(), strict=True):
                if begins:
                    evidence.forget()
                found.append(evidence.step(residual))
            columns.append(found)
        return np.array([self._combined(row) for row in zip(*columns, strict=True)])

    def _combined(self, found: Sequence[float]) -> float:
        """The evidence of a row from that of each metric."""
        return max(found) if self.evidence.combine == "max" else math.hypot(*found)

    def _begin_live(self, endpoint: str) -> Live:
        """The live state of an endpoint, from its track when there is one."""
        kept = self.track(endpoint).get("live")
        count = len(self.metrics)
        begun = kept["windows"] if kept else [[]] * count
        averages = kept["averages"] if kept else [0.0] * count
        normals = self.normal.get(endpoint, self.everywhere)
        windows = [
            Window(self.forecasters[metric].length, normal.low, normal.high, list(values))
            for metric, normal, values in zip(self.metrics, normals, begun, strict=True)
        ]
        evidence = [Evidence(normal, self.evidence, average) for normal, average in zip(normals, averages, strict=True)]
        threshold, begins = None, self.first_thresholds.get(endpoint, self.first_threshold)
        if begins is not None:
            threshold = self._new_threshold()
            threshold.restore(kept["threshold"] if kept else begins)
        live = Live(windows, evidence, threshold)
        self._live[endpoint] = live
        return live

    def _new_threshold(self) -> Spot | DriftSpot:
        if self.threshold.kind == "dspot":
            return DriftSpot(self.threshold.depth, self.threshold.probability)
        return Spot(self.threshold.probability)
