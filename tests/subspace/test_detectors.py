"""Both methods: whole, in pieces and row by row alike; what is odd scores high; losses are evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.subspace.conftest import METRICS, make_frame, normal_frame

from ocad.detection.detector import SeriesDetector
from ocad.detection.units import ALARM
from ocad.errors import UsageError
from ocad_subspace.build import build_detector, read_detector
from ocad_subspace.config import SubspaceConfig

SETTINGS: Mapping[str, dict[str, Any]] = {
    "pca": {"method": "pca", "pca": {"windows": [1, 4], "spans": [1, 3]}},
    "pca, no window": {"method": "pca", "pca": {"windows": [1]}},
    "rank": {"method": "rank", "rank": {"smoothing": 5, "memory": 150}},
}
Make = Callable[[], SeriesDetector]


def fitted(name: str, calibrated: bool = True) -> SeriesDetector:
    detector = build_detector(SubspaceConfig.model_validate(SETTINGS[name]), METRICS)
    detector.fit(make_frame())
    if calibrated:
        detector.calibrate(make_frame(seed=4))
    return detector


def point_by_point(detector: SeriesDetector, frame: pd.DataFrame) -> list[float]:
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    values = frame[list(METRICS)].to_numpy(np.float64).tolist()
    return [detector.score_point(*row) for row in zip(frame["endpoint"], times, values, strict=True)]


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 600), max_size=4), seed=st.integers(0, 2**16))
def test_whole_pieces_points_and_restored_states_agree(name: str, cuts: list[int], seed: int) -> None:
    stored = json.dumps(fitted(name).to_json())
    frame = make_frame(200, ("a", "b", "never seen"), seed)
    expected = read_detector(json.loads(stored)).score(frame)
    assert np.isfinite(expected).all()
    state: dict[str, Any] = {}
    scores: list[float] = []
    for number, piece in enumerate(np.split(np.arange(len(frame)), sorted(cuts))):
        detector = read_detector(json.loads(stored))
        detector.restore(json.loads(json.dumps(state)))
        part = frame.iloc[piece]
        scores += point_by_point(detector, part) if number % 2 else detector.score(part).tolist()
        state = detector.state()
    assert np.allclose(scores, expected, rtol=1e-9, atol=1e-9)


def raw_of(name: str, change: Callable[[pd.DataFrame], None]) -> NDArray[np.float64]:
    frame = normal_frame(300, seed=8, endpoints=("a",))
    change(frame)
    return fitted(name, calibrated=False).raw(frame)


def shift(frame: pd.DataFrame) -> None:
    frame.loc[150:180, "udp_echo"] += 200.0


def lose(frame: pd.DataFrame) -> None:
    frame.loc[150:180, ["udp_echo", "lbm"]] = np.nan


@pytest.mark.parametrize("name", SETTINGS)
def test_a_dead_link_is_an_alarm_within_five_rows_and_stays_one(name: str) -> None:
    frame = normal_frame(300, seed=8, endpoints=("a",))
    frame.loc[150:180, list(METRICS)] = np.nan
    scores = fitted(name).score(frame)
    assert scores[150:155].max() >= ALARM
    assert (np.diff(scores[152:181]) >= 0).all()


@pytest.mark.parametrize("name", SETTINGS)
def test_what_calibration_knows_never_makes_an_alarm_impossible(name: str) -> None:
    """Also where a tenth of the held-out rows was an incident itself."""
    detector, frame = fitted(name, calibrated=False), make_frame(seed=4)
    hit = frame.groupby("endpoint").cumcount() % 100 < 10
    frame.loc[hit, "udp_echo"] += 300.0
    detector.calibrate(frame)
    for endpoint in ("a", "b", "never seen"):
        odd = normal_frame(300, seed=8, endpoints=(endpoint,))
        odd.loc[150:180, "udp_echo"] += 2_000.0
        assert detector.score(odd)[150:181].max() >= ALARM


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("change", [shift, lose])
def test_what_is_odd_scores_above_what_is_usual(name: str, change: Callable[[pd.DataFrame], None]) -> None:
    raw = raw_of(name, change)
    assert np.isfinite(raw).all()
    assert np.median(raw[153:165]) > np.quantile(raw[30:150], 0.9)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_endpoint_never_seen_is_scored_by_all_together(name: str) -> None:
    detector = fitted(name)
    frame = normal_frame(100, seed=5, endpoints=("new",))
    scores = detector.score(frame)
    assert detector.unseen == {"new"}
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_column_that_never_varies_or_is_never_there_gives_finite_scores(name: str) -> None:
    frame = normal_frame(300).assign(ccm=0.0, lbm=np.nan)
    detector = build_detector(SubspaceConfig.model_validate(SETTINGS[name]), METRICS)
    detector.fit(frame)
    changed = normal_frame(60, seed=6)
    raw = detector.raw(changed.assign(ccm=0.5))
    assert np.isfinite(raw).all()


def test_a_detector_that_is_not_fitted_says_so() -> None:
    detector = build_detector(SubspaceConfig(), METRICS)
    with pytest.raises(UsageError, match="not fitted: call `fit` first"):
        detector.raw(normal_frame(5))
