"""From alarm flags to incidents: one open incident for each endpoint at most, row by row or by frame alike.

An incident begins with the first row of the evidence that led to its alarm: the run of hot rows just before it, single quiet
ones between them included. Memory is bounded: of the rows before an alarm the newest are kept, of an incident's at most
`MOST_ROWS`, thinned evenly; extremes and losses are counted over all of them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.incidents import Incident
from ocad.detection.kinds import Baseline, contrast, deviations_of, likeliest_kind
from ocad.detection.unfolding import Row, Rows, Unfolding, as_numbers, nullable

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BEFORE_ROWS = 256
"""Quiet rows that say what is normal."""
GUARD_ROWS = 8
"""The newest quiet rows do not count: an incident begins a little before its alarm."""
LOOK_BACK = 64
"""The most rows before an alarm that can belong to its incident."""


class IncidentTracker:
    """Turns rows with alarm flags into incidents.

    `units` gives the unit of each of `metrics`; `thresholds` names the members in the order of their scores, each with the
    score from which it agrees. An alarm that comes back within `rest` rows belongs to the incident that it was: an incident
    is closed so many rows after its last row in alarm, which is its end.
    """

    def __init__(
        self, metrics: Sequence[str], units: Mapping[str, str], thresholds: Mapping[str, float], rest: int = 1
    ) -> None:
        self.metrics, self.thresholds, self.rest = tuple(metrics), dict(thresholds), max(rest, 1)
        self.units = tuple(units.get(metric, "") for metric in metrics)
        self._quiet: dict[str, _Quiet] = {}
        """Of each endpoint the newest rows that belong to no incident."""
        self._open: dict[str, Unfolding] = {}
        self._resting: dict[str, list[Row]] = {}
        """The rows since the last one in alarm of each open incident, fewer than `rest`."""

    def observe(
        self,
        endpoint: str,
        time_us: int,
        values: Sequence[float],
        score: float,
        alarm: bool,
        hot: bool,
        surprises: Sequence[float],
    ) -> Incident | None:
        """One row: the incident that it opens, carries on or closes.

        `hot` says that the row is evidence itself, not only within the hold-down's patience.
        """
        if alarm:
            current = self._opened(endpoint, time_us)
            current.add(Rows.of([*self._resting.pop(endpoint, ()), (time_us, values, score, hot, surprises)]))
            return self._told(endpoint, current)
        if endpoint not in self._open:
            self._before(endpoint).add_row(time_us, values, score, hot, surprises)
            return None
        resting = self._resting.setdefault(endpoint, [])
        resting.append((time_us, list(values), score, hot, surprises))
        return self._close(endpoint) if len(resting) >= self.rest else None

    def run(
        self,
        endpoint: str,
        times: NDArray[np.int64],
        values: Floats,
        scores: Floats,
        alarms: Flags,
        hot: Flags,
        surprises: Floats,
    ) -> Iterator[Incident]:
        """The incidents of one endpoint's rows in time order, those open before included, the last one perhaps still open.

        `times` in µs, `values` `(n, m)`, `surprises` `(n, k)`, all others `(n,)`.
        """
        rows = Rows(times, values, scores, hot, surprises)
        bounds = np.flatnonzero(np.diff(alarms)) + 1
        for start, end in zip([0, *bounds.tolist()], [*bounds.tolist(), len(alarms)], strict=True):
            if start == end:
                continue
            part = rows.part(start, end)
            if alarms[start]:
                current = self._opened(endpoint, int(times[start]))
                if endpoint in self._resting:
                    current.add(Rows.of(self._resting.pop(endpoint)))
                current.add(part)
            elif endpoint in self._open:
                resting = self._resting.setdefault(endpoint, [])
                left = self.rest - len(resting)
                resting += part.part(0, min(left, len(part))).listed()
                if len(resting) == self.rest:
                    yield self._close(endpoint)
                    self._before(endpoint).add(part.part(min(left, len(part)), len(part)))
            else:
                self._before(endpoint).add(part)
        if endpoint in self._open:
            current = self._open[endpoint]
            yield self._told(endpoint, current, current.last_us if endpoint in self._resting else None)

    def drop(self, endpoint: str) -> Incident | None:
        """Forgets one endpoint; its incident, which is over with it, if there is one."""
        ended = self._close(endpoint) if endpoint in self._open else None
        self._quiet.pop(endpoint, None)
        self._resting.pop(endpoint, None)
        return ended

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON-able values."""
        return {
            "quiet": {endpoint: quiet.state() for endpoint, quiet in self._quiet.items()},
            "open": {endpoint: current.state() for endpoint, current in self._open.items()},
            "resting": {endpoint: _rows_state(rows) for endpoint, rows in self._resting.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; an empty one is the beginning."""
        width = len(self.metrics)
        self._quiet = {name: _Quiet.from_state(width, item) for name, item in state.get("quiet", {}).items()}
        self._open = {
            name: Unfolding.from_state(item, self.units, self._baselines(name))
            for name, item in state.get("open", {}).items()
        }
        self._resting = {name: _rows_of(rows) for name, rows in state.get("resting", {}).items()}

    def _before(self, endpoint: str) -> _Quiet:
        found = self._quiet.get(endpoint)
        if found is None:
            found = self._quiet[endpoint] = _Quiet(len(self.metrics))
        return found

    def _opened(self, endpoint: str, time_us: int) -> Unfolding:
        """The open incident; a new one takes the rows that led to it out of the quiet ones, which then say what is normal."""
        found = self._open.get(endpoint)
        if found is None:
            evidence = self._before(endpoint).take_evidence()
            start = evidence[0][0] if evidence else time_us
            found = Unfolding(start, self.units, self._baselines(endpoint), len(self.thresholds))
            self._open[endpoint] = found
            if evidence:
                found.add(Rows.of(evidence))
        return found

    def _close(self, endpoint: str) -> Incident:
        current = self._open.pop(endpoint)
        closed = self._told(endpoint, current, current.last_us)
        for row in self._resting.pop(endpoint, ()):
            self._before(endpoint).add_row(*row)
        return closed

    def _told(self, endpoint: str, current: Unfolding, end_us: int | None = None) -> Incident:
        during, tallies = current.telling(), current.tallies()
        contrasts = {
            metric: contrast(current.before[column], during[:, column], self.units[column], tallies[column])
            for column, metric in enumerate(self.metrics)
        }
        kind = likeliest_kind(contrasts, tallies[0].rows)
        deviations = deviations_of(contrasts, kind)
        return Incident(
            id=fingerprint(endpoint, current.start_us),
            endpoint=endpoint,
            metrics=tuple(deviations),
            start_us=current.start_us,
            end_us=end_us,
            kind=kind,
            score=current.score,
            detectors=self._agreed(current.surprises),
            deviations=deviations,
            rows=current.count,
        )

    def _baselines(self, endpoint: str) -> list[Baseline]:
        """What is normal for each metric; it stays so while an incident is open, as only quiet rows are kept."""
        rows = self._before(endpoint).rows()
        return [Baseline.of(rows[:, column], unit) for column, unit in enumerate(self.units)]

    def _agreed(self, surprises: Sequence[float]) -> dict[str, float]:
        """The members that reached their threshold, else the most surprised one; the highest first."""
        found = sorted(zip(self.thresholds, surprises, strict=True), key=lambda item: -item[1])
        return {name: score for name, score in found if score >= self.thresholds[name]} or dict(found[:1])


def fingerprint(endpoint: str, start_us: int) -> str:
    """16 hex digits that name the incident of `endpoint` that began at `start_us`."""
    return hashlib.sha256(f"{start_us} {endpoint}".encode()).hexdigest()[:16]


class _Quiet:
    """The newest rows of one endpoint that were not in alarm; of those since the last incident also what detectors said."""

    SIZE = BEFORE_ROWS + GUARD_ROWS + LOOK_BACK

    def __init__(self, width: int) -> None:
        self._ring = np.empty((self.SIZE, width))
        self._next = self._held = 0
        self._recent: deque[Row] = deque(maxlen=LOOK_BACK)

    def add_row(
        self, time_us: int, values: Sequence[float], score: float, hot: bool, surprises: Sequence[float]
    ) -> None:
        self._ring[self._next] = values
        self._next = (self._next + 1) % self.SIZE
        self._held = min(self._held + 1, self.SIZE)
        self._recent.append((time_us, values, score, hot, surprises))

    def add(self, rows: Rows) -> None:
        self._keep(rows.values)
        self._recent.extend(rows.part(max(0, len(rows) - LOOK_BACK), len(rows)).listed())

    def take_evidence(self) -> list[Row]:
        """Removes and returns the run of hot rows at the end, in which no two quiet rows follow each other."""
        recent, first, quiet = list(self._recent), len(self._recent), 0
        for place in range(len(recent) - 1, -1, -1):
            quiet = 0 if recent[place][3] else quiet + 1
            if quiet > 1:
                break
            first = place if recent[place][3] else first
        self._recent.clear()
        taken = recent[first:]
        self._held -= len(taken)
        self._next = (self._next - len(taken)) % self.SIZE
        return taken

    def rows(self) -> Floats:
        """The newest `BEFORE_ROWS`, oldest first, before the guard, which shrinks where there are few."""
        ordered = self._ordered()[-BEFORE_ROWS - GUARD_ROWS :]
        return ordered[: len(ordered) - min(GUARD_ROWS, len(ordered) // 2)]

    def state(self) -> dict[str, Any]:
        return {"rows": [nullable(row) for row in self._ordered().tolist()], "recent": _rows_state(self._recent)}

    @classmethod
    def from_state(cls, width: int, state: Mapping[str, Any]) -> _Quiet:
        quiet = cls(width)
        quiet._keep(np.array(state["rows"], np.float64).reshape(-1, width))
        quiet._recent.extend(_rows_of(state.get("recent", ())))
        return quiet

    def _keep(self, values: Floats) -> None:
        newest = values[-self.SIZE :]
        self._ring[(self._next + np.arange(len(newest))) % self.SIZE] = newest
        self._next = (self._next + len(newest)) % self.SIZE
        self._held = min(self._held + len(newest), self.SIZE)

    def _ordered(self) -> Floats:
        return self._ring[(self._next - self._held + np.arange(self._held)) % self.SIZE]


def _rows_state(rows: Iterable[Row]) -> list[list[Any]]:
    """Rows as JSON-able values."""
    return [
        [time_us, nullable(values), score, bool(hot), list(map(float, said))]
        for time_us, values, score, hot, said in rows
    ]


def _rows_of(state: Iterable[Sequence[Any]]) -> list[Row]:
    """What `_rows_state` wrote."""
    return [
        (int(time_us), as_numbers(values), float(score), bool(hot), [float(one) for one in said])
        for time_us, values, score, hot, said in state
    ]
