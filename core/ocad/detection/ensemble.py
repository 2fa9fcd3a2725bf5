"""Several detectors under one alarm rule: scores, alarms and incidents, of a frame or of one arriving row.

A single detector is an ensemble of one: `watched(name, detector, units)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.calibration import Calibration
from ocad.detection.detector import Series, SeriesDetector, normal_rows
from ocad.detection.hold import Hold
from ocad.detection.incidents import Detection, Incident, PointResult
from ocad.detection.rule import AlarmRule
from ocad.detection.tracker import IncidentTracker
from ocad.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


def watched(name: str, detector: SeriesDetector, units: Mapping[str, str], rule: AlarmRule | None = None) -> Ensemble:
    """The calibrated `detector` with a hold-down and incidents; scores stay its own."""
    return Ensemble({name: detector}, rule or AlarmRule.plain(), units)


class Ensemble:
    """Members by name, in the order of `rule`'s values; satisfies `ocad.protocols.Detector`.

    `units` gives the unit of each metric for what is told of incidents; `calibration` says how rare a score is, and decides
    about no alarm.
    """

    def __init__(
        self,
        members: Mapping[str, SeriesDetector],
        rule: AlarmRule,
        units: Mapping[str, str],
        calibration: Calibration | None = None,
    ) -> None:
        self.members, self.rule, self.units, self.calibration = dict(members), rule, dict(units), calibration
        self.metrics = tuple(dict.fromkeys(metric for member in self.members.values() for metric in member.metrics))
        """The columns of a frame that are read: those of all members."""
        self._columns = [_columns(member.metrics, self.metrics) for member in self.members.values()]
        self._holds: dict[str, Hold] = {}
        self._tracker = self._new_tracker()

    def use_rule(self, rule: AlarmRule) -> None:
        """Raises alarms by `rule` from now on, from a fresh state."""
        self.rule, self._tracker = rule, self._new_tracker()
        self.forget()

    @property
    def unseen(self) -> set[str]:
        """Endpoints that at least one member has scored without having been fitted on them."""
        return set().union(*(member.unseen for member in self.members.values()))

    def fit(self, frame: pd.DataFrame) -> None:
        """Fits every member; see `SeriesDetector.fit`."""
        self.calibration = None
        for member in self.members.values():
            member.fit(frame)
        self.forget()

    def calibrate(self, frame: pd.DataFrame) -> None:
        """Calibrates every member, then the weighted mean, on held-out rows; see `SeriesDetector.calibrate`."""
        normal = normal_rows(frame)
        for member in self.members.values():
            member.calibrate(normal)
        self.calibrate_mean(normal)

    def calibrate_mean(self, normal: pd.DataFrame, pooled: bool = False) -> None:
        """Measures how rare each weighted mean is on held-out normal rows, from a fresh state to a fresh one."""
        self.forget()
        combined = self.rule.combine(self.scores(normal))
        found = {part.endpoint: (combined[part.places], None) for part in self.series(normal)}
        self.calibration = Calibration.fit(found, pooled)
        self.forget()

    def scores(self, frame: pd.DataFrame) -> Floats:
        """The members' scores `(n, k)` in the frame's row order; goes on from their states.

        Raises `DataError` naming a metric that the frame lacks, before any member has advanced.
        """
        for name, member in self.members.items():
            for metric in member.metrics:
                if metric not in frame:
                    known = [
                        str(column) for column in frame.columns if column not in ("timestamp", "endpoint", "label")
                    ]
                    raise DataError(f"the rows have no column `{metric}`, which `{name}` reads", nearest(metric, known))
        return np.column_stack([member.score(frame) for member in self.members.values()])

    def score(self, frame: pd.DataFrame) -> Floats:
        """The scores `(n,)` of `detect`."""
        return self.detect(frame).scores

    def score_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """The score of `detect_point`."""
        return self.detect_point(endpoint, time_us, values).score

    def detect(self, frame: pd.DataFrame) -> Detection:
        """Scores, alarms and incidents of a frame (DESIGN §7), its rows sorted by time; goes on from the state."""
        each = self.scores(frame)
        scores, alarms = self.rule.combine(each), np.zeros(len(frame), dtype=bool)
        hot = scores >= self.rule.off
        incidents: list[Incident] = []
        endpoints = 0
        for part in self.series(frame):
            rows, endpoints = part.places, endpoints + 1
            alarms[rows] = self._hold(part.endpoint).run(scores[rows])
            incidents += self._tracker.run(
                part.endpoint, part.times, part.values, scores[rows], alarms[rows], hot[rows], each[rows]
            )
        incidents.sort(key=lambda incident: (incident.start_us, incident.endpoint))
        counts = {
            "rows": len(frame),
            "endpoints": endpoints,
            "alarms": int(alarms.sum()),
            "incidents": len(incidents),
            "unseen": len(self.unseen),
        }
        return Detection(scores, alarms, dict(zip(self.members, each.T, strict=True)), incidents, counts, hot)

    def replay(self, frame: pd.DataFrame, detection: Detection) -> Iterator[tuple[int, Incident | None]]:
        """The time in µs of each row, and the incident that `detect_point` would have told of at it from a fresh state.

        `detection` is what `detect` found in `frame`, from a fresh state too. Rows come in order of time, those of one time
        in the frame's order.
        """
        tracker = self._new_tracker()
        each = np.column_stack(list(detection.members.values()))
        parts = list(self.series(frame))
        places = np.concatenate([part.places for part in parts] or [np.empty(0, np.int64)])
        times = np.concatenate([part.times for part in parts] or [np.empty(0, np.int64)])
        values = np.concatenate([part.values for part in parts] or [np.empty((0, len(self.metrics)))])
        names = [part.endpoint for part in parts for _ in part.times]
        for row in np.lexsort((places, times)).tolist():
            place, moment = int(places[row]), int(times[row])
            score, alarm, hot = (float(one[place]) for one in (detection.scores, detection.alarms, detection.hot))
            said = each[place].tolist()
            yield (
                moment,
                tracker.observe(names[row], moment, values[row].tolist(), score, bool(alarm), bool(hot), said),
            )

    def detect_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> PointResult:
        """The same for one arriving row, `values` in the order of `metrics`, NaN where missing.

        Raises `DataError` for a time that is not after the endpoint's last one, or another number of values.
        """
        if len(values) != len(self.metrics):
            raise DataError(f"a row has {len(values)} values", f"give {len(self.metrics)}: {', '.join(self.metrics)}")
        values = [math.nan if math.isinf(value) else float(value) for value in values]
        each = [
            member.score_point(endpoint, time_us, values if columns is None else [values[i] for i in columns])
            for member, columns in zip(self.members.values(), self._columns, strict=True)
        ]
        score = self.rule.combine_point(each)
        alarm = self._hold(endpoint).step(score)
        hot = score >= self.rule.off
        incident = self._tracker.observe(endpoint, time_us, values, score, alarm, hot, each)
        return PointResult(score, alarm, dict(zip(self.members, each, strict=True)), incident)

    def state(self) -> dict[str, Any]:
        """The streaming state of members, hold-downs and incidents as JSON-able values; {} when fresh."""
        members = {name: state for name, member in self.members.items() if (state := member.state())}
        if not members and not self._holds:
            return {}
        holds = {endpoint: hold.state() for endpoint, hold in self._holds.items()}
        return {"members": members, "holds": holds, "incidents": self._tracker.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        for name, member in self.members.items():
            member.restore(state.get("members", {}).get(name, {}))
        self._holds = {}
        for endpoint, held in state.get("holds", {}).items():
            self._hold(endpoint).restore(held)
        self._tracker.restore(state.get("incidents", {}))

    def forget(self) -> None:
        """Begins with a fresh state."""
        self.restore({})

    def drop(self, endpoint: str) -> Incident | None:
        """Forgets one endpoint's streaming state; the incident that is cut short by it, if any."""
        for member in self.members.values():
            member.drop(endpoint)
        self._holds.pop(endpoint, None)
        return self._tracker.drop(endpoint)

    def series(self, frame: pd.DataFrame) -> Iterator[Series]:
        """The rows of `frame` by endpoint with the values of all metrics, infinite ones as NaN."""
        values = frame[list(self.metrics)].to_numpy(np.float64, copy=True)
        values[np.isinf(values)] = np.nan
        for part in next(iter(self.members.values())).series(frame):
            yield Series(part.endpoint, part.times, values[part.places], part.places, values[part.places])

    def _new_tracker(self) -> IncidentTracker:
        return IncidentTracker(self.metrics, self.units, dict.fromkeys(self.members, self.rule.on), self.rule.rest)

    def _hold(self, endpoint: str) -> Hold:
        found = self._holds.get(endpoint)
        if found is None:
            found = self._holds[endpoint] = self.rule.hold()
        return found


def _columns(metrics: Sequence[str], everything: Sequence[str]) -> tuple[int, ...] | None:
    """Where a member's metrics stand among all, or None when they are all in order."""
    return None if tuple(metrics) == tuple(everything) else tuple(everything.index(metric) for metric in metrics)
