"""What is normal: median and robust deviation by endpoint and hour of the day, and of the differences, fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.detector import Series
from ocad_rule_based.config import LevelRule

Floats = NDArray[np.float64]

HOURS = 24
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
_MAD_TO_SIGMA = 1.4826
"""Of a normal distribution the standard deviation is this many median absolute deviations."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The normal of one endpoint: `median` and `sigma` `(24, m)` by hour of the day, `jump` `(m,)` of the differences."""

    median: Floats
    sigma: Floats
    jump: Floats

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values, hours that are as the first left out."""
        rows = np.concatenate([self.median, self.sigma], axis=1)
        own = {str(hour): rows[hour].tolist() for hour in range(HOURS) if (rows[hour] != rows[0]).any()}
        return {"all": rows[0].tolist(), "hours": own, "jump": self.jump.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Levels:
        """The levels that `to_json` wrote."""
        rows = np.array([value["hours"].get(str(hour), value["all"]) for hour in range(HOURS)], np.float64)
        metrics = rows.shape[1] // 2
        return cls(rows[:, :metrics], rows[:, metrics:], np.asarray(value["jump"], np.float64))


def fit_levels(series: Sequence[Series], rule: LevelRule) -> tuple[Levels, dict[str, Levels]]:
    """The levels of all rows together, and of each endpoint that has enough of them."""
    values = np.concatenate([part.values for part in series])
    differences = [np.diff(part.values, axis=0) for part in series]
    median, sigma = _robust(values, rule.floor)
    jump = _robust_jump(np.concatenate(differences), sigma)
    everywhere = Levels(np.tile(median, (HOURS, 1)), np.tile(sigma, (HOURS, 1)), jump)
    own = {
        part.endpoint: _endpoint_levels(part, difference, rule)
        for part, difference in zip(series, differences, strict=True)
        if np.isfinite(part.values).sum(axis=0).min() >= rule.endpoint_rows
    }
    return everywhere, own


def _endpoint_levels(part: Series, difference: Floats, rule: LevelRule) -> Levels:
    median, sigma = _robust(part.values, rule.floor)
    by_hour = Levels(np.tile(median, (HOURS, 1)), np.tile(sigma, (HOURS, 1)), _robust_jump(difference, sigma))
    hour, day = part.times // HOUR_US % HOURS, part.times // DAY_US
    for number in range(HOURS):
        rows = hour == number
        enough = np.isfinite(part.values[rows]).sum(axis=0).min() >= rule.hour_rows if rows.any() else False
        if enough and len(np.unique(day[rows])) >= rule.hour_days:
            by_hour.median[number], by_hour.sigma[number] = _robust(part.values[rows], rule.floor)
    return by_hour


def _robust(values: Floats, floor: float) -> tuple[Floats, Floats]:
    """Median and robust deviation `(m,)` of each column of `values` `(n, m)`, NaN left out; no deviation is zero."""
    medians, sigmas = [], []
    for column in values.T:
        present = column[np.isfinite(column)]
        if len(present) == 0:
            medians.append(0.0)
            sigmas.append(1.0)
            continue
        median = float(np.median(present))
        sigma = _MAD_TO_SIGMA * float(np.median(np.abs(present - median)))
        sigma = max(sigma or float(np.std(present)), floor * abs(median))
        medians.append(median)
        sigmas.append(sigma or 1.0)
    return np.asarray(medians), np.asarray(sigmas)


def _robust_jump(differences: Floats, sigma: Floats) -> Floats:
    """Robust deviation `(m,)` of the differences `(n, m)` around 0, a tenth of the level's `sigma` at least."""
    jumps = []
    for column, least in zip(differences.T, sigma, strict=True):
        present = np.abs(column[np.isfinite(column)])
        usual = _MAD_TO_SIGMA * float(np.median(present)) if len(present) else float(least)
        jumps.append(max(usual, float(least) / 10))
    return np.asarray(jumps)
