"""Scores with don't-care, and comparisons with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.detection.events import EventCounts, Interval, alerts_of, count_events
from ocad.detection.truth.intervals import Estimate, event_f1, f1_difference, mean, mean_difference
from ocad.detection.truth.natural import NaturalEvents
from ocad.detection.truth.scoring import TruthCounts, detectable, score_link
from ocad.errors import UsageError

ROWS = 600
NONE = NaturalEvents((), ())


def flags(*spans: tuple[int, int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(ROWS, dtype=bool)
    for start, end in spans:
        found[start : end + 1] = True
    return found


def scored(
    alarms: list[tuple[int, int]], natural: NaturalEvents = NONE, kind: str = "shift", apart: list[bool] | None = None
) -> TruthCounts:
    """One incident in rows 100 to 119."""
    labels = flags((100, 119))
    return score_link(labels, np.where(labels, kind, "").astype(object), flags(*alarms), natural, apart)


EVENT = NaturalEvents((Interval(300, 340),), ())
SPIKE = NaturalEvents((), (Interval(300, 300, True),))


@pytest.mark.parametrize(("alarms", "natural", "right", "wrong", "ignored"), [
    ([(102, 120)], NONE, 1, 0, 0),
    ([(310, 320)], NONE, 0, 1, 0),
    ([(310, 320)], EVENT, 0, 0, 1),
    ([(298, 301)], EVENT, 0, 0, 1),  # it began before and overlaps
    ([(343, 350)], EVENT, 0, 0, 1),  # late, and in time
    ([(344, 350)], EVENT, 0, 1, 0),
    ([(305, 307)], SPIKE, 0, 0, 1),
    ([(307, 309)], SPIKE, 0, 1, 0),
    ([(90, 101)], NaturalEvents((Interval(95, 96),), ()), 0, 1, 0),  # overlaps an incident, finds it not
    ([(102, 110), (112, 119)], NONE, 1, 1, 0),
    ([(102, 300)], EVENT, 0, 1, 0),  # found, and too long
])  # fmt: skip
def test_alerts_at_natural_events_are_neither_right_nor_wrong(
    alarms: list[tuple[int, int]], natural: NaturalEvents, right: int, wrong: int, ignored: int
) -> None:
    counts = scored(alarms, natural)
    assert (counts.events.right, counts.events.wrong, counts.ignored) == (right, wrong, ignored)


def test_an_undetectable_spike_is_in_no_recall_and_its_alert_not_wrong() -> None:
    hidden = scored([(101, 103)], kind="spike", apart=[False])
    assert (hidden.hidden, hidden.hidden_found, hidden.ignored) == (1, 1, 1)
    assert hidden.events.found == hidden.events.missed == hidden.events.wrong == 0
    missed = scored([], kind="spike", apart=[True])
    assert (missed.all["spike"], missed.found["spike"], missed.hidden) == (1, 0, 0)


def test_natural_events_are_told_of_apart_from_incidents() -> None:
    natural = NaturalEvents((Interval(110, 115), Interval(300, 310), Interval(400, 410)), (Interval(500, 500, True),))
    counts = scored([(305, 306), (503, 504)], natural)
    assert (counts.sustained_told, counts.sustained) == (1, 2), "the one inside the incident is not counted"
    assert (counts.spikes_told, counts.spikes) == (1, 1)


@settings(max_examples=100, deadline=None)
@given(
    alarms=st.lists(st.tuples(st.integers(0, 599), st.integers(0, 40)), max_size=8),
    natural=st.sampled_from([NONE, EVENT, SPIKE]),
)
def test_every_alert_is_counted_once_and_without_natural_events_as_everywhere(
    alarms: list[tuple[int, int]], natural: NaturalEvents
) -> None:
    spans = [(start, min(start + length, ROWS - 1)) for start, length in alarms]
    counts = scored(spans, natural)
    assert counts.events.right + counts.events.wrong + counts.ignored == len(alerts_of(flags(*spans)))
    plain = count_events(flags((100, 119)), flags(*spans), np.where(flags((100, 119)), "shift", "").astype(object))
    assert counts.events.wrong <= plain.wrong
    if natural is NONE:
        assert counts.events == plain
    assert 0 <= counts.quiet_alarmed <= counts.events.alarmed
    assert (counts + TruthCounts()) == counts


def test_only_spikes_above_the_natural_tail_are_detectable() -> None:
    natural = np.random.default_rng(0).standard_normal(ROWS)
    changed, tails = natural.copy(), {1: 8.0, 2: 4.0, 3: 2.0}
    incidents = [Interval(100, 100, True), Interval(200, 200, True), Interval(300, 301, True), Interval(400, 420)]
    changed[100] += 6
    changed[200] += 12
    changed[300:302] += 6
    changed[400:421] += 0.1
    assert detectable(incidents, natural, changed, tails).tolist() == [False, True, True, True]
    changed[200] = np.nan
    assert not detectable(incidents, natural, changed, tails)[1]


def links(right: int, wrong: int, missed: int, count: int = 12) -> list[EventCounts]:
    return [
        EventCounts(found=right, missed=missed + link % 2, right=right, wrong=wrong + link % 3) for link in range(count)
    ]


def test_comparisons_are_worded_by_their_interval() -> None:
    good, bad = links(9, 0, 1), links(3, 5, 7)
    assert f1_difference(good, bad).verdict == "better"
    assert f1_difference(bad, good).verdict == "worse"
    same = f1_difference(good, good)
    assert (same, same.verdict) == (Estimate(0.0, 0.0, 0.0), "not shown better")


def test_intervals_hold_their_figure_and_pairs_must_pair() -> None:
    f1 = event_f1(links(5, 2, 3))
    assert f1.low < f1.value < f1.high
    assert f1.value == pytest.approx(sum(links(5, 2, 3), EventCounts()).metrics().event_f1)
    assert event_f1(links(0, 0, 4)).value == 0.0
    assert mean([1.0, 2.0, 3.0]).value == 2.0
    assert mean_difference([1.0, 2.0, 4.0], [0.0, 1.0, 3.0]) == Estimate(1.0, 1.0, 1.0)
    with pytest.raises(UsageError, match="12 links cannot be paired with 3"):
        f1_difference(links(1, 1, 1), links(1, 1, 1, 3))
    with pytest.raises(UsageError, match="no link to score"):
        event_f1([])
