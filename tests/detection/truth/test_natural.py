"""Natural events: what the rule calls one, and that units and levels do not matter to it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.detection.events import Interval
from ocad.detection.truth.natural import HALF, SIDE, covered, natural_events, natural_tails, surroundings


def noise(rows: int = 1500, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return 1000 + np.clip(np.random.default_rng(seed).standard_normal(rows), -4, 4)


def test_noise_alone_has_no_event() -> None:
    assert natural_events(noise()).all == ()


@pytest.mark.parametrize(("rows", "expected"), [
    ([700], [(700, 700, True)]),
    ([700, 705], [(700, 700, True), (705, 705, True)]),
    ([700, 720, 740], [(700, 700, True), (720, 720, True), (740, 740, True)]),
    ([700, 705, 712], [(700, 712, False)]),
    ([700, 701, 702, 703], [(700, 703, False)]),
])  # fmt: skip
@pytest.mark.parametrize("sign", [1, -1])
def test_few_far_rows_are_spikes_and_three_close_ones_an_event(
    rows: list[int], expected: list[tuple[int, int, bool]], sign: int
) -> None:
    values = noise()
    values[rows] += sign * 40
    assert [(one.start, one.end, one.spike) for one in natural_events(values).all] == expected


@pytest.mark.parametrize(("lost", "expected"), [([700, 701], []), ([700, 704, 714], [(700, 714)]), ([700, 720], [])])
def test_lost_rows_are_an_event_from_three_on(lost: list[int], expected: list[tuple[int, int]]) -> None:
    values = noise()
    values[lost] = np.nan
    assert [(one.start, one.end) for one in natural_events(values).all] == expected


def test_a_new_level_is_one_event_where_it_begins_and_then_normal() -> None:
    values = noise()
    values[700:] += 12
    (event,) = natural_events(values).all
    assert abs(event.start - 700) <= 1
    assert event.rows == SIDE


def test_what_is_small_or_slow_is_no_event() -> None:
    values = noise() + np.linspace(0, 60, 1500)
    values[700:720] += 1.5
    assert natural_events(values).sustained == ()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000), factor=st.sampled_from([0.5, 4.0, 1024.0]), shift=st.integers(-500, 500),
    far=st.lists(st.integers(0, 799), max_size=12), lost=st.lists(st.integers(0, 799), max_size=12),
)  # fmt: skip
def test_units_and_levels_do_not_matter_and_events_are_apart(
    seed: int, factor: float, shift: int, far: list[int], lost: list[int]
) -> None:
    values = np.round(noise(800, seed) * 64) / 64
    values[far] += 50
    values[lost] = np.nan
    events = natural_events(values)
    assert natural_events(values * factor + shift * factor) == events
    assert all(before.end < after.start for before, after in pairwise(events.all))
    assert not events.rows(800)[[row for row in range(800) if row not in covered_rows(events.all)]].any()


def covered_rows(events: tuple[Interval, ...]) -> set[int]:
    return {row for event in events for row in range(event.start, event.end + 1)}


def test_the_noise_of_equal_values_is_their_smallest_step_and_never_zero() -> None:
    values = np.full(600, 16.0)
    values[[100, 300]] = 18.0, 21.0
    _, around = surroundings(values)
    assert around[100] == 2.0
    assert (around > 0).all()
    assert np.isinf(surroundings(np.full(300, 5.0))[1]).all()
    assert natural_events(np.full(300, 5.0)).all == ()


def test_events_are_counted_from_a_later_row_without_those_that_are_over() -> None:
    values = noise()
    values[[300, 700]] += 40
    values[498:503] += 40
    later = natural_events(values).since(500)
    assert [(one.start, one.end) for one in later.all] == [(-2, 2), (200, 200)]
    assert covered(later.all, 300, margin=1).sum() == 4 + 3


def test_tails_are_of_rows_in_a_row_outside_sustained_events() -> None:
    values = noise(4000)
    values[100::50] += 30
    values[2000:2020] += 500
    tails = natural_tails(values, natural_events(values))
    assert 25 < tails[1] < 40
    assert tails[3] < tails[2] < 6
    assert natural_tails(np.full(HALF, np.nan), natural_events(np.full(HALF, np.nan)))[1] == np.inf
