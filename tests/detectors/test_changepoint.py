"""CUSUM: the sums by brute force, the level that moves along, streaming equal to batch, and PELT."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.detectors.feeding import METRICS, in_pieces, make_links

from ocad.detection.level import column_medians, moving_medians
from ocad.detection.pelt import change_points
from ocad.detection.sums import loss_sum, point_sum, window_sums
from ocad.detection.units import ALARM
from ocad_changepoint.config import CusumSettings
from ocad_changepoint.detector import ChangepointDetector


def make_cusum(metrics: tuple[str, ...] = METRICS, **cusum: Any) -> ChangepointDetector:
    """Fitted and calibrated on two links."""
    detector = ChangepointDetector(metrics, CusumSettings.model_validate(cusum))
    detector.fit(make_links(1_000))
    detector.calibrate(make_links(1_000, seed=2))
    return detector


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 600), max_size=6),
    st.integers(0, 2**16),
    st.sampled_from([0.0, 0.01, 0.4, 1.0]),
    st.sampled_from(
        [
            {},
            {"memory": 0},
            {"window": 7, "block": 5, "memory": 3, "trust": 1},
            {"memory": 1, "block": 2, "direction": "up"},
            {"direction": "both", "log": False, "prompt": False},
        ]
    ),
)
def test_streaming_equals_batch(cuts: list[int], seed: int, lost: float, cusum: dict[str, Any]) -> None:
    detector = make_cusum(**cusum)
    frame = make_links(200, ("a", "b", "never seen"), seed, lost)
    assert np.allclose(in_pieces(detector, frame, cuts), detector.score(frame), rtol=1e-9, atol=1e-9)


def test_many_rows_lose_no_digit() -> None:
    detector = make_cusum()
    frame = make_links(30_000, ("a",), seed=3)
    assert np.allclose(in_pieces(detector, frame, [1_000, 29_000]), detector.score(frame), rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(12, 60), st.integers(1, 3)), elements=st.floats(-5, 5)), st.integers(2, 11)
)
def test_window_sums_are_the_largest_of_all_that_end_in_a_row(increments: np.ndarray, window: int) -> None:
    largest = [
        [
            max(increments[row - length + 1 : row + 1, column].sum() for length in range(1, window + 1))
            for column in range(increments.shape[1])
        ]
        for row in range(window, len(increments))
    ]
    assert np.allclose(window_sums(increments, window), np.reshape(largest, (-1, increments.shape[1])), atol=1e-9)


def test_sums_of_one_row_go_both_ways() -> None:
    assert point_sum([3.0, 2.0, -9.0], [1.0, 2.0, 3.0], True) == 3.0
    assert point_sum([-3.0, -2.0, 9.0], [1.0, 2.0, 3.0], True) == 3.0
    assert point_sum([-3.0, -2.0, 5.0], [1.0, 2.0, 3.0], False) == 0.0
    assert loss_sum(0b1101, 3.0, -1.0) == 8.0
    assert loss_sum(0b1000, 3.0, -1.0) == 0.0


@settings(deadline=None)
@given(arrays(np.float64, (3, 9, 2), elements=st.floats(-5, 5) | st.just(np.nan)))
def test_medians_leave_out_what_is_missing(blocks: np.ndarray) -> None:
    expected = pd.DataFrame(blocks.transpose(0, 2, 1).reshape(6, 9)).median(axis=1).to_numpy().reshape(3, 2)
    assert np.allclose(column_medians(blocks), expected, equal_nan=True)


@settings(deadline=None)
@given(
    st.lists(st.floats(-5, 5), max_size=6),
    arrays(np.float64, st.integers(0, 9), elements=st.floats(-5, 5)),
    st.integers(1, 6),
)
def test_moving_medians_look_back_on_what_is_remembered(
    remembered: list[float], votes: np.ndarray, memory: int
) -> None:
    everything = [*remembered, *votes.tolist()]
    ends = range(len(remembered) + 1, len(everything) + 1)
    expected = [float(np.median(everything[max(0, end - memory) : end])) for end in ends]
    assert np.allclose(moving_medians(remembered, votes, memory), expected)


def shifted(rows: int, first: int, last: int, by: float) -> pd.DataFrame:
    """Seconds around 100 with a deviation of 1, `by` higher in rows `first` to `last`."""
    value = 100 + np.random.default_rng(4).normal(0, 1, rows)
    value[first : last + 1] += by
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s")
    return pd.DataFrame({"timestamp": times, "endpoint": "a", "udp_echo": value})


def raw_scores(frame: pd.DataFrame, **cusum: Any) -> np.ndarray:
    detector = ChangepointDetector(["udp_echo"], CusumSettings.model_validate(cusum))
    detector.fit(shifted(2_000, 0, -1, 0.0))
    return detector.raw(frame)


def test_a_small_shift_that_lasts_is_found_and_forgotten_soon_after_it_ends() -> None:
    raw = raw_scores(shifted(600, 200, 250, 4.0))
    assert raw[:200].max() < ALARM
    assert raw[210:240].max() > ALARM
    assert raw[251 + 15 :].max() < ALARM


def test_a_level_that_stays_becomes_normal_and_without_memory_never_does() -> None:
    lasting = shifted(1_500, 300, 1_499, 20.0)
    moving, fixed = raw_scores(lasting), raw_scores(lasting, memory=0)
    assert moving[305] > ALARM
    assert moving[450:].max() < ALARM
    assert fixed[305:].min() > ALARM


def test_an_incident_shorter_than_half_the_memory_moves_nothing() -> None:
    raw = raw_scores(shifted(1_200, 700, 724, 20.0))
    assert raw[690] < ALARM
    assert raw[705:725].min() > ALARM
    assert raw[740:].max() < ALARM


@pytest.mark.parametrize(("direction", "found"), [("auto", False), ("both", True), ("up", False)])
def test_a_fall_of_a_delay_counts_where_it_is_asked_for(direction: str, found: bool) -> None:
    assert bool(raw_scores(shifted(300, 200, 230, -5.0), direction=direction)[230] > ALARM) == found


def test_a_gap_ends_a_sum() -> None:
    frame = shifted(300, 200, 299, 3.5)
    frame.loc[221:, "timestamp"] += pd.Timedelta(seconds=60)
    raw = raw_scores(frame)
    assert raw[215:221].max() > ALARM
    assert raw[221] < ALARM


def test_one_far_row_says_more_the_farther_it_is() -> None:
    raw = [raw_scores(shifted(300, 200, 200, by))[200] for by in (10.0, 100.0, 1e6)]
    assert ALARM < raw[0] < raw[1] < raw[2]


def test_an_endpoint_never_seen_is_measured_around_its_own_first_rows() -> None:
    raw = raw_scores(shifted(400, 0, 399, 5_000.0).assign(endpoint="new"))
    assert (raw[:6] == 0).all()
    assert raw[6:].max() < ALARM


def test_pelt_finds_levels_around_lost_rows() -> None:
    generator = np.random.default_rng(1)
    value = np.repeat([100.0, 130.0, 100.0], [300, 200, 250]) + generator.normal(0, 5, 750)
    value[90:100] = np.nan
    assert change_points(value) == pytest.approx([300, 500], abs=2)
    assert change_points(np.column_stack([value, generator.normal(0, 1, 750)])) == pytest.approx([300, 500], abs=2)
    assert change_points(value, penalty=1e9) == []


@pytest.mark.parametrize("value", [np.full(200, np.nan), np.full(200, 3.0), np.arange(4.0)])
def test_pelt_finds_nothing_where_nothing_changes(value: np.ndarray) -> None:
    assert change_points(value) == []
