"""The base of detectors: any way of feeding rows gives the same scores, and what is odd is named."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detection.conftest import Distance, make_frame

from ocad.detection.detector import SeriesDetector
from ocad.detection.training import surprises
from ocad.errors import DataError, UsageError


def point_by_point(detector: SeriesDetector, frame: pd.DataFrame) -> list[float]:
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    values = frame[list(detector.metrics)].to_numpy(np.float64).tolist()
    return [detector.score_point(*row) for row in zip(frame["endpoint"], times, values, strict=True)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 900), max_size=5), st.integers(0, 2**16), st.booleans())
def test_whole_pieces_points_and_restored_states_agree(cuts: list[int], seed: int, shuffled: bool) -> None:
    fitted = Distance(["udp_echo"])
    fitted.fit(make_frame())
    fitted.calibrate(make_frame(seed=4))
    stored = json.dumps(fitted.to_json())
    frame = make_frame(300, ("a", "b", "never seen"), seed)
    if shuffled:
        frame = frame.sort_values("timestamp", kind="stable", ignore_index=True)
    expected = fitted.score(frame)
    assert np.isfinite(expected).all()
    state: dict[str, object] = {}
    scores: list[float] = []
    for number, piece in enumerate(np.split(np.arange(len(frame)), sorted(cuts))):
        detector = Distance.from_json(json.loads(stored))
        detector.restore(json.loads(json.dumps(state)))
        part = frame.iloc[piece]
        scores += point_by_point(detector, part) if number % 2 else detector.score(part).tolist()
        state = detector.state()
    assert np.allclose(scores, expected, rtol=1e-9, atol=1e-9)


def test_about_the_promised_share_of_held_out_rows_is_surprising(distance: Distance) -> None:
    frame = make_frame(5_000, seed=9)
    assert distance.calibration is not None
    surprise = surprises(distance.calibration, frame, distance.score(frame))
    assert float((surprise >= 1).mean()) == pytest.approx(0.1, abs=0.03)


def test_labelled_rows_are_no_part_of_the_calibration(distance: Distance) -> None:
    frame = make_frame(seed=4)
    wild = frame.assign(label=0)
    wild.loc[100:200, "label"] = 1
    wild.loc[100:200, "udp_echo"] = 1e6
    distance.calibrate(wild)
    without = distance.calibration
    distance.calibrate(frame.drop(index=range(100, 201)))
    assert distance.calibration == without


def test_an_endpoint_never_seen_is_flagged_once(distance: Distance, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ocad.data"):
        distance.score(make_frame(30, ("new",)))
        distance.forget()
        distance.score(make_frame(30, ("new",)))
    assert distance.unseen == {"new"}
    assert [record.getMessage() for record in caplog.records] == [
        "endpoint `new` was never seen: scored by what all endpoints together say"
    ]


def test_a_gap_of_an_endpoint_never_seen_is_found_once_its_step_is_known(distance: Distance) -> None:
    times = np.cumsum([0] + [240] * 12 + [2400] + [240] * 3) * 1_000_000
    broken = distance.breaks("new", times)
    assert np.flatnonzero(broken).tolist() == [0, 13]


def test_a_clock_that_goes_backwards_is_named(distance: Distance) -> None:
    frame = make_frame(5)
    distance.score(frame)
    before = distance.state()
    with pytest.raises(DataError, match=r"endpoint `a` went backwards: `2026-01-01T00:00:01\+00:00`"):
        distance.score(frame)
    with pytest.raises(DataError, match="endpoint `b` went backwards"):
        distance.score_point("b", int(frame["timestamp"].iloc[-1].value) // 1000, [1.0])
    assert distance.state() == before


def test_a_missing_metric_is_named(distance: Distance) -> None:
    with pytest.raises(DataError, match="no column `udp_echo`, which the detector reads: did you mean `udp_ech`"):
        distance.score(make_frame(5).rename(columns={"udp_echo": "udp_ech"}))
    with pytest.raises(DataError, match="a row has 2 values: give 1: udp_echo"):
        distance.score_point("a", 0, [1.0, 2.0])


def test_without_calibration_there_is_no_score(distance: Distance) -> None:
    distance.fit(make_frame())
    with pytest.raises(UsageError, match="not calibrated"):
        distance.score(make_frame(5))


def test_infinite_values_count_as_missing_and_the_frame_is_left_alone(distance: Distance) -> None:
    frame = make_frame(20)
    frame.loc[7, "udp_echo"] = np.inf
    lost = frame.copy()
    lost.loc[7, "udp_echo"] = np.nan
    scores = distance.score(frame)
    assert np.isinf(frame["udp_echo"].to_numpy()[7])
    distance.forget()
    assert np.array_equal(distance.score(lost), scores)
    distance.forget()
    assert np.allclose(point_by_point(distance, frame), scores)
