"""Scores of one link: injected incidents against alerts, where natural events are neither right nor wrong.

The rules of `ocad.detection.events` decide what finds an incident; what is added here is the don't-care.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.detection.events import EventCounts, EventMetrics, Interval, alerts_of, incidents_of
from ocad.detection.truth.natural import NaturalEvents, covered, surroundings


@dataclass(frozen=True, slots=True)
class TruthCounts:
    """What a method did on one link, or on several: counts are added."""

    events: EventCounts = field(default_factory=EventCounts)
    """Detectable incidents, and alerts that are right or wrong."""
    ignored: int = 0
    """Alerts that are neither: at a natural event, or at a spike that cannot be told from natural ones."""
    found: Counter[str] = field(default_factory=Counter)
    """Detectable incidents found by kind."""
    all: Counter[str] = field(default_factory=Counter)
    """Detectable incidents by kind."""
    hidden: int = 0
    """Injected spikes that cannot be told from natural ones."""
    hidden_found: int = 0
    sustained: int = 0
    """Natural sustained events; those that touch an incident are left out."""
    sustained_told: int = 0
    spikes: int = 0
    """Natural spikes, likewise."""
    spikes_told: int = 0
    quiet: int = 0
    """Normal rows that are past the deadline of every incident as well, so that no alert need still stand there."""
    quiet_alarmed: int = 0
    """Those of them that are under an alert."""

    def __add__(self, other: TruthCounts) -> TruthCounts:
        return TruthCounts(
            self.events + other.events,
            self.ignored + other.ignored,
            self.found + other.found,
            self.all + other.all,
            self.hidden + other.hidden,
            self.hidden_found + other.hidden_found,
            self.sustained + other.sustained,
            self.sustained_told + other.sustained_told,
            self.spikes + other.spikes,
            self.spikes_told + other.spikes_told,
            self.quiet + other.quiet,
            self.quiet_alarmed + other.quiet_alarmed,
        )

    def metrics(self) -> EventMetrics:
        """The shares of `events`."""
        return self.events.metrics()


def detectable(
    incidents: Sequence[Interval], natural: ArrayLike, changed: ArrayLike, tails: Mapping[int, float]
) -> NDArray[np.bool_]:
    """Whether each of one link's `incidents` can be told from natural spikes.

    Only spikes can fail: what was added in each of its rows (`changed` less `natural`, both `(n,)`) must, in local noises, be
    above what as many rows in a row of the link reach by nature, `tails`. A spike on a lost row cannot be told either.
    """
    before, after = np.asarray(natural, np.float64), np.asarray(changed, np.float64)
    _, noise = surroundings(before)
    told = []
    for incident in incidents:
        rows = slice(incident.start, incident.end + 1)
        size = np.nan_to_num((after - before)[rows] / noise[rows], nan=0.0).min()
        told.append(not incident.spike or bool(size > tails[incident.rows]))
    return np.array(told, dtype=bool)


def score_link(
    labels: ArrayLike,
    kinds: NDArray[np.object_],
    alarm: ArrayLike,
    natural: NaturalEvents,
    told_apart: Sequence[bool] | NDArray[np.bool_] | None = None,
    rest: int = 0,
) -> TruthCounts:
    """The counts of one link from `labels`, `kinds` and `alarm` `(n,)` in time order and its `natural` events.

    `told_apart` says of each incident whether it is detectable (None: all). Alarms with fewer than `rest` quiet rows between
    are one alert, as an operator is told of them. Every incident is matched with the first free
    alert that finds it. An alert that finds an undetectable spike is ignored; so is one that finds nothing, overlaps no
    incident, and overlaps or finds a natural event. All others without a match, and those that last too long, are wrong.
    Normal rows are those in no incident and not between a natural event's begin and its deadline.
    """
    marked, raised = np.asarray(labels) == 1, np.asarray(alarm, dtype=bool)
    incidents, free = incidents_of(marked, kinds), alerts_of(raised, rest)
    apart = np.ones(len(incidents), dtype=bool) if told_apart is None else np.asarray(told_apart, dtype=bool)
    found, everything, hidden_found, right, too_long = Counter[str](), Counter[str](), 0, 0, 0
    for incident, seen in zip(incidents, apart, strict=True):
        match = _first(incident, free)
        if match is not None:
            free.remove(match)
        if not seen:
            hidden_found += match is not None
            continue
        everything[str(kinds[incident.start])] += 1
        if match is not None:
            found[str(kinds[incident.start])] += 1
            good = match.rows <= 2 * max(incident.rows, incident.window)
            right, too_long = right + good, too_long + (not good)
    spans = [Interval(event.start, event.deadline) for event in natural.all]
    excused, inside = covered(tuple(spans), len(marked)), marked
    ignored = [alert for alert in free if not _touches(alert, inside) and _touches(alert, excused)]
    ordinary = ~marked & ~excused
    quiet = ordinary & ~covered(tuple(Interval(one.start, one.deadline) for one in incidents), len(marked))
    counts = EventCounts(
        sum(found.values()),
        sum(everything.values()) - sum(found.values()),
        right,
        too_long + len(free) - len(ignored),
        int(ordinary.sum()),
        int((ordinary & raised).sum()),
    )
    own = [
        tuple(event for event in events if not _touches(event, inside))
        for events in (natural.sustained, natural.spikes)
    ]
    told = [sum(_is_told(event, raised) for event in events) for events in own]
    return TruthCounts(
        counts, len(ignored) + hidden_found, found, everything, int((~apart).sum()), hidden_found,
        len(own[0]), told[0], len(own[1]), told[1], int(quiet.sum()), int((quiet & raised).sum()),
    )  # fmt: skip


def _first(incident: Interval, alerts: Sequence[Interval]) -> Interval | None:
    return next((alert for alert in alerts if incident.start <= alert.start <= incident.deadline), None)


def _touches(rows: Interval, mask: NDArray[np.bool_]) -> bool:
    return bool(mask[max(rows.start, 0) : rows.end + 1].any())


def _is_told(event: Interval, raised: NDArray[np.bool_]) -> bool:
    """Whether any row between an event's begin and its deadline is in alarm."""
    return bool(raised[max(event.start, 0) : event.deadline + 1].any())
