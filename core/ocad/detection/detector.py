"""The base of all detectors: rows by endpoint, streaming state, gaps, unseen endpoints, lost rows, one scale of scores.

A subclass scores the rows of one endpoint in time order, vectorised (`raw_series`) and one at a time (`raw_point`), both
advancing the endpoint's entry of `tracks`; everything else stands here, the evidence of lost rows too.
"""

from __future__ import annotations

import copy
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.calibration import Calibration
from ocad.detection.config import Scale
from ocad.detection.incidents import SHARE
from ocad.detection.loss import Loss, Usual
from ocad.detection.scaling import point_scales, scale_columns
from ocad.errors import DataError, UsageError, nearest
from ocad.units import UNITS

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("ocad.data")

Floats = NDArray[np.float64]

GAP_FACTOR = 3
"""A step longer than this many of the endpoint's median steps is a gap."""
_STEPS_TO_LEARN = 9
"""Steps of an endpoint never seen until its median step is known; before that no step is a gap."""
TIMES = ("ns", "us", "µs", "ms", "s")
"""The units of a delay."""
LARGEST = 1e100
"""Values beyond it count as it: squares of what they are made into stay finite."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Series:
    """Rows of one endpoint in time order: `times` `(n,)` in µs since 1970, `values` `(n, m)`, and their places `(n,)`."""

    endpoint: str
    times: NDArray[np.int64]
    values: Floats
    places: NDArray[np.int64]
    """Where the rows stand in the frame."""
    seen: Floats
    """The values `(n, m)` as they were, where `values` are in a scale (`use_scales`)."""


class SeriesDetector(ABC):
    """Satisfies `ocad.protocols.Detector`. NaN in values is evidence: a lost reply or a missing measurement.

    A score is in noise units of the endpoint (`ocad.detection.units`): the larger of what the subclass says and what the
    lost rows say.
    """

    in_noise_units = False
    """Whether raw scores are noise units already; where not, calibration puts them on that scale."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self.metrics = tuple(metrics)
        """The columns of a frame that are read, in the order of `values`."""
        self.units: dict[str, str] = {}
        self.shares: tuple[str, ...] = ()
        """The metrics that are a share of lost messages, 0 to 1."""
        self.upward: tuple[str, ...] = ()
        """The metrics of which only high values are bad: delays, and shares of lost messages."""
        self.use_units(UNITS)
        self.everywhere_lost: Loss | None = None
        self.lost: dict[str, Loss] = {}
        """What is lost usually, on all endpoints together and on each that was fitted."""
        self.calibration: Calibration | None = None
        self.scales: dict[str, Scale] = {}
        """The metrics that are read as their logarithm or root; set by `use_scales`."""
        self._point_scales = point_scales(self.metrics, {})
        self.steps: dict[str, float] = {}
        """The median step in µs of each endpoint that was fitted."""
        self.unseen: set[str] = set()
        """Endpoints scored so far without having been fitted: by what all endpoints together say."""
        self._told_of_step: set[str] = set()
        self.tracks: dict[str, dict[str, Any]] = {}
        """The streaming state by endpoint: JSON-able; `time`, `steps` and `loss` belong to this class, the rest to the subclass."""

    # what a subclass writes

    @abstractmethod
    def fit_series(self, series: Sequence[Series]) -> None:
        """Fits the parameters on mostly normal rows, one `Series` for each endpoint."""

    @abstractmethod
    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """Finite raw scores `(n,)` of one endpoint's rows in time order; advances its track.

        Lost rows are counted elsewhere; what is asked for is what the measured values say.
        """

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

    def ceiling(self) -> float:
        """The highest raw score that an incident can reach; unbounded unless a subclass says otherwise."""
        return math.inf

    def meet(self, parts: Sequence[Series]) -> None:  # noqa: B027 - few detectors compare endpoints
        """Sees the rows of all endpoints of a frame before `raw_series` is asked for any; for what compares endpoints."""

    def caches(self) -> Sequence[MutableMapping[str, Any]]:
        """What is kept by endpoint besides `tracks`, made anew where an entry is missing."""
        return ()

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

    def use_units(self, units: Mapping[str, str]) -> Self:
        """Reads the metrics in these units from now on; returns itself. Call it before `fit`.

        The unit says what a metric is: one of time is a delay, `share` a share of lost messages.
        """
        self.units = {metric: units[metric] for metric in self.metrics if units.get(metric)}
        self.shares = tuple(metric for metric in self.metrics if self.units.get(metric) == SHARE)
        self.is_share = tuple(metric in self.shares for metric in self.metrics)
        self.upward = tuple(metric for metric in self.metrics if self.units.get(metric) in (*TIMES, SHARE))
        return self

    def fit(self, frame: pd.DataFrame) -> None:
        """Fits on `frame`, mostly normal rows sorted by time; forgets calibration and streaming state."""
        series = list(self.series(frame))
        if not series:
            raise DataError("no rows to fit on", "give a longer series")
        self._fit_lost(series)
        self.steps = {part.endpoint: float(np.median(np.diff(part.times))) for part in series if len(part.times) > 1}
        self.calibration = None
        self.forget()
        self.fit_series(series)

    def calibrate(self, frame: pd.DataFrame, pooled: bool = False) -> None:
        """Measures raw scores on held-out rows that are normal (rows with `label` 1 are left out), from a fresh state.

        The state is fresh afterwards too. `pooled`: one calibration for all endpoints; see `Calibration.fit`.
        """
        self.forget()
        parts = list(self.series(normal_rows(frame)))
        self.meet(parts)
        found = {part.endpoint: self._raw(part) for part in parts}
        self.forget()
        self.calibration = Calibration.fit(found, pooled, self.in_noise_units, self.ceiling())

    def raw(self, frame: pd.DataFrame) -> Floats:
        """Raw scores `(n,)` in the frame's row order, finite, higher is more anomalous; goes on from the state."""
        result, parts = np.empty(len(frame)), self._checked(frame)
        self.meet(parts)
        for part in parts:
            result[part.places] = self._raw(part)[0]
        return result

    def score(self, frame: pd.DataFrame) -> Floats:
        """Evidence `(n,)` in noise units, from 0, in the frame's row order; goes on from the state.

        Raises `DataError` for a missing metric, or a time that is not after the endpoint's last one.
        """
        calibration = self._calibrated()
        result, parts = np.empty(len(frame)), self._checked(frame)
        self.meet(parts)
        for part in parts:
            result[part.places] = calibration.score(part.endpoint, *self._raw(part))
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
            if abs(value) > LARGEST:
                values = [_bounded(value) for value in values]
                break
        lost = self._lost_of(endpoint).row(track["loss"], values, self.is_break(endpoint, time_us))
        if self._point_scales:
            values = list(values)
            for index, scale in self._point_scales:
                values[index] = scale(values[index])
        raw = self.raw_point(endpoint, time_us, values)
        self._learn_steps(endpoint, track, [time_us])
        track["time"] = time_us
        return max(calibration.units_point(endpoint, raw), lost)

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

    def drop(self, endpoint: str) -> None:
        """Forgets one endpoint's streaming state."""
        for kept in (self.tracks, *self.caches()):
            kept.pop(endpoint, None)
        self.unseen.discard(endpoint)

    def to_json(self) -> dict[str, Any]:
        """The fitted detector with its calibration, without the streaming state."""
        return {
            "metrics": list(self.metrics),
            "steps": self.steps,
            "scales": self.scales,
            "units": self.units,
            "lost": {"": self._lost_of("").to_json()} | {name: loss.to_json() for name, loss in self.lost.items()},
            "parameters": self.parameters(),
            "calibration": self.calibration.to_json() if self.calibration else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The detector that `to_json` wrote, its state fresh."""
        detector = cls.from_parameters(value["metrics"], value["parameters"]).use_scales(value.get("scales", {}))
        detector.use_units(value["units"])
        detector.lost = {str(name): Loss.from_json(loss) for name, loss in value["lost"].items()}
        detector.everywhere_lost = detector.lost.pop("")
        detector.steps = {str(name): float(step) for name, step in value["steps"].items()}
        detector.calibration = Calibration.from_json(value["calibration"]) if value["calibration"] else None
        return detector

    # what a subclass may call

    def series(self, frame: pd.DataFrame) -> Iterator[Series]:
        """The rows of `frame` by endpoint ("" when it has no such column), infinite values as NaN, in their scale.

        What is beyond `LARGEST` counts as it.

        Raises `DataError` naming a metric that the frame lacks.
        """
        for metric in self.metrics:
            if metric not in frame:
                known = [str(name) for name in frame.columns if name not in ("timestamp", "endpoint", "label")]
                raise DataError(f"the rows have no column `{metric}`, which the detector reads", nearest(metric, known))
        seen = frame[list(self.metrics)].to_numpy(np.float64)
        if (np.abs(seen) > LARGEST).any():
            seen = np.where(np.isinf(seen), np.nan, np.clip(seen, -LARGEST, LARGEST))
        values = scale_columns(self.metrics, self.scales, seen)
        times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64)
        for endpoint, places in _by_endpoint(frame):
            yield Series(endpoint, times[places], values[places], _numbers(places), seen[places])

    def track(self, endpoint: str) -> dict[str, Any]:
        """The endpoint's streaming state; the subclass keeps JSON-able values in it under its own names."""
        found = self.tracks.get(endpoint)
        return self._begin(endpoint) if found is None else found

    def breaks(self, endpoint: str, times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of the rows `(n,)` begins a new stretch: the endpoint's first, or one after a gap."""
        track = self.track(endpoint)
        last = track.get("time")
        steps = np.diff(times, prepend=times[:1] if last is None else last)
        fitted = self.steps.get(endpoint)
        learned, known = self._learned(track, steps[steps > 0])
        if fitted is None:
            steps, fitted = np.where(np.arange(len(steps)) < known, 0, steps), 0.0
        step = np.where(np.arange(len(steps)) < known, fitted, max(fitted, learned))
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
        first, step = track["steps"], self.steps.get(endpoint)
        if len(first) == _STEPS_TO_LEARN:
            step = max(step or 0.0, sorted(first)[_STEPS_TO_LEARN // 2])
        return step is not None and bool(time_us - last > GAP_FACTOR * step)

    # inner parts

    def _raw(self, part: Series) -> tuple[Floats, Floats | None]:
        """The subclass's raw scores `(n,)`, and the noise units of lost rows where there are any."""
        track = self.track(part.endpoint)
        broken = self.breaks(part.endpoint, part.times)
        lost = self._lost_of(part.endpoint).rows(track["loss"], part.seen, broken)
        raw = self.raw_series(part.endpoint, part.times, part.values)
        self._learn_steps(part.endpoint, track, part.times[: _STEPS_TO_LEARN + 1].tolist())
        track["time"] = int(part.times[-1])
        return raw, lost

    def _fit_lost(self, series: Sequence[Series]) -> None:
        """What is lost usually; of all endpoints together the median stands for one that was never seen."""
        self.lost = {part.endpoint: Loss.fit(part.seen, self.is_share) for part in series}
        usual = zip(*(loss.usual for loss in self.lost.values()), strict=True)
        self.everywhere_lost = Loss([Usual.median(of_metric) for of_metric in usual])

    def _lost_of(self, endpoint: str) -> Loss:
        found = self.lost.get(endpoint, self.everywhere_lost)
        if found is None:
            raise UsageError("the detector is not fitted", "call `fit` first")
        return found

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
        track: dict[str, Any] = {"steps": [], "loss": self._lost_of(endpoint).fresh()}
        self.tracks[endpoint] = track
        if endpoint not in self.steps and endpoint not in self.unseen:
            self.unseen.add(endpoint)
            logger.warning("endpoint `%s` was never seen: scored by what all endpoints together say", endpoint)
        return track

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise UsageError("the detector is not calibrated", "call `calibrate` with held-out normal rows first")
        return self.calibration

    def _learn_steps(self, endpoint: str, track: dict[str, Any], times: Sequence[int]) -> None:
        """Keeps the endpoint's first steps; rows much rarer or denser than those fitted are told of."""
        steps, last = track["steps"], track.get("time")
        if len(steps) == _STEPS_TO_LEARN:
            return
        for time in times:
            if last is not None and len(steps) < _STEPS_TO_LEARN:
                steps.append(time - last)
            last = time
        fitted = self.steps.get(endpoint)
        if fitted and len(steps) == _STEPS_TO_LEARN and endpoint not in self._told_of_step:
            found = sorted(steps)[_STEPS_TO_LEARN // 2]
            if not fitted / GAP_FACTOR <= found <= fitted * GAP_FACTOR:
                self._told_of_step.add(endpoint)
                text = "endpoint `%s` comes every %g s, the detector was fitted on every %g s: train it on such rows"
                logger.warning(text, endpoint, found / 1e6, fitted / 1e6)

    def _learned(self, track: Mapping[str, Any], steps: NDArray[np.int64]) -> tuple[float, int]:
        """The median of an endpoint's first steps, and the row of this piece from which on it is known."""
        first = [*track["steps"], *steps[:_STEPS_TO_LEARN].tolist()][:_STEPS_TO_LEARN]
        fresh = int("time" not in track)
        known = fresh + _STEPS_TO_LEARN - len(track["steps"])
        return (sorted(first)[_STEPS_TO_LEARN // 2] if len(first) == _STEPS_TO_LEARN else math.inf), known


def _bounded(value: float) -> float:
    """An infinite value as NaN, others within `LARGEST`."""
    return math.nan if math.isinf(value) else min(max(value, -LARGEST), LARGEST) if value == value else value  # noqa: PLR0124


def iso_time(time_us: int) -> str:
    """A time in µs since 1970 as ISO 8601 in UTC; a row's own time, whatever it is, is told so."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat()


def normal_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that no label calls anomalous; all of them where there are no labels."""
    return frame[frame["label"] != 1] if "label" in frame else frame


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


def _numbers(places: slice | NDArray[np.int64]) -> NDArray[np.int64]:
    """The row numbers of `places`, an array of their own: a view would keep one of the whole frame for each endpoint."""
    return np.arange(places.start, places.stop) if isinstance(places, slice) else places


def _backwards(endpoint: str, time_us: int) -> DataError:
    when = iso_time(time_us)
    message = f"the clock of endpoint `{endpoint}` went backwards: `{when}` is not after the row before it"
    return DataError(message, "send each endpoint's rows in the order of their times, without duplicates")
