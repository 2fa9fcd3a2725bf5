"""Event metrics against a brute-force reading of the rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.detection.events import EventCounts, Interval, alerts_of, count_events, incidents_of, score_events

ROWS = st.lists(st.booleans(), min_size=1, max_size=160)


def spells(mask: list[bool]) -> list[tuple[int, int]]:
    """First and last row of each run, found by walking."""
    found: list[tuple[int, int]] = []
    for row, marked in enumerate(mask):
        if marked and row and mask[row - 1]:
            found[-1] = (found[-1][0], row)
        elif marked:
            found.append((row, row))
    return found


def by_rule(incidents: list[tuple[int, int]], alerts: list[tuple[int, int]], spike: bool) -> tuple[int, int, int, int]:
    """found, missed, right, wrong: each incident takes the first alert not taken that starts in its window."""
    w, taken, found, right = (3 if spike else 30), set(), 0, 0
    for s, e in incidents:
        for alert, (start, end) in enumerate(alerts):
            if alert not in taken and start in range(s, max(e, s + w) + 3 + 1):
                taken.add(alert)
                found += 1
                right += end - start + 1 <= 2 * max(e - s + 1, w)
                break
    return found, len(incidents) - found, right, len(alerts) - right


@settings(deadline=None)
@given(ROWS, ROWS, st.booleans())
def test_counts_are_those_of_the_rules(labels: list[bool], alarm: list[bool], spike: bool) -> None:
    incidents = [Interval(start, end, spike) for start, end in spells(labels)]
    alerts = [Interval(start, end) for start, end in spells(alarm)]
    assert alerts_of(alarm, rest=0) == alerts
    counts = score_events(incidents, alerts)
    expected = by_rule(spells(labels), spells(alarm), spike)
    assert (counts.found, counts.missed, counts.right, counts.wrong) == expected


def test_an_alert_in_the_last_row_of_the_window_finds_and_one_row_later_does_not() -> None:
    shift, spike = Interval(10, 12), Interval(10, 10, spike=True)
    assert score_events([shift], [Interval(43, 44)]).found == 1
    assert score_events([shift], [Interval(44, 45)]).found == 0
    assert score_events([spike], [Interval(16, 16)]).found == 1
    assert score_events([spike], [Interval(17, 17)]).found == 0
    assert score_events([spike], [Interval(9, 12)]).found == 0


def test_an_overlong_alert_finds_its_incident_and_is_wrong() -> None:
    spike = Interval(10, 10, spike=True)
    assert score_events([spike], [Interval(10, 15)]) == EventCounts(found=1, right=1)
    assert score_events([spike], [Interval(10, 16)]) == EventCounts(found=1, wrong=1)


def test_one_alert_finds_one_incident_only() -> None:
    assert score_events([Interval(10, 10, True), Interval(12, 12, True)], [Interval(12, 12)]).found == 1


def test_kinds_divide_incidents_and_name_spikes() -> None:
    labels = [0, 1, 1, 1, 0, 1]
    kinds = ["", "spike", "shift", "shift", "", "loss"]
    assert incidents_of(labels, kinds) == [Interval(1, 1, True), Interval(2, 3), Interval(5, 5)]
    assert incidents_of(labels) == [Interval(1, 3, True), Interval(5, 5, True)]
    assert incidents_of(np.ones(4)) == [Interval(0, 3)]


def test_metrics_are_sums_over_endpoints() -> None:
    first = count_events([0, 1, 0, 0, 0], [0, 1, 0, 0, 1])
    second = count_events([1, 0, 0, 0, 0], [0, 0, 0, 0, 0])
    metrics = (first + second).metrics()
    assert metrics.event_precision == 0.5
    assert metrics.event_recall == 0.5
    assert metrics.event_f1 == 0.5
    assert metrics.point_fpr == pytest.approx(1 / 8)


def test_no_alert_and_no_incident_give_zeros() -> None:
    metrics = count_events([0, 0], [0, 0]).metrics()
    assert (metrics.event_precision, metrics.event_recall, metrics.event_f1, metrics.point_fpr) == (0, 0, 0, 0)
