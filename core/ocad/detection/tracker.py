"""From alarm flags to incidents: one open incident for each endpoint at most, row by row or by frame alike.

Memory is bounded: of the rows before an alarm the newest are kept, of those in alarm at most `MOST_ROWS`, thinned evenly.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.incidents import Incident
from ocad.detection.kinds import Baseline, contrast, deviations_of, likeliest_kind, telling_rows

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BEFORE_ROWS = 256
"""Quiet rows that say what is normal."""
GUARD_ROWS = 8
"""The newest quiet rows do not count: an incident begins a little before its alarm."""
MOST_ROWS = 512
"""Rows of an open incident that are kept; beyond them every second one is dropped."""


class IncidentTracker:
    """Turns rows with alarm flags into incidents.

    `units` gives the unit of each of `metrics`; `thresholds` names the members in the order of their surprises, each with
    the surprise from which it agrees.
    """

    def __init__(self, metrics: Sequence[str], units: Mapping[str, str], thresholds: Mapping[str, float]) -> None:
        self.metrics, self.units, self.thresholds = tuple(metrics), dict(units), dict(thresholds)
        self._quiet: dict[str, _Quiet] = {}
        self._open: dict[str, _Open] = {}

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
            current.add_row(time_us, values, score, hot, surprises)
            return self._told(endpoint, current)
        closed = self._close(endpoint) if endpoint in self._open else None
        self._before(endpoint).add_row(values)
        return closed

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
        bounds = np.flatnonzero(np.diff(alarms)) + 1
        for start, end in zip([0, *bounds.tolist()], [*bounds.tolist(), len(alarms)], strict=True):
            part = slice(start, end)
            if start == end:
                continue
            if alarms[start]:
                current = self._opened(endpoint, int(times[start]))
                current.add(times[part], values[part], scores[part], hot[part], surprises[part])
            else:
                if endpoint in self._open:
                    yield self._close(endpoint)
                self._before(endpoint).add(values[part])
        if endpoint in self._open:
            yield self._told(endpoint, self._open[endpoint])

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON-able values."""
        return {
            "quiet": {endpoint: quiet.state() for endpoint, quiet in self._quiet.items()},
            "open": {endpoint: current.state() for endpoint, current in self._open.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; an empty one is the beginning."""
        width = len(self.metrics)
        self._quiet = {name: _Quiet.from_state(width, item) for name, item in state.get("quiet", {}).items()}
        self._open = {name: _Open.from_state(item) for name, item in state.get("open", {}).items()}

    def _before(self, endpoint: str) -> _Quiet:
        found = self._quiet.get(endpoint)
        if found is None:
            found = self._quiet[endpoint] = _Quiet(len(self.metrics))
        return found

    def _opened(self, endpoint: str, time_us: int) -> _Open:
        found = self._open.get(endpoint)
        if found is None:
            found = self._open[endpoint] = _Open(time_us, len(self.thresholds))
        return found

    def _close(self, endpoint: str) -> Incident:
        current = self._open.pop(endpoint)
        return self._told(endpoint, current, current.last_us)

    def _told(self, endpoint: str, current: _Open, end_us: int | None = None) -> Incident:
        if current.before is None:
            current.before = self._baselines(endpoint)
        during = current.evidence()
        during = during[: telling_rows(current.before, during)]
        contrasts = {
            metric: contrast(current.before[column], during[:, column], self.units.get(metric, ""))
            for column, metric in enumerate(self.metrics)
        }
        kind = likeliest_kind(contrasts, len(during))
        deviations = deviations_of(contrasts, kind, self.units)
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
        return [Baseline.of(rows[:, column], self.units.get(metric, "")) for column, metric in enumerate(self.metrics)]

    def _agreed(self, surprises: Sequence[float]) -> dict[str, float]:
        """The members that reached their threshold, else the most surprised one; the highest first."""
        found = sorted(zip(self.thresholds, surprises, strict=True), key=lambda item: -item[1])
        return {name: score for name, score in found if score >= self.thresholds[name]} or dict(found[:1])


def fingerprint(endpoint: str, start_us: int) -> str:
    """16 hex digits that name the incident of `endpoint` that began at `start_us`."""
    return hashlib.sha256(f"{start_us} {endpoint}".encode()).hexdigest()[:16]


class _Quiet:
    """The newest rows of one endpoint that were not in alarm."""

    def __init__(self, width: int) -> None:
        self._ring = np.empty((BEFORE_ROWS + GUARD_ROWS, width))
        self._count = 0

    def add_row(self, values: Sequence[float]) -> None:
        self._ring[self._count % len(self._ring)] = values
        self._count += 1

    def add(self, values: Floats) -> None:
        newest = values[-len(self._ring) :]
        first = self._count + len(values) - len(newest)
        self._ring[(first + np.arange(len(newest))) % len(self._ring)] = newest
        self._count += len(values)

    def rows(self) -> Floats:
        """Oldest first, without the guard, which shrinks where there are few."""
        size = len(self._ring)
        ordered = (
            np.roll(self._ring, -(self._count % size), axis=0) if self._count > size else self._ring[: self._count]
        )
        return ordered[: len(ordered) - min(GUARD_ROWS, len(ordered) // 2)]

    def state(self) -> dict[str, Any]:
        size = len(self._ring)
        ordered = (
            np.roll(self._ring, -(self._count % size), axis=0) if self._count > size else self._ring[: self._count]
        )
        return {"rows": [_nullable(row) for row in ordered.tolist()]}

    @classmethod
    def from_state(cls, width: int, state: Mapping[str, Any]) -> _Quiet:
        quiet = cls(width)
        quiet.add(np.array(state["rows"], np.float64).reshape(-1, width))
        return quiet


class _Open:
    """An incident that is not over: its extremes, and its rows thinned to every `stride`-th."""

    def __init__(self, start_us: int, members: int) -> None:
        self.start_us = self.last_us = start_us
        self.score = -math.inf
        self.surprises = [-math.inf] * members
        self.count = self.hot_rows = 0
        """All rows so far, and those up to the last hot one."""
        self.before: Sequence[Baseline] | None = None
        """What was normal before, once it was asked for; not part of the state, as the quiet rows say it again."""
        self._rows: list[list[float]] = []
        self._stride = 1

    def add_row(
        self, time_us: int, values: Sequence[float], score: float, hot: bool, surprises: Sequence[float]
    ) -> None:
        self.last_us, self.score = time_us, max(self.score, score)
        self.surprises = [max(pair) for pair in zip(self.surprises, surprises, strict=True)]
        if self.count % self._stride == 0:
            self._keep([list(values)])
        self.count += 1
        if hot:
            self.hot_rows = self.count

    def add(self, times: NDArray[np.int64], values: Floats, scores: Floats, hot: Flags, surprises: Floats) -> None:
        self.last_us, self.score = int(times[-1]), max(self.score, float(scores.max()))
        self.surprises = np.maximum(self.surprises, surprises.max(axis=0)).tolist()
        self._keep(values[-self.count % self._stride :: self._stride].tolist())
        if hot.any():
            self.hot_rows = self.count + int(np.flatnonzero(hot)[-1]) + 1
        self.count += len(times)

    def evidence(self) -> Floats:
        """The kept rows up to the last hot one, `(r, m)`; all of them while none is hot."""
        return np.array(self._rows[: -(-(self.hot_rows or self.count) // self._stride)], np.float64)

    def state(self) -> dict[str, Any]:
        return {
            "start_us": self.start_us,
            "last_us": self.last_us,
            "score": self.score,
            "surprises": list(self.surprises),
            "count": self.count,
            "hot_rows": self.hot_rows,
            "stride": self._stride,
            "rows": [_nullable(row) for row in self._rows],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> _Open:
        current = cls(int(state["start_us"]), len(state["surprises"]))
        current.last_us, current.score = int(state["last_us"]), float(state["score"])
        current.surprises = [float(item) for item in state["surprises"]]
        current.count, current.hot_rows = int(state["count"]), int(state["hot_rows"])
        current._stride = int(state["stride"])
        current._rows = [[math.nan if item is None else float(item) for item in row] for row in state["rows"]]
        return current

    def _keep(self, rows: list[list[float]]) -> None:
        self._rows += rows
        while len(self._rows) > MOST_ROWS:
            del self._rows[1::2]
            self._stride *= 2


def _nullable(row: Sequence[float]) -> list[float | None]:
    """JSON has no NaN."""
    return [None if math.isnan(value) else value for value in row]
