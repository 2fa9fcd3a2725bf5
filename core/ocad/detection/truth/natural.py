"""Natural events of a link, found with both sides of time: what an alert may rightly tell of though nobody injected it.

No detector may use this: it looks ahead. It is the referee's rule, fixed here and described in the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ocad.detection.events import Interval
from ocad.detection.inject import smallest_step
from ocad.detection.units import TO_SIGMA

HALF = 100
"""Rows before and after a row that say what is normal around it."""
SIGMAS = 6.0
"""Units of local robust noise from which a deviation, or a step, is an event."""
SUSTAINED_ROWS = 3
"""Deviating rows from which an event is sustained; fewer are spikes."""
JOINED = 10
"""Deviating rows at most this far apart belong to one event."""
SIDE = 30
"""Rows on each side whose medians are compared for a lasting step."""
TAIL = 0.999
"""The quantile of natural deviations above which an injected spike can be told from them."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class NaturalEvents:
    """The events of one link by their rows."""

    sustained: tuple[Interval, ...]
    spikes: tuple[Interval, ...]

    @property
    def all(self) -> tuple[Interval, ...]:
        """Both, in time order."""
        return tuple(sorted((*self.sustained, *self.spikes), key=lambda event: event.start))

    def since(self, row: int) -> NaturalEvents:
        """Those that end at or after `row`, counted from it; one that has begun before begins at a row below 0."""
        sustained, spikes = (
            tuple(Interval(one.start - row, one.end - row, one.spike) for one in events if one.end >= row)
            for events in (self.sustained, self.spikes)
        )
        return NaturalEvents(sustained, spikes)

    def rows(self, length: int, margin: int = 0) -> Flags:
        """Whether each of `length` rows is in an event or at most `margin` rows from one."""
        return covered(self.all, length, margin)


def covered(events: tuple[Interval, ...], length: int, margin: int = 0) -> Flags:
    """Whether each of `length` rows is in one of `events` or at most `margin` rows from one."""
    inside = np.zeros(length, dtype=bool)
    for event in events:
        inside[max(event.start - margin, 0) : max(event.end + margin + 1, 0)] = True
    return inside


def surroundings(values: ArrayLike) -> tuple[Floats, Floats]:
    """Level and noise `(n,)` around each of `values` `(n,)` (NaN where lost), from 100 rows before to 100 after.

    The level is their median, the noise 1.4826 times the median of |value - level|; where that is 0, the smallest step
    between two values of the surroundings, then of the series, and infinity where all values are equal.
    """
    column = np.asarray(values, np.float64)
    level = _running_median(column)
    noise = TO_SIGMA * _running_median(np.abs(column - level))
    flat = ~(noise > 0)
    if flat.any():
        whole = smallest_step(column) or np.inf
        for first in range(0, len(column), HALF):
            rows = slice(first, first + HALF)
            if flat[rows].any():
                step = smallest_step(column[max(first - HALF, 0) : first + 2 * HALF]) or whole
                noise[rows] = np.where(flat[rows], step, noise[rows])
    return level, noise


def natural_events(values: ArrayLike) -> NaturalEvents:
    """The natural events of one link's `values` `(n,)` in time order, NaN where a row was lost.

    Exactly: with level and noise of `surroundings`,

    1. a row deviates if it is 6 noises or more away from its level, up or down; deviating rows at most 10 rows apart are one
       group; a group of at least 3 deviating rows is a sustained event from its first to its last row, of a smaller
       one each row is a spike;
    2. lost rows are grouped in the same way; a group of at least 3 is a sustained event, fewer are no event;
    3. a step is where the median of the 30 rows from a row on differs from that of the 30 rows before it by 6 noises or more,
       at the row of the largest difference among neighbouring such rows; it is a sustained event of 30 rows;
    4. sustained events that touch are one; spikes inside a sustained event are no spikes.
    """
    column = np.asarray(values, np.float64)
    level, noise = surroundings(column)
    with np.errstate(invalid="ignore"):
        deviating = np.abs(column - level) >= SIGMAS * noise
    groups = [group for mask in (deviating, np.isnan(column)) for group in _groups(mask)]
    found = [(int(rows[0]), int(rows[-1])) for rows in groups if len(rows) >= SUSTAINED_ROWS]
    found += [(row, min(row + SIDE, len(column)) - 1) for row in _steps(column, noise)]
    sustained = _merged(found)
    inside = covered(sustained, len(column))
    alone = [int(row) for rows in _groups(deviating) if len(rows) < SUSTAINED_ROWS for row in rows]
    return NaturalEvents(sustained, tuple(Interval(row, row, True) for row in alone if not inside[row]))


def natural_tails(values: ArrayLike, events: NaturalEvents, most: int = 3) -> dict[int, float]:
    """What a spike of 1 to `most` rows must exceed, by its rows: the .999 quantile of natural upward deviations, in local noises.

    Of each stretch of that many rows outside the sustained `events` the least deviation counts. Never negative; infinite
    where nothing was measured.
    """
    column = np.asarray(values, np.float64)
    level, noise = surroundings(column)
    deviations = pd.Series(np.where(covered(events.sustained, len(column)), np.nan, (column - level) / noise))
    tails = {}
    for rows in range(1, most + 1):
        least = deviations.rolling(rows).min().dropna()
        tails[rows] = max(float(least.quantile(TAIL)), 0.0) if len(least) else float("inf")
    return tails


def _running_median(column: Floats) -> Floats:
    """The median of the `HALF` rows before to `HALF` rows after each, NaN left out."""
    return np.array(pd.Series(column).rolling(2 * HALF + 1, center=True, min_periods=1).median(), np.float64)


def _groups(mask: Flags) -> list[NDArray[np.int64]]:
    """The rows of `mask` in groups of rows at most `JOINED` apart."""
    rows = np.flatnonzero(mask)
    return np.split(rows, np.flatnonzero(np.diff(rows) > JOINED) + 1) if len(rows) else []


def _steps(column: Floats, noise: Floats) -> list[int]:
    """The rows at which a new level begins."""
    series = pd.Series(column)
    before = series.rolling(SIDE, min_periods=SIDE // 2).median().shift(1).to_numpy()
    after = series[::-1].rolling(SIDE, min_periods=SIDE // 2).median()[::-1].to_numpy()
    size = np.nan_to_num(np.abs(after - before) / noise, nan=0.0)
    rows = np.flatnonzero(size >= SIGMAS)
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []
    return [int(part[size[part].argmax()]) for part in parts]


def _merged(found: list[tuple[int, int]]) -> tuple[Interval, ...]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return tuple(Interval(start, end) for start, end in merged)
