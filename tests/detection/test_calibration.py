"""Calibration: the promised share of false alarms, never falling, rising without bound, the same by point."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ocad.detection.calibration import KNOTS, Calibration, Curve
from ocad.errors import DataError

SCORES = arrays(np.float64, st.integers(1, 400), elements=st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 2.0]))
ASKED = arrays(np.float64, 50, elements=st.floats(-1e7, 1e7))


@settings(deadline=None)
@given(SCORES, ASKED)
def test_never_falls_and_is_the_same_by_point(scores: np.ndarray, asked: np.ndarray) -> None:
    curve = Curve.fit(scores)
    asked = np.sort(np.concatenate([asked, scores[:50]]))
    surprise = curve.surprise(asked)
    assert np.isfinite(surprise).all()
    assert (surprise >= 0).all()
    assert (np.diff(surprise) >= -1e-9).all()
    assert np.allclose([curve.surprise_point(score) for score in asked.tolist()], surprise, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(SCORES)
def test_rises_without_bound_above_the_highest_score(scores: np.ndarray) -> None:
    curve = Curve.fit(scores)
    top = max(curve.scores[-1], float(scores.max()))
    above = top + curve.scale * np.array([1.0, 10.0, 1e3, 1e6])
    assert (np.diff(curve.surprise(above)) > 0).all()


@settings(deadline=None)
@given(SCORES)
def test_json_and_back_changes_nothing(scores: np.ndarray) -> None:
    calibration = Calibration.fit({"a": scores})
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.parametrize("shape", ["normal", "exponential", "pareto", "mostly zero"])
def test_the_share_of_fresh_normal_rows_is_the_promised_one(shape: str) -> None:
    generator = np.random.default_rng(5)
    drawn = {
        "normal": np.abs(generator.normal(size=220_000)),
        "exponential": generator.exponential(size=220_000),
        "pareto": generator.pareto(2.0, size=220_000),
        "mostly zero": np.where(generator.random(220_000) < 0.1, generator.exponential(size=220_000), 0.0),
    }[shape]
    curve = Curve.fit(drawn[:20_000])
    fresh = curve.surprise(drawn[20_000:])
    for surprise in (1.0, 2.0, 3.0):
        share = float((fresh > surprise).mean())
        assert share == pytest.approx(10**-surprise, rel=0.35), f"surprise {surprise}"


def test_knots_are_few_and_endpoints_with_few_rows_use_all() -> None:
    generator = np.random.default_rng(6)
    calibration = Calibration.fit({"busy": generator.normal(size=5_000), "rare": 10 + generator.normal(size=20)})
    assert len(calibration.curve("busy").scores) <= KNOTS
    assert calibration.curve("rare") is calibration.curve("never seen") is calibration.everywhere
    assert calibration.curve("busy") is not calibration.everywhere


def test_pooled_is_one_curve_of_all_rows() -> None:
    generator = np.random.default_rng(7)
    scores = {"calm": generator.normal(size=1_000), "wild": 3 * generator.normal(size=1_000)}
    pooled = Calibration.fit(scores, pooled=True)
    assert pooled.pooled
    assert not Calibration.fit(scores).pooled
    assert pooled.curve("calm") is pooled.curve("wild") is pooled.everywhere
    assert pooled.everywhere.rows == 2_000
    assert Calibration.from_json(pooled.to_json()).pooled


def test_rounding_is_no_step() -> None:
    scores = np.concatenate([np.zeros(500), np.full(500, 1e-17), np.arange(10.0)])
    curve = Curve.fit(scores)
    assert curve.surprise(np.array([1e-17]))[0] == pytest.approx(curve.surprise(np.array([0.0]))[0], abs=1e-9)


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf]])
def test_nothing_to_calibrate_on_is_refused(scores: list[float]) -> None:
    with pytest.raises(DataError, match="held-out"):
        Curve.fit(np.asarray(scores, np.float64))
