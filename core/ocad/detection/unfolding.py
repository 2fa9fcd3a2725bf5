"""An incident that is not over: its rows thinned to what memory allows, its extremes and losses counted over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.kinds import RARE, Baseline, Tally, ends_of, lost_rows
from ocad.detection.sums import run_lengths

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Row = tuple[int, Sequence[float], float, bool, Sequence[float]]
"""Time in µs, values, score, whether it is hot, surprises."""

MOST_ROWS = 512
"""Rows of an open incident that are kept; beyond them every second one is dropped."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one endpoint in time order and what the detectors said of them."""

    times: NDArray[np.int64]
    """`(r,)` in µs since 1970, like `scores` and `hot` (whether the row is evidence itself)."""
    values: Floats
    """`(r, m)`."""
    scores: Floats
    hot: Flags
    surprises: Floats
    """`(r, k)`."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """From at least one row."""
        times, values, scores, hot, surprises = zip(*rows, strict=True)
        return cls(
            np.array(times, np.int64),
            np.array(values, np.float64),
            np.array(scores, np.float64),
            np.array(hot, np.bool_),
            np.array(surprises, np.float64),
        )

    def __len__(self) -> int:
        return len(self.times)

    def part(self, start: int, end: int) -> Self:
        """The rows from `start` to before `end`."""
        of = slice(start, end)
        return type(self)(self.times[of], self.values[of], self.scores[of], self.hot[of], self.surprises[of])

    def listed(self) -> Iterator[Row]:
        """One after the other."""
        columns = (self.times, self.values, self.scores, self.hot, self.surprises)
        return zip(*(column.tolist() for column in columns), strict=True)


class Unfolding:
    """An open incident that began at `start_us`, against what was normal `before` it, by metric; at least one row is added.

    Detectors remember: some still score high when a link has long been normal again. So the rows that tell the incident
    end where those with a metric out of its normal range get rare; losses are counted up to there.
    """

    def __init__(self, start_us: int, units: Sequence[str], before: Sequence[Baseline], members: int) -> None:
        self.start_us = self.last_us = start_us
        self.before = before
        """Not part of the state: the quiet rows say it again."""
        self.score = -math.inf
        self.surprises = [-math.inf] * members
        self.count = 0
        self._units = tuple(units)
        width = len(units)
        self._hot_rows = 0
        """The rows up to the last hot one."""
        self._excess = self._most = self._told = 0
        """Percent of rows out of range beyond `RARE`, summed up; its maximum so far; the rows up to there."""
        self._lost, self._lost_told = np.zeros(width), np.zeros(width)
        self._run, self._longest = np.zeros(width, np.int64), np.zeros(width, np.int64)
        self._ends = [[math.nan, math.nan] for _ in units]
        self._ends_us = [[0, 0] for _ in units]
        self._rows: list[list[float]] = []
        self._stride = 1

    def add(self, rows: Rows) -> None:
        """More rows, all of which are in alarm or led to it."""
        self.last_us, self.score = int(rows.times[-1]), max(self.score, float(rows.scores.max()))
        self.surprises = np.maximum(self.surprises, rows.surprises.max(axis=0)).tolist()
        for column in range(len(self._units)):
            self._stretch(column, rows.values[:, column], rows.times)
        self._count(rows.values)
        self._keep(rows.values[-self.count % self._stride :: self._stride].tolist())
        if rows.hot.any():
            self._hot_rows = self.count + int(np.flatnonzero(rows.hot)[-1]) + 1
        self.count += len(rows)

    def telling(self) -> Floats:
        """The kept rows `(r, m)` that tell the incident; those up to the last hot one where none is out of range."""
        rows = self._told or self._hot_rows or self.count
        return np.array(self._rows[: -(-rows // self._stride)], np.float64)

    def tallies(self) -> list[Tally]:
        """What is counted of each metric over all rows that tell the incident."""
        rows, lost = (self._told, self._lost_told) if self._told else (self.count, self._lost)
        return [
            Tally(rows, float(lost[column]), int(self._longest[column]), low, low_us, high, high_us)
            for column, ((low, high), (low_us, high_us)) in enumerate(zip(self._ends, self._ends_us, strict=True))
        ]

    def state(self) -> dict[str, Any]:
        """What `from_state` needs to go on, as JSON-able values."""
        return {
            "start_us": self.start_us,
            "last_us": self.last_us,
            "score": self.score,
            "surprises": list(self.surprises),
            "count": self.count,
            "hot_rows": self._hot_rows,
            "excess": [self._excess, self._most, self._told],
            "lost": [self._lost.tolist(), self._lost_told.tolist()],
            "runs": [self._run.tolist(), self._longest.tolist()],
            "ends": [nullable(pair) for pair in self._ends],
            "ends_us": self._ends_us,
            "stride": self._stride,
            "rows": [nullable(row) for row in self._rows],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], units: Sequence[str], before: Sequence[Baseline]) -> Self:
        """The incident whose `state` was kept."""
        current = cls(int(state["start_us"]), units, before, len(state["surprises"]))
        current.last_us, current.score = int(state["last_us"]), float(state["score"])
        current.surprises = as_numbers(state["surprises"])
        current.count, current._hot_rows = int(state["count"]), int(state["hot_rows"])
        current._excess, current._most, current._told = map(int, state["excess"])
        current._lost, current._lost_told = (np.array(one, np.float64) for one in state["lost"])
        current._run, current._longest = (np.array(one, np.int64) for one in state["runs"])
        current._ends = [as_numbers(pair) for pair in state["ends"]]
        current._ends_us = [[int(first), int(last)] for first, last in state["ends_us"]]
        current._stride = int(state["stride"])
        current._rows = [as_numbers(row) for row in state["rows"]]
        return current

    def _count(self, values: Floats) -> None:
        """Sums up losses, the longest stretch of them, and how many rows are out of range; sums are those of single rows."""
        lost = np.column_stack([lost_rows(values[:, column], unit) for column, unit in enumerate(self._units)])
        sums = np.add.accumulate(np.vstack([self._lost, lost]))[1:]
        runs = run_lengths(lost >= 0.5, self._run)
        out = np.column_stack([before.beyond(values[:, column]) for column, before in enumerate(self.before)])
        excess = self._excess + np.cumsum(100 * out.any(axis=1) - RARE)
        place = int(excess.argmax())
        if excess[place] > self._most:
            self._most, self._told, self._lost_told = int(excess[place]), self.count + place + 1, sums[place]
        self._lost, self._run, self._excess = sums[-1], runs[-1], int(excess[-1])
        self._longest = np.maximum(self._longest, runs.max(axis=0))

    def _stretch(self, column: int, values: Floats, times: NDArray[np.int64]) -> None:
        """Moves the least and the largest value of a metric out to those of `values` `(r,)`."""
        (low, low_us, high, high_us), ends, ends_us = ends_of(values, times), self._ends[column], self._ends_us[column]
        if not low >= ends[0] and not math.isnan(low):
            ends[0], ends_us[0] = low, low_us
        if not high <= ends[1] and not math.isnan(high):
            ends[1], ends_us[1] = high, high_us

    def _keep(self, rows: list[list[float]]) -> None:
        self._rows += rows
        while len(self._rows) > MOST_ROWS:
            del self._rows[1::2]
            self._stride *= 2


def nullable(row: Sequence[float]) -> list[float | None]:
    """JSON has no NaN."""
    return [None if math.isnan(value) else value for value in row]


def as_numbers(row: Sequence[float | None]) -> list[float]:
    """The inverse of `nullable`."""
    return [math.nan if value is None else float(value) for value in row]
