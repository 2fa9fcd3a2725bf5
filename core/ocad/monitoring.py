"""A registered detector at work: over a file, or over rows as they arrive."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ocad.catalogue import find_data
from ocad.detection.alerts import project_settings
from ocad.detection.alerts.rules import rated
from ocad.detection.detector import SeriesDetector
from ocad.detection.ensemble import Ensemble, watched
from ocad.detection.events import EventCounts, count_frame
from ocad.detection.following import fitted_steps
from ocad.detection.incidents import Detection, Incident
from ocad.detection.presence import silences
from ocad.detection.served import use_server
from ocad.errors import DataError, OcadError, UsageError, in_one_line
from ocad.timeseries.frame import FrameCounts, read_frame
from ocad.units import UNITS

if TYPE_CHECKING:
    import pandas as pd

    from ocad.detection.alerts import AlertSettings
    from ocad.detection.rule import AlarmRule
    from ocad.protocols import Predictor
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
    told_us: Mapping[str, int] = field(default_factory=dict)
    """By id, when an incident was plain, in µs, where that is later than its start."""

    data: str = ""
    """The name of the data."""

    def scores(self) -> pd.DataFrame:
        """The rows with `score`, `alarm` and the score of each member (`score.NAME`)."""
        members = {f"score.{name}": values for name, values in self.detection.members.items()}
        return self.frame.assign(score=self.detection.scores, alarm=self.detection.alarms, **members)

    def metrics(self) -> dict[str, float] | None:
        """`event_precision`, `event_recall`, `event_f1` and `point_fpr`, or None without labels."""
        if self.events is None:
            return None
        return self.events.metrics().to_json()

    def updates(self) -> Iterator[tuple[int, Incident | None]]:
        """The time in µs of each row and what it meant for an incident, in order of time, as if the rows arrived now."""
        if self.watch is None:
            return
        silent: list[tuple[int, Incident | None]] = []
        for one in self.detection.incidents:
            if one.kind == "silent":  # told by rows that did not come
                silent.append((self.told_us.get(one.id, one.start_us), replace(one, end_us=None)))
                silent += [] if one.end_us is None else [(one.end_us, one)]
        rows = self.watch.replay(self.frame, self.detection)
        yield from heapq.merge(sorted(silent, key=_moment), rows, key=_moment)

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


def open_watch(
    version: Version,
    session: Session,
    server: str | None = None,
    patient: Callable[[Predictor], Predictor] = lambda predictor: predictor,
) -> Ensemble:
    """The detector `version` with alarms and incidents; its graphs are asked at the URL `server` where there is one.

    `patient` may put another predictor around each of those that ask there.

    Raises `UsageError` for a version that detects nothing or has no calibrated scores.
    """
    watch = _watch_of(version, session, server, patient)
    if watch is None:
        hint = "derive its detector from `ocad.detection.detector.SeriesDetector`"
        raise UsageError(f"the scores of `{version.ref}` are not calibrated: no alarm can be made of them", hint)
    return watch


def detect_data(
    version: Version,
    session: Session,
    data: str,
    server: str | None = None,
    alerts: AlertSettings | None = None,
    rule: Callable[[AlarmRule], AlarmRule] | None = None,
) -> Findings:
    """Scores, alarms and incidents of `data`, a NAME of the catalogue or a file, from a fresh state.

    Incidents are rated by the severities of `alerts`, by default those of the project. `rule` makes another alarm rule of the
    version's own.
    """
    watch = _watch_of(version, session, server)
    if watch is None:
        return _scored(version, session, data)
    if rule is not None:
        watch.use_rule(rule(watch.rule))
    source = find_data(data)
    read = read_frame(source, watch.metrics, varying=False, lost=True)
    latency = point_latency(watch, read.data)
    detection = watch.detect(read.data)
    silent = list(silences(read.data, watch.metrics, fitted_steps(watch)))
    found = [*detection.incidents, *(incident for incident, _ in silent)]
    found.sort(key=lambda incident: (incident.start_us, incident.endpoint))
    detection = replace(detection, incidents=found, counts={**detection.counts, "incidents": len(found)})
    detection = rate(detection, read.data, alerts or project_settings())
    told = {incident.id: moment for incident, moment in silent}
    events = _events(read.data, detection.alarms, watch.rule.rest)
    return Findings(version.ref, read.data, detection, read.counts, watch, events, latency, told, source.name)


def rate(detection: Detection, frame: pd.DataFrame, settings: AlertSettings) -> Detection:
    """The detection with the severity of each incident; open ones have lasted until the last row of `frame`."""
    last_us = int(frame["timestamp"].max().value // 1000) if len(frame) else 0
    return replace(detection, incidents=[rated(one, last_us, settings) for one in detection.incidents])


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


def _moment(update: tuple[int, Incident | None]) -> int:
    return update[0]


def _watch_of(
    version: Version,
    session: Session,
    server: str | None,
    patient: Callable[[Predictor], Predictor] = lambda predictor: predictor,
) -> Ensemble | None:
    plugin = session.plugin_of(version)
    if not plugin.implements("ocad_detect"):
        message = f"`{version.ref}` scores no rows: the plugin `{plugin.name}` detects nothing"
        raise UsageError(message, "use `ocad predict`")
    model = session.load(version.ref)
    if server is not None:
        use_server(model, session.registry, server, patient)
    if isinstance(model, SeriesDetector):
        model = watched(version.manifest.name, model, {metric: UNITS.get(metric, "") for metric in model.metrics})
    if not isinstance(model, Ensemble):
        return None
    for name, member in model.members.items():
        _try(version, name, member)
    return model


def _try(version: Version, name: str, detector: SeriesDetector) -> None:
    """Scores a row in which everything was lost, so that a file whose parts do not fit together is told of before any data."""
    try:
        detector.score_point(next(iter(detector.steps), ""), 0, [math.nan] * len(detector.metrics))
    except OcadError:
        raise
    except Exception as error:
        reason = in_one_line(error)[:200]
        message = f"the detector `{name}` of `{version.ref}` cannot score a row ({reason})"
        raise DataError(message, "train it again with the code that is installed") from None
    detector.forget()


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


def _events(frame: pd.DataFrame, alarms: Sequence[bool] | np.ndarray[Any, Any], rest: int) -> EventCounts | None:
    if "label" not in frame or frame["label"].nunique() < 2:
        return None
    return count_frame(frame, np.asarray(alarms, dtype=bool), rest)
