"""Evidence in standard deviations: of one residual, of many small ones, and of lost values."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from ocad_residual.config import EvidenceSettings
from ocad_residual.evidence import Evidence, Normal, normal_span, robust_deviation

SETTINGS = EvidenceSettings()
UNIT = Normal(low=-9.0, high=9.0, centre=0.0, scale=1.0, smooth=1 / 3, loss=0.01)
"""A standard normal residual; with the smoothing 0.2 its average has a deviation of a third."""
WIDE = (-1e9, 1e9)


def test_normal_is_measured_robustly() -> None:
    random = np.random.default_rng(1)
    residuals = random.normal(5.0, 2.0, 20_000)
    residuals[::50] = 1e6  # 2 % of wild values
    normal = Normal.fit(WIDE, residuals, 199, SETTINGS)
    assert normal.centre == pytest.approx(5.0, abs=0.1)
    assert normal.scale == pytest.approx(2.0, rel=0.05)
    assert normal.smooth == pytest.approx(1 / 3, rel=0.25)
    assert normal.loss == pytest.approx(200 / 20_201)
    assert Normal.from_json(normal.to_json()) == normal


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], 1.0), ([3.0], 1.0), ([0.0, 0.0, 0.0, 9.0], np.std([0, 0, 0, 9])), ([1.0, -1.0], 1.4826)],
)
def test_a_deviation_is_never_zero(values: list[float], expected: float) -> None:
    centre = 3.0 if values == [3.0] else 0.0
    assert robust_deviation(np.asarray(values), centre) == pytest.approx(expected)


def test_no_residual_at_all() -> None:
    normal = Normal.fit(WIDE, np.empty(0), 0, SETTINGS)
    assert (normal.centre, normal.scale, normal.smooth, normal.loss) == (0.0, 1.0, 1.0, 0.5)


def test_the_normal_span() -> None:
    values = np.r_[np.arange(101.0), np.nan]
    assert normal_span(values, 0.98) == pytest.approx((1.0, 99.0))
    assert normal_span(values, 1.0) == (0.0, 100.0)
    assert (
        normal_span(values, None) == normal_span(np.array([np.nan]), 0.98) == (-sys.float_info.max, sys.float_info.max)
    )


def test_one_residual_counts_by_its_size() -> None:
    for residual in (7.0, -7.0, 700.0):
        assert Evidence(UNIT, SETTINGS).step(residual, False) == abs(residual)


def test_many_small_residuals_add_up() -> None:
    evidence = Evidence(UNIT, SETTINGS)
    found = [evidence.step(1.5, False) for _ in range(30)]
    assert found[0] == 1.5
    assert found[-1] == pytest.approx(4.5, rel=0.01)
    alternating = Evidence(UNIT, SETTINGS)
    assert max(alternating.step(1.5 * (-1) ** row, False) for row in range(30)) == 1.5


def test_a_wild_residual_enters_the_average_bounded() -> None:
    evidence = Evidence(UNIT, SETTINGS)
    evidence.step(1e12, False)
    assert evidence.average == pytest.approx(0.2 * 8.0)


def test_lost_values_count_as_what_chance_makes_of_them() -> None:
    evidence = Evidence(UNIT, EvidenceSettings(loss_memory=0.0))
    found = evidence.step(math.nan, True)
    # two-sided tail of a normal distribution at `found`, against the loss rate: same order of magnitude
    assert -math.log10(math.erfc(found / math.sqrt(2))) == pytest.approx(2.0, abs=0.7)
    fading = Evidence(UNIT, SETTINGS)
    run = [fading.step(math.nan, True) for _ in range(10)]
    assert run == sorted(run)
    assert run[0] == pytest.approx(found)
    assert run[-1] > 7


def test_scattered_loss_counts_as_a_run_does_and_fades() -> None:
    evidence = Evidence(UNIT, SETTINGS)
    for row in range(60):
        found = evidence.step(math.nan if row % 3 == 0 else 0.0, row % 3 == 0)
    assert found > 4.5
    for _ in range(60):
        found = evidence.step(0.0, False)
    assert found < 0.5


def test_a_row_without_forecast_is_no_evidence() -> None:
    evidence = Evidence(UNIT, SETTINGS)
    assert evidence.step(math.nan, False) == 0.0


def test_forgetting() -> None:
    evidence = Evidence(UNIT, SETTINGS)
    evidence.step(5.0, False)
    evidence.step(math.nan, True)
    evidence.forget()
    assert evidence.step(math.nan, False) == 0.0
