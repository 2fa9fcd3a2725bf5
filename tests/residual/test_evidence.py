"""Evidence in noise units: of one residual, of many small ones; what is usual is no alarm, what is far always one."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest

from ocad.detection.units import ALARM
from ocad_residual.config import EvidenceSettings
from ocad_residual.evidence import Evidence, Normal, normal_span, robust_deviation

SETTINGS = EvidenceSettings()
UNIT = Normal(low=-9.0, high=9.0, centre=0.0, scale=1.0, smooth=1 / 3)
"""A standard normal residual; with the smoothing 0.2 its average has a deviation of a third."""
WIDE = (-1e9, 1e9)


def test_normal_is_measured_robustly() -> None:
    random = np.random.default_rng(1)
    residuals = random.normal(5.0, 2.0, 20_000)
    residuals[::50] = 1e6  # 2 % of wild values
    normal = Normal.fit(WIDE, residuals, False, SETTINGS)
    assert normal.centre == pytest.approx(5.0, abs=0.1)
    assert normal.scale == pytest.approx(2.0, rel=0.05)
    assert normal.smooth == pytest.approx(1 / 3, rel=0.25)
    assert Normal.from_json(normal.to_json()) == normal


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], 1.0), ([3.0], 1.0), ([0.0, 0.0, 0.0, 9.0], 9 / 4), ([1.0, -1.0], 1.4826)],
)
def test_a_deviation_is_never_zero(values: list[float], expected: float) -> None:
    centre = 3.0 if values == [3.0] else 0.0
    assert robust_deviation(np.asarray(values), centre) == pytest.approx(expected)


def test_an_average_that_dies_away_is_no_scale() -> None:
    residuals = np.zeros(5_000)
    residuals[:300] = np.random.default_rng(1).normal(0, 1, 300)
    with np.errstate(all="raise", under="ignore"):
        normal = Normal.fit(WIDE, residuals, False, SETTINGS)
    assert normal.smooth >= SETTINGS.smoothing
    assert 0 < normal.together <= 8 / 5.7


def test_no_residual_at_all() -> None:
    normal = Normal.fit(WIDE, np.empty(0), False, SETTINGS)
    assert (normal.centre, normal.scale, normal.smooth) == (0.0, 1.0, 1.0)
    assert (normal.alone, normal.together) == (1.0, 1.0)


def test_the_normal_span() -> None:
    values = np.r_[np.arange(101.0), np.nan]
    assert normal_span(values, 0.98) == pytest.approx((1.0, 99.0))
    assert normal_span(values, 1.0) == (0.0, 100.0)
    assert (
        normal_span(values, None) == normal_span(np.array([np.nan]), 0.98) == (-sys.float_info.max, sys.float_info.max)
    )


def test_one_residual_counts_by_its_size() -> None:
    for residual in (7.0, -7.0, 700.0):
        assert Evidence(UNIT, SETTINGS).step(residual) == abs(residual)


def test_many_small_residuals_add_up() -> None:
    evidence = Evidence(UNIT, SETTINGS)
    found = [evidence.step(1.5) for _ in range(30)]
    assert found[0] == 1.5
    assert found[-1] == pytest.approx(4.5, rel=0.01)
    alternating = Evidence(UNIT, SETTINGS)
    assert max(alternating.step(1.5 * (-1) ** row) for row in range(30)) == 1.5


def test_a_wild_residual_enters_the_average_bounded() -> None:
    evidence = Evidence(UNIT, SETTINGS)
    evidence.step(1e12)
    assert evidence.average == pytest.approx(0.2 * 8.0)


def test_a_lost_value_leaves_the_average_and_adds_nothing() -> None:
    """Lost rows are evidence of the base class, `ocad.detection.loss`, not of the residuals."""
    evidence = Evidence(UNIT, SETTINGS)
    before = [evidence.step(2.0) for _ in range(5)][-1]
    average = evidence.average
    assert [evidence.step(math.nan) for _ in range(10)] == [pytest.approx(3 * average)] * 10
    assert before == pytest.approx(3 * average)
    assert evidence.average == average


def test_of_a_delay_only_what_is_above_its_forecast_counts() -> None:
    upward = dataclasses.replace(UNIT, upward=1.0)
    low, high = Evidence(upward, SETTINGS), Evidence(upward, SETTINGS)
    assert [low.step(-9.0) for _ in range(10)] == [0.0] * 10
    assert high.step(9.0) == 9.0


@pytest.mark.parametrize("tail", ["normal", "heavy"])
def test_the_largest_of_a_usual_block_is_no_alarm_and_far_ones_are_never_scored_lower(tail: str) -> None:
    random = np.random.default_rng(4)
    residuals = random.normal(size=20_000) if tail == "normal" else random.standard_t(2.2, 20_000)
    normal = Normal.fit(WIDE, residuals, False, SETTINGS)
    evidence = Evidence(normal, SETTINGS)
    scores = np.array([evidence.step(residual) for residual in residuals.tolist()])
    assert np.median([block.max() for block in np.array_split(scores, 20)]) < ALARM
    far = []
    for size in (8.0, 20.0, 100.0, 1e6):
        evidence.forget()
        far.append(evidence.step(normal.centre + size * normal.scale / normal.alone))
    assert far == sorted(far)
    assert far[0] >= ALARM - 1e-9


def test_a_row_without_forecast_is_no_evidence() -> None:
    evidence = Evidence(UNIT, SETTINGS)
    assert evidence.step(math.nan) == 0.0


def test_forgetting() -> None:
    evidence = Evidence(UNIT, SETTINGS)
    evidence.step(5.0)
    assert evidence.step(math.nan) > 0
    evidence.forget()
    assert evidence.step(math.nan) == 0.0
