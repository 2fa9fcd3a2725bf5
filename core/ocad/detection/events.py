"""Event-level metrics: incidents against alerts, never point-adjusted, per endpoint and summed.

An incident [s, e] is found if an alert starts in [s, max(e, s + w) + 3], w = 3 rows for spikes and 30 otherwise. An alert
matches at most one incident, and is right if matched and no longer than 2 · max(e - s + 1, w) rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

SPIKE_ROWS, OTHER_ROWS = 3, 30
"""The least length `w` that counts for a spike and for any other incident."""
GRACE_ROWS = 3
"""Rows after `max(e, s + w)` in which an alert may still start."""
SPIKE = "spike"


@dataclass(frozen=True, slots=True)
class Interval:
    """Rows `start` to `end`, both included, of one endpoint in time order."""

    start: int
    end: int
    spike: bool = False

    @property
    def window(self) -> int:
        """The least length `w` that the rules count with."""
        return SPIKE_ROWS if self.spike else OTHER_ROWS

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.end - self.start + 1

    @property
    def deadline(self) -> int:
        """The last row in which an alert that finds this incident may start."""
        return max(self.end, self.start + self.window) + GRACE_ROWS


@dataclass(frozen=True, slots=True)
class EventCounts:
    """Incidents found and missed, alerts right and wrong, and rows; counts of several endpoints are added."""

    found: int = 0
    missed: int = 0
    right: int = 0
    wrong: int = 0
    normal: int = 0
    """Rows that are in no incident."""
    alarmed: int = 0
    """Rows that are in no incident and under an alert."""

    def __add__(self, other: EventCounts) -> EventCounts:
        return EventCounts(
            self.found + other.found,
            self.missed + other.missed,
            self.right + other.right,
            self.wrong + other.wrong,
            self.normal + other.normal,
            self.alarmed + other.alarmed,
        )

    def metrics(self) -> EventMetrics:
        """The shares; one of nothing is 0."""
        precision = _share(self.right, self.right + self.wrong)
        recall = _share(self.found, self.found + self.missed)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return EventMetrics(precision, recall, f1, _share(self.alarmed, self.normal))


@dataclass(frozen=True, slots=True)
class EventMetrics:
    """Precision (right alerts of all), recall (found incidents of all), their harmonic mean, alarmed share of normal rows."""

    event_precision: float
    event_recall: float
    event_f1: float
    point_fpr: float

    def to_json(self) -> dict[str, float]:
        """The metrics by name."""
        return {name: float(getattr(self, name)) for name in self.__slots__}


def incidents_of(labels: ArrayLike, kinds: Sequence[str] | NDArray[Any] | None = None) -> list[Interval]:
    """The stretches of rows with label 1 in one endpoint's `labels` `(n,)`; a change of kind divides a stretch.

    `kinds` `(n,)` says what happens in each row; a stretch of kind `spike` is one. Without kinds, a stretch of at most
    three rows counts as a spike.
    """
    marked = np.asarray(labels) == 1
    if kinds is None:
        return [Interval(part.start, part.end, part.rows <= SPIKE_ROWS) for part in _stretches(marked)]
    names = np.asarray(kinds, dtype=object)
    changed = np.concatenate([[False], names[1:] != names[:-1]])
    return [Interval(part.start, part.end, names[part.start] == SPIKE) for part in _stretches(marked, changed)]


def alerts_of(alarm: ArrayLike, rest: int = 0) -> list[Interval]:
    """The stretches of true rows in one endpoint's `alarm` `(n,)`; those with fewer than `rest` quiet rows between are one."""
    alerts: list[Interval] = []
    for stretch in _stretches(np.asarray(alarm, dtype=bool)):
        if alerts and stretch.start - alerts[-1].end - 1 < rest:
            alerts[-1] = Interval(alerts[-1].start, stretch.end)
        else:
            alerts.append(stretch)
    return alerts


def score_events(incidents: Sequence[Interval], alerts: Sequence[Interval]) -> EventCounts:
    """Matches one endpoint's incidents, in time order, each with the first unmatched alert that finds it.

    Rows are not counted here: see `count_events`.
    """
    free = sorted(alerts, key=lambda alert: alert.start)
    found = right = 0
    for incident in sorted(incidents, key=lambda incident: incident.start):
        match = next((alert for alert in free if incident.start <= alert.start <= incident.deadline), None)
        if match is not None:
            free.remove(match)
            found += 1
            right += match.rows <= 2 * max(incident.rows, incident.window)
    return EventCounts(found, len(incidents) - found, right, len(alerts) - right)


def count_events(
    labels: ArrayLike, alarm: ArrayLike, kinds: Sequence[str] | NDArray[Any] | None = None, rest: int = 0
) -> EventCounts:
    """All counts of one endpoint from its `labels` and `alarm` `(n,)` in time order; see `alerts_of` for `rest`."""
    normal, raised = np.asarray(labels) != 1, np.asarray(alarm, dtype=bool)
    rows = EventCounts(normal=int(normal.sum()), alarmed=int((normal & raised).sum()))
    return rows + score_events(incidents_of(labels, kinds), alerts_of(raised, rest))


def count_frame(frame: pd.DataFrame, alarm: NDArray[np.bool_], rest: int = 0) -> EventCounts:
    """`count_events` of `alarm` `(n,)` for the rows of `frame`, labelled and sorted by endpoint and time, summed over endpoints."""
    label, counts = frame["label"].to_numpy(), EventCounts()
    for places in frame.groupby("endpoint", sort=False).indices.values():
        counts += count_events(label[places], alarm[places], rest=rest)
    return counts


def _stretches(mask: NDArray[np.bool_], divided: NDArray[np.bool_] | None = None) -> list[Interval]:
    """The runs of `mask`; a row where `divided` holds begins a new one."""
    before = np.concatenate([[False], mask[:-1]])
    after = np.concatenate([mask[1:], [False]])
    starts, ends = mask & ~before, mask & ~after
    if divided is not None:
        starts |= mask & divided
        ends |= mask & np.concatenate([divided[1:], [False]])
    return [
        Interval(int(start), int(end)) for start, end in zip(np.flatnonzero(starts), np.flatnonzero(ends), strict=True)
    ]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
