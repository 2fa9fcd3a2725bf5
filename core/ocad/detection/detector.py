"""The base of all detectors: rows by endpoint, streaming state, gaps, unseen endpoints and calibrated scores.

A subclass scores the rows of one endpoint in time order, vectorised (`raw_series`) and one at a time (`raw_point`), both
advancing the endpoint's entry of `tracks`; everything else stands here.
"""

from __future__ import annotations

import copy
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.calibration import Calibration
from ocad.detection.config import Scale
from ocad.detection.scaling import point_scales, scale_columns
from ocad.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("ocad.data")

Floats = NDArray[np.float64]

GAP_FACTOR = 3
"""A step longer than this many of the endpoint's median steps is a gap."""
_STEPS_TO_LEARN = 9
"""Steps of an endpoint never seen until its median step is known; before that no step is a gap."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Series:
    """Rows of one endpoint in time order: `times` `(n,)` in µs since 1970, `values` `(n, m)`, and their places `(n,)`."""

    endpoint: str
    times: NDArray[np.int64]
    values: Floats
    places: NDArray[np.int64]
    """Where the rows stand in the frame."""


class SeriesDetector(ABC):
    """Satisfies `ocad.protocols.Detector`. NaN in values is evidence: a lost reply or a missing measurement."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self.metrics = tuple(metrics)
        """The columns of a frame that are read, in the order of `values`."""
        self.calibration: Calibration | None = None
        self.scales: dict[str, Scale] = {}
        """The metrics that are read as their logarithm or root; set by `use_scales`."""
        self._point_scales = point_scales(self.metrics, {})
        self.steps: dict[str, float] = {}
        """The median step in µs of each endpoint that was fitted."""
        self.unseen: set[str] = set()
        """Endpoints scored so far without having been fitted: by what all endpoints together say."""
        self.tracks: dict[str, dict[str, Any]] = {}
        """The streaming state by endpoint: JSON-able; `time` and `steps` belong to this class, the rest to the subclass."""

    # what a subclass writes

    @abstractmethod
    def fit_series(self, series: Sequence[Series]) -> None:
        """Fits the parameters on mostly normal rows, one `Series` for each endpoint."""

    @abstractmethod
    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """Finite raw scores `(n,)` of one endpoint's rows in time order; advances its track."""

    @abstractmethod
    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """The same for one row."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The fitted parameters as JSON-able values."""

    @classmethod
    @abstractmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """A detector with the fitted `parameters`."""

    def meet(self, parts: Sequence[Series]) -> None:  # noqa: B027 - few detectors compare endpoints
        """Sees the rows of all endpoints of a frame before `raw_series` is asked for any; for what compares endpoints."""

    # what everybody calls

    def use_scales(self, scales: Mapping[str, Scale]) -> Self:
        """Reads the metrics in `scales` as their logarithm or root from now on; returns itself. Call it before `fit`.

        Raises `UsageError` for a metric that the detector does not read.
        """
        for metric in scales:
            if metric not in self.metrics:
                raise UsageError(
                    f"the detector does not read `{metric}`, which has a scale", nearest(metric, self.metrics)
                )
        self.scales, self._point_scales = dict(scales), point_scales(self.metrics, scales)
        return self

    def fit(self, frame: pd.DataFrame) -> None:
        """Fits on `frame` (DESIGN §7), mostly normal rows sorted by time; forgets calibration and streaming state."""
        series = list(self.series(frame))
        if not series:
            raise DataError("no rows to fit on", "give a longer series")
        self.steps = {part.endpoint: float(np.median(np.diff(part.times))) for part in series if len(part.times) > 1}
        self.calibration = None
        self.forget()
        self.fit_series(series)

    def calibrate(self, frame: pd.DataFrame, pooled: bool = False) -> None:
        """Measures raw scores on held-out rows that are normal (rows with `label` 1 are left out), from a fresh state.

        The state is fresh afterwards too. `pooled`: one calibration for all endpoints; see `Calibration.fit`.
        """
        normal = frame[frame["label"] != 1] if "label" in frame else frame
        self.forget()
        parts = list(self.series(normal))
        self.meet(parts)
        by_endpoint = {part.endpoint: self._raw(part) for part in parts}
        self.forget()
        self.calibration = Calibration.fit(by_endpoint, pooled)

    def raw(self, frame: pd.DataFrame) -> Floats:
        """Raw scores `(n,)` in the frame's row order, finite, higher is more anomalous; goes on from the state."""
        result, parts = np.empty(len(frame)), self._checked(frame)
        self.meet(parts)
        for part in parts:
            result[part.places] = self._raw(part)
        return result

    def score(self, frame: pd.DataFrame) -> Floats:
        """Surprise `(n,)` in the frame's row order: -log10 of the false-alarm probability; goes on from the state.

        Raises `DataError` for a missing metric, or a time that is not after the endpoint's last one.
        """
        calibration = self._calibrated()
        result, parts = np.empty(len(frame)), self._checked(frame)
        self.meet(parts)
        for part in parts:
            result[part.places] = calibration.surprise(part.endpoint, self._raw(part))
        return result

    def score_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """The score of one arriving row, without pandas; `values` in the order of `metrics`, NaN where missing.

        Raises `DataError` for a time that is not after the endpoint's last one.
        """
        calibration = self.calibration or self._calibrated()
        track = self.tracks.get(endpoint)
        if track is None:
            track = self._begin(endpoint)
        elif time_us <= track.get("time", time_us - 1):
            raise _backwards(endpoint, time_us)
        if len(values) != len(self.metrics):
            raise DataError(f"a row has {len(values)} values", f"give {len(self.metrics)}: {', '.join(self.metrics)}")
        for value in values:
            if math.isinf(value):
                values = [math.nan if math.isinf(value) else value for value in values]
                break
        if self._point_scales:
            values = list(values)
            for index, scale in self._point_scales:
                values[index] = scale(values[index])
        raw = self.raw_point(endpoint, time_us, values)
        if "steps" in track:
            self._learn_steps(track, [time_us])
        track["time"] = time_us
        return calibration.surprise_point(endpoint, raw)

    def state(self) -> dict[str, Any]:
        """The streaming state as JSON-able values; {} when fresh."""
        return {"tracks": copy.deepcopy(self.tracks)} if self.tracks else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.tracks = copy.deepcopy(dict(state.get("tracks", {})))
        self.unseen |= self.tracks.keys() - self.steps.keys()

    def forget(self) -> None:
        """Begins with a fresh state."""
        self.restore({})

    def to_json(self) -> dict[str, Any]:
        """The fitted detector with its calibration, without the streaming state."""
        return {
            "metrics": list(self.metrics),
            "steps": self.steps,
            "scales": self.scales,
            "parameters": self.parameters(),
            "calibration": self.calibration.to_json() if self.calibration else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The detector that `to_json` wrote, its state fresh."""
        detector = cls.from_parameters(value["metrics"], value["parameters"]).use_scales(value.get("scales", {}))
        detector.steps = {str(name): float(step) for name, step in value["steps"].items()}
        detector.calibration = Calibration.from_json(value["calibration"]) if value["calibration"] else None
        return detector

    # what a subclass may call

    def series(self, frame: pd.DataFrame) -> Iterator[Series]:
        """The rows of `frame` by endpoint ("" when it has no such column), infinite values as NaN, in their scale.

        Raises `DataError` naming a metric that the frame lacks.
        """
        for metric in self.metrics:
            if metric not in frame:
                known = [str(name) for name in frame.columns if name not in ("timestamp", "endpoint", "label")]
                raise DataError(f"the rows have no column `{metric}`, which the detector reads", nearest(metric, known))
        values = frame[list(self.metrics)].to_numpy(np.float64)
        if np.isinf(values).any():
            values = np.where(np.isinf(values), np.nan, values)
        values = scale_columns(self.metrics, self.scales, values)
        times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64)
        for endpoint, places in _by_endpoint(frame):
            yield Series(endpoint, times[places], values[places], np.arange(len(frame))[places])

    def track(self, endpoint: str) -> dict[str, Any]:
        """The endpoint's streaming state; the subclass keeps JSON-able values in it under its own names."""
        found = self.tracks.get(endpoint)
        return self._begin(endpoint) if found is None else found

    def breaks(self, endpoint: str, times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of the rows `(n,)` begins a new stretch: the endpoint's first, or one after a gap."""
        track = self.track(endpoint)
        last = track.get("time")
        steps = np.diff(times, prepend=times[:1] if last is None else last)
        step = self.steps.get(endpoint)
        if step is None:
            step, known = self._learned(track, steps[steps > 0])
            steps = np.where(np.arange(len(steps)) < known, 0, steps)
        broken = steps > GAP_FACTOR * step
        if last is None:
            broken[:1] = True
        return np.asarray(broken)

    def is_break(self, endpoint: str, time_us: int) -> bool:
        """The same for one row."""
        track = self.track(endpoint)
        last = track.get("time")
        if last is None:
            return True
        step = self.steps.get(endpoint)
        if step is None:
            first = track.get("steps", ())
            if len(first) < _STEPS_TO_LEARN:
                return False
            step = sorted(first)[_STEPS_TO_LEARN // 2]
        return bool(time_us - last > GAP_FACTOR * step)

    # inner parts

    def _raw(self, part: Series) -> Floats:
        track = self.track(part.endpoint)
        raw = self.raw_series(part.endpoint, part.times, part.values)
        if "steps" in track:
            self._learn_steps(track, part.times[: _STEPS_TO_LEARN + 1].tolist())
        track["time"] = int(part.times[-1])
        return raw

    def _checked(self, frame: pd.DataFrame) -> list[Series]:
        """The rows by endpoint; raises before any is scored, so that a refused frame changes nothing."""
        parts = list(self.series(frame))
        for part in parts:
            last = self.tracks.get(part.endpoint, {}).get("time")
            wrong = np.diff(part.times, prepend=part.times[:1] - 1 if last is None else last) <= 0
            if wrong.any():
                raise _backwards(part.endpoint, int(part.times[wrong.argmax()]))
        return parts

    def _begin(self, endpoint: str) -> dict[str, Any]:
        track: dict[str, Any] = {}
        self.tracks[endpoint] = track
        if endpoint not in self.steps:
            track["steps"] = []
            if endpoint not in self.unseen:
                self.unseen.add(endpoint)
                logger.warning("endpoint `%s` was never seen: scored by what all endpoints together say", endpoint)
        return track

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise UsageError("the detector is not calibrated", "call `calibrate` with held-out normal rows first")
        return self.calibration

    def _learn_steps(self, track: dict[str, Any], times: Sequence[int]) -> None:
        """Keeps the first steps of an endpoint never seen."""
        steps, last = track["steps"], track.get("time")
        for time in times:
            if last is not None and len(steps) < _STEPS_TO_LEARN:
                steps.append(time - last)
            last = time

    def _learned(self, track: Mapping[str, Any], steps: NDArray[np.int64]) -> tuple[float, int]:
        """The median of an endpoint's first steps, and the row of this piece from which on it is known."""
        first = [*track.get("steps", ()), *steps[:_STEPS_TO_LEARN].tolist()][:_STEPS_TO_LEARN]
        fresh = int("time" not in track)
        known = fresh + _STEPS_TO_LEARN - len(track.get("steps", ()))
        return (sorted(first)[_STEPS_TO_LEARN // 2] if len(first) == _STEPS_TO_LEARN else math.inf), known


def _by_endpoint(frame: pd.DataFrame) -> Iterator[tuple[str, slice | NDArray[np.int64]]]:
    """Each endpoint with the places of its rows, a slice where they stand together."""
    import pandas as pd

    if len(frame) == 0:
        return
    if "endpoint" not in frame:
        yield "", slice(0, len(frame))
        return
    codes, names = pd.factorize(frame["endpoint"])
    bounds = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
    if len(bounds) == len(names) + 1:
        for name, first, last in zip(names, bounds[:-1], bounds[1:], strict=True):
            yield str(name), slice(int(first), int(last))
        return
    order = np.argsort(codes, kind="stable")
    for index, places in enumerate(np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)):
        yield str(names[index]), places.astype(np.int64)


def _backwards(endpoint: str, time_us: int) -> DataError:
    when = (_EPOCH + timedelta(microseconds=time_us)).isoformat()
    message = f"the clock of endpoint `{endpoint}` went backwards: `{when}` is not after the row before it"
    return DataError(message, "send each endpoint's rows in the order of their times, without duplicates")
