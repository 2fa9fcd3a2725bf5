"""A registered detector at work: over a file, or over rows as they arrive."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ocad.catalogue import UNITS, find_data
from ocad.detection.detector import SeriesDetector
from ocad.detection.ensemble import Ensemble, watched
from ocad.detection.events import EventCounts, count_events
from ocad.detection.incidents import Detection, Incident, PointResult, iso_time, time_us
from ocad.detection.served import use_server
from ocad.errors import DataError, UsageError, nearest
from ocad.timeseries.frame import FrameCounts, read_frame

if TYPE_CHECKING:
    import pandas as pd

    from ocad.session import Session
    from ocad_registry import Version

LATENCY_ROWS = 1_000
"""At most so many rows are scored again, one by one, to measure how long an arriving row takes."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a version found in a file."""

    ref: str
    frame: pd.DataFrame
    """The rows as read (DESIGN §7), `(n, …)`."""
    detection: Detection
    quality: FrameCounts
    watch: Ensemble | None
    """None for a foreign detector whose scores are not calibrated: it has scores and no alarms."""
    events: EventCounts | None
    """Found and missed incidents, right and wrong alerts; None for rows without labels of both classes."""
    latency_us: Mapping[str, float]
    """`p50` and `p99` of scoring one arriving row, in µs."""

    def scores(self) -> pd.DataFrame:
        """The rows with `score`, `alarm` and the surprise of each member (`surprise.NAME`)."""
        members = {f"surprise.{name}": values for name, values in self.detection.members.items()}
        return self.frame.assign(score=self.detection.scores, alarm=self.detection.alarms, **members)

    def metrics(self) -> dict[str, float] | None:
        """`event_precision`, `event_recall`, `event_f1` and `point_fpr`, or None without labels."""
        if self.events is None:
            return None
        measured = self.events.metrics()
        return {name: getattr(measured, name) for name in measured.__slots__}

    def to_json(self, scores: str | None) -> dict[str, Any]:
        """The contract of `detect --json`; `scores` is the file that they were written to."""
        metrics = self.metrics()
        return {
            "ref": self.ref,
            "rows": len(self.frame),
            "incidents": [incident.to_json() for incident in self.detection.incidents],
            "scores": scores,
            **({} if metrics is None else {"metrics": metrics}),
            "latency_us": dict(self.latency_us),
        }


def open_watch(version: Version, session: Session, server: str | None = None) -> Ensemble:
    """The detector `version` with alarms and incidents; its graphs are asked at the URL `server` where there is one.

    Raises `UsageError` for a version that detects nothing or has no calibrated scores.
    """
    watch = _watch_of(version, session, server)
    if watch is None:
        hint = "derive its detector from `ocad.detection.detector.SeriesDetector`"
        raise UsageError(f"the scores of `{version.ref}` are not calibrated: no alarm can be made of them", hint)
    return watch


def detect_data(version: Version, session: Session, data: str, server: str | None = None) -> Findings:
    """Scores, alarms and incidents of `data`, a NAME of the catalogue or a file, from a fresh state."""
    watch = _watch_of(version, session, server)
    if watch is None:
        return _scored(version, session, data)
    read = read_frame(find_data(data), watch.metrics, varying=False)
    latency = point_latency(watch, read.data)
    detection = watch.detect(read.data)
    return Findings(
        version.ref, read.data, detection, read.counts, watch, _events(read.data, detection.alarms), latency
    )


def point_latency(watch: Ensemble, frame: pd.DataFrame, rows: int = LATENCY_ROWS) -> dict[str, float]:
    """How long one arriving row takes, in µs: the first `rows` rows one by one, the first tenth not counted.

    The state is fresh afterwards.
    """
    watch.forget()
    part = frame.iloc[:rows]
    values = part[list(watch.metrics)].to_numpy(np.float64).tolist()
    times = part["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    taken = []
    for endpoint, moment, row in zip(part["endpoint"], times, values, strict=True):
        begin = time.perf_counter_ns()
        watch.detect_point(endpoint, moment, row)
        taken.append((time.perf_counter_ns() - begin) / 1000)
    watch.forget()
    counted = taken[len(taken) // 10 :]
    return {"p50": round(float(np.quantile(counted, 0.5)), 1), "p99": round(float(np.quantile(counted, 0.99)), 1)}


@dataclass(slots=True)
class Follower:
    """Rows in as JSON lines, incidents out as they open, go on and close.

    A row is `{"timestamp": ISO 8601, "endpoint": NAME, METRIC: number or null, …}`; `endpoint` may be missing. A row that
    cannot be used is refused with its reason, counted, and changes nothing.
    """

    watch: Ensemble
    refused: dict[str, int] = field(default_factory=dict)
    """How many rows were refused, by `reason_of` the error."""
    rows: int = 0
    _open: dict[str, str] = field(default_factory=dict)

    def take(self, line: str) -> tuple[int, PointResult]:
        """One row: its time in µs and what it meant. Raises `DataError` naming what is wrong with it."""
        try:
            endpoint, moment, values = self._parse(line)
            result = self.watch.detect_point(endpoint, moment, values)
        except DataError as error:
            reason = reason_of(error)
            self.refused[reason] = self.refused.get(reason, 0) + 1
            raise
        self.rows += 1
        return moment, result

    def news(self, incident: Incident) -> str | None:
        """`opened`, `changed` (another kind, or more metrics) or `closed`; None when nothing new is to be told."""
        if not incident.open:
            self._open.pop(incident.id, None)
            return "closed"
        gist = f"{incident.kind} {sorted(incident.metrics)}"
        before, self._open[incident.id] = self._open.get(incident.id), gist
        return "opened" if before is None else "changed" if before != gist else None

    def _parse(self, line: str) -> tuple[str, int, list[float]]:
        try:
            row = json.loads(line)
        except ValueError:
            raise DataError(
                "a line is no JSON", "send one JSON object per line, as `ocad probe --out -` does"
            ) from None
        if not isinstance(row, dict) or not isinstance(row.get("timestamp"), str):
            raise DataError("a row has no `timestamp`", "send its time in ISO 8601")
        try:
            moment = time_us(row["timestamp"])
        except ValueError:
            raise DataError("a row's `timestamp` is no time", "send it in ISO 8601 with its zone") from None
        return str(row.get("endpoint") or ""), moment, [_number(row, metric) for metric in self.watch.metrics]


def follow(lines: Iterable[str], follower: Follower, warn: Callable[[str], None]) -> Iterator[tuple[int, PointResult]]:
    """The time and meaning of each usable row of `lines`; `warn` is told once of each reason for which rows are refused."""
    for line in lines:
        if not line.strip():
            continue
        try:
            yield follower.take(line)
        except DataError as error:
            if follower.refused[reason_of(error)] == 1:
                warn(f"a row was refused: {error}")


def reason_of(error: DataError) -> str:
    """What is wrong without the names and times of this one row, so that there are few reasons however many rows."""
    return re.sub("`[^`]*`", "…", error.message)


def incident_line(incident: Incident) -> str:
    """An incident in one line for a person."""
    until = "open" if incident.end_us is None else f"until {iso_time(incident.end_us)}"
    far = ", ".join(
        f"{metric} {one.value:.4g} {one.unit} (normal {one.normal:.4g}, {one.sigmas:+.1f}σ)"
        for metric, one in incident.deviations.items()
    )
    agreed = ", ".join(f"{name} {score:.1f}" for name, score in incident.detectors.items())
    where = incident.endpoint or "the link"
    return f"{incident.kind} on {where} since {iso_time(incident.start_us)} ({until}): {far}; {agreed}"


def _watch_of(version: Version, session: Session, server: str | None) -> Ensemble | None:
    plugin = session.plugin_of(version)
    if not plugin.implements("ocad_detect"):
        message = f"`{version.ref}` scores no rows: the plugin `{plugin.name}` detects nothing"
        raise UsageError(message, "use `ocad predict`")
    model = session.load(version.ref)
    if server is not None:
        use_server(model, session.registry, server)
    if isinstance(model, Ensemble):
        return model
    if isinstance(model, SeriesDetector):
        return watched(version.manifest.name, model, {metric: UNITS.get(metric, "") for metric in model.metrics})
    return None


def _scored(version: Version, session: Session, data: str) -> Findings:
    """What a foreign detector says, which has scores and nothing else."""
    context, plugin = session.host_context(), session.plugin_of(version)
    model = session.load(version.ref)
    known = (version.manifest.metric,) if version.manifest.metric else None
    read = read_frame(find_data(data), getattr(model, "metrics", known), varying=False)
    begin = time.perf_counter_ns()
    scores = np.asarray(plugin.ask("ocad_detect", context=context, model=model, frame=read.data), np.float64)
    each = (time.perf_counter_ns() - begin) / 1000 / max(1, len(scores))
    quiet = np.zeros(len(scores), dtype=bool)
    counts = {"rows": len(scores), "endpoints": read.counts.endpoints, "alarms": 0, "incidents": 0, "unseen": 0}
    detection = Detection(scores, quiet, {version.manifest.name: scores}, [], counts)
    return Findings(version.ref, read.data, detection, read.counts, None, None, {"p50": each, "p99": each})


def _number(row: Mapping[str, Any], metric: str) -> float:
    if metric not in row:
        known = [name for name in row if name not in ("timestamp", "endpoint")]
        raise DataError(f"a row has no `{metric}`", nearest(metric, known) + "; a lost measurement is null")
    value = row[metric]
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"a row's `{metric}` is no number", "send a number, or null where it was lost")
    return float(value)


def _events(frame: pd.DataFrame, alarms: Sequence[bool] | np.ndarray[Any, Any]) -> EventCounts | None:
    if "label" not in frame or frame["label"].nunique() < 2:
        return None
    label, counts = frame["label"].to_numpy(), EventCounts()
    for places in frame.groupby("endpoint", sort=False).indices.values():
        counts += count_events(label[places], np.asarray(alarms)[places])
    return counts
