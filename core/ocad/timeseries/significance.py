"""Skill over a baseline with an interval that respects the dependence of neighbouring errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FLOOR = 1e-12
"""Sums of squared standardised errors below this are rounding: two forecasts without error have a skill of 0."""


@dataclass(frozen=True, slots=True)
class Skill:
    """`1 - mse / baseline mse`: above 0 is better than the baseline; `low` and `high` bound it with 95 % confidence."""

    value: float
    low: float
    high: float


def bootstrap_skill(
    errors: NDArray[np.float64], baseline_errors: NDArray[np.float64], *, seed: int, resamples: int = 2000
) -> Skill:
    """The skill of forecasts with squared standardised `errors` `(n,)` over `baseline_errors` on the same rows, in time order.

    The interval is a percentile bootstrap over about sqrt(n) blocks of neighbouring rows (Künsch 1989; Carlstein 1986
    for blocks that do not overlap).
    """
    length = max(1, round(len(errors) ** 0.5))
    starts = np.arange(0, len(errors), length)
    sums = np.column_stack([np.add.reduceat(errors, starts), np.add.reduceat(baseline_errors, starts)])
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(starts), size=(resamples, len(starts)))
    low, high = np.quantile(_skill(sums[drawn].sum(axis=1)), (0.025, 0.975))
    return Skill(float(_skill(sums.sum(axis=0))), float(low), float(high))


def standard_error(differences: NDArray[np.float64]) -> float:
    """The standard error of the mean of `differences` `(n,)` in time order, from about sqrt(n) blocks of neighbours."""
    length = max(1, round(len(differences) ** 0.5))
    starts = np.arange(0, len(differences), length)
    sums = np.add.reduceat(differences - differences.mean(), starts)
    return float(np.sqrt((sums**2).sum()) / len(differences))


def _skill(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    floored = np.maximum(totals, _FLOOR)
    return np.asarray(1.0 - floored[..., 0] / floored[..., 1])
