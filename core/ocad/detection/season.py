"""The rhythm of the day: what a metric usually does at each hour (UTC), where that explains enough of it to be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KNOTS = 24
_DAY_US = 86_400_000_000
_KNOT_US = _DAY_US // KNOTS
_LEAST_DAYS = 2
_LEAST_ROWS = 4
"""Rows in each hour of a day that a day must have in most hours to count."""
_MOST_HOURS = 20
_GAIN = 0.9
"""What the rhythm of some days must leave at most of the other days' deviations."""
_SMOOTH = (0.25, 0.5, 0.25)


@dataclass(frozen=True, slots=True)
class Season:
    """Deviation from the day's median at the middle of each hour, straight lines between."""

    knots: Sequence[float]

    @classmethod
    def fit(cls, times: NDArray[np.int64], values: Floats) -> Self | None:
        """From one metric's fitted rows `(n,)`, `times` in µs; None unless days foretell each other."""
        table = _by_day_and_hour(times, values)
        if len(table) < _LEAST_DAYS:
            return None
        some, others = _medians(table[::2]), _medians(table[1::2])
        left = []
        for smooth in (_smooth, np.nan_to_num):
            rest = np.concatenate([table[1::2] - smooth(some), table[::2] - smooth(others)])
            left.append((float(np.nanmean(np.abs(rest))), smooth))
        least, smooth = min(left, key=itemgetter(0))
        before = float(np.nanmean(np.abs(table)))
        if not np.isfinite(before) or least > _GAIN * before:
            return None
        return cls(smooth(_medians(table)).tolist())

    def at(self, times: NDArray[np.int64]) -> Floats:
        """The usual deviation `(n,)` at `times` `(n,)` in µs."""
        place = (times - _KNOT_US // 2) % _DAY_US
        knot, share = place // _KNOT_US, place % _KNOT_US / _KNOT_US
        knots = np.asarray(self.knots)
        left, right = knots[knot], knots[(knot + 1) % KNOTS]
        return np.asarray(left + (right - left) * share)

    def at_point(self, time_us: int) -> float:
        """The same for one time."""
        place = (time_us - _KNOT_US // 2) % _DAY_US
        knot, share = place // _KNOT_US, place % _KNOT_US / _KNOT_US
        left, right = self.knots[knot], self.knots[(knot + 1) % KNOTS]
        return left + (right - left) * share

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {"knots": list(self.knots)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        return cls([float(knot) for knot in value["knots"]])


def _by_day_and_hour(times: NDArray[np.int64], values: Floats) -> Floats:
    """Each whole day's `(d, 24)` hourly medians, less the day's own; NaN for an hour of few rows."""
    known = np.isfinite(values)
    hours = times[known] // _KNOT_US
    if len(hours) == 0 or hours[-1] - hours[0] < (_LEAST_DAYS - 1) * KNOTS:
        return np.empty((0, KNOTS))
    starts = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1))
    medians = [
        float(np.median(part)) if len(part) >= _LEAST_ROWS else np.nan for part in np.split(values[known], starts[1:])
    ]
    days, hour = np.divmod(hours[starts], KNOTS)
    table = np.full((int(days[-1] - days[0]) + 1, KNOTS), np.nan)
    table[days - days[0], hour] = medians
    table = table[np.isfinite(table).sum(axis=1) >= _MOST_HOURS]
    return np.asarray(table - np.nanmedian(table, axis=1, keepdims=True)) if len(table) else table


def _medians(days: Floats) -> Floats:
    """The median `(24,)` of each hour of `days` `(d, 24)`, NaN for one that no day has rows in, as at night."""
    found = np.full(KNOTS, np.nan)
    some = np.isfinite(days).any(axis=0)
    found[some] = np.nanmedian(days[:, some], axis=0)
    return found


def _smooth(knots: Floats) -> Floats:
    """A moving average around the clock; an hour without rows is as its day."""
    filled = np.nan_to_num(knots)
    return _SMOOTH[0] * np.roll(filled, 1) + _SMOOTH[1] * filled + _SMOOTH[2] * np.roll(filled, -1)
