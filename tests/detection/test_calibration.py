"""Calibration: a linear unit that hides nothing, and how rare a score is: never falling, rising without bound."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ocad.detection.calibration import KNOTS, Calibration, Curve
from ocad.detection.units import ALARM
from ocad.errors import DataError

SCORES = arrays(np.float64, st.integers(1, 400), elements=st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 2.0]))
ASKED = arrays(np.float64, 50, elements=st.floats(-1e7, 1e7))


@settings(deadline=None)
@given(SCORES, ASKED)
def test_never_falls_and_has_an_inverse(scores: np.ndarray, asked: np.ndarray) -> None:
    curve = Curve.fit(scores)
    asked = np.sort(np.concatenate([asked, scores[:50]]))
    surprise = curve.surprise(asked)
    assert np.isfinite(surprise).all()
    assert (surprise >= 0).all()
    assert (np.diff(surprise) >= -1e-9).all()
    for wanted in (0.5, 1.0, 2.0, 4.0):
        level = curve.score_of(wanted)
        step = 1e-6 * max(1.0, abs(level), curve.scale)
        assert curve.surprise(np.array([level - step]))[0] <= wanted + 1e-6
        assert curve.surprise(np.array([level + step]))[0] >= min(wanted, curve.surprises[-1]) - 1e-6


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
    calibration = Calibration.fit({"a": (scores, None)}, in_noise_units=False)
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
    raw = {"busy": (generator.normal(size=5_000), None), "rare": (10 + generator.normal(size=20), None)}
    calibration = Calibration.fit(raw, in_noise_units=False)
    assert set(calibration.endpoints) == set(calibration.scales) == {"busy"}
    assert len(calibration.endpoints["busy"].scores) <= KNOTS
    asked = np.linspace(-3, 30, 9)
    assert (calibration.surprise("rare", asked) == calibration.everywhere.surprise(asked)).all()
    assert (calibration.score("rare", asked) == calibration.score("never seen", asked)).all()


def test_pooled_is_one_calibration_of_all_rows() -> None:
    generator = np.random.default_rng(7)
    raw = {"calm": (generator.normal(size=1_000), None), "wild": (3 * generator.normal(size=1_000), None)}
    pooled = Calibration.fit(raw, pooled=True, in_noise_units=False)
    assert pooled.pooled
    assert not Calibration.fit(raw).pooled
    assert pooled.everywhere.rows == 2_000
    assert Calibration.from_json(pooled.to_json()) == pooled


@settings(deadline=None)
@given(SCORES, ASKED, st.floats(1e-3, 1e9) | st.just(np.inf))
def test_the_unit_hides_no_incident(scores: np.ndarray, asked: np.ndarray, above: float) -> None:
    """More is never scored lower, and the highest score that is possible is an alarm."""
    ceiling = float(np.median(scores)) + above
    calibration = Calibration.fit({"a": (scores, None)}, in_noise_units=False, ceiling=ceiling)
    found = calibration.score("a", np.sort(asked))
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    if np.isfinite(ceiling):
        assert calibration.units_point("a", ceiling) >= ALARM


def test_incidents_among_held_out_rows_do_not_move_the_unit() -> None:
    """A tenth of the rows in five incidents ten times as far out as all others: the unit is as without them."""
    generator = np.random.default_rng(8)
    raw = np.abs(generator.normal(size=4_000))
    hit = raw.copy()
    for first in range(300, 4_000, 800):
        hit[first : first + 80] += 40.0
    clean, contaminated = (Calibration.fit({"a": (rows, None)}, in_noise_units=False) for rows in (raw, hit))
    assert contaminated.units_point("a", 40.0) > 0.7 * clean.units_point("a", 40.0) > ALARM


def test_lost_rows_count_beside_raw_scores() -> None:
    calibration = Calibration.fit({"a": (np.linspace(0, 3, 500), None)})
    lost = np.array([0.0, 20.0, 1.0])
    assert calibration.score("a", np.array([1.0, 1.0, 2.0]), lost).tolist() == [1.0, 20.0, 2.0]


def test_rounding_is_no_step() -> None:
    scores = np.concatenate([np.zeros(500), np.full(500, 1e-17), np.arange(10.0)])
    curve = Curve.fit(scores)
    assert curve.surprise(np.array([1e-17]))[0] == pytest.approx(curve.surprise(np.array([0.0]))[0], abs=1e-9)


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf]])
def test_nothing_to_calibrate_on_is_refused(scores: list[float]) -> None:
    with pytest.raises(DataError, match="held-out"):
        Curve.fit(np.asarray(scores, np.float64))
