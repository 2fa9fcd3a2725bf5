"""Two methods on the same links: F1 with an interval, and their difference with one; never two numbers side by side.

A percentile bootstrap over links (Efron and Tibshirani 1993): the rows of one link depend on each other, links do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocad.detection.events import EventCounts
from ocad.errors import UsageError

RESAMPLES = 2000
_BOUNDS = (0.025, 0.975)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"

    @property
    def verdict(self) -> str:
        """Of a difference: `better` or `worse` when the interval says so, else `not shown better`."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not shown better"


def event_f1(links: Sequence[EventCounts], seed: int = 7) -> Estimate:
    """F1 of the summed counts of `links`, its interval over resampled links."""
    table = _table(links)
    return _estimate(float(_f1(table.sum(axis=0))), _f1(table[_drawn(len(links), seed)].sum(axis=1)))


def f1_difference(links: Sequence[EventCounts], others: Sequence[EventCounts], seed: int = 7) -> Estimate:
    """F1 of `links` less that of `others`, the same links in the same order, drawn together."""
    if len(links) != len(others):
        raise UsageError(f"{len(links)} links cannot be paired with {len(others)}", "score both on the same links")
    drawn = _drawn(len(links), seed)
    mine, theirs = _table(links), _table(others)
    spread = _f1(mine[drawn].sum(axis=1)) - _f1(theirs[drawn].sum(axis=1))
    return _estimate(float(_f1(mine.sum(axis=0)) - _f1(theirs.sum(axis=0))), spread)


def mean(values: Sequence[float], seed: int = 7) -> Estimate:
    """The mean of `values`, one for each link or series."""
    table = np.asarray(values, np.float64)
    return _estimate(float(table.mean()), table[_drawn(len(table), seed)].mean(axis=1))


def mean_difference(values: Sequence[float], others: Sequence[float], seed: int = 7) -> Estimate:
    """The mean of the differences of `values` and `others`, paired."""
    return mean((np.asarray(values, np.float64) - np.asarray(others, np.float64)).tolist(), seed)


def _table(links: Sequence[EventCounts]) -> Floats:
    """Right, wrong, found, missed of each link `(links, 4)`."""
    if not links:
        raise UsageError("there is no link to score", "give data with at least one")
    return np.array([(one.right, one.wrong, one.found, one.missed) for one in links], np.float64)


def _f1(sums: Floats) -> Floats:
    """F1 `(...)` of sums `(..., 4)`; 0 where nothing is right or found."""
    right, wrong, found, missed = np.moveaxis(sums, -1, 0)
    precision = right / np.maximum(right + wrong, 1)
    recall = found / np.maximum(found + missed, 1)
    return np.asarray(2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny))


def _drawn(links: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, links, size=(RESAMPLES, links))


def _estimate(value: float, spread: Floats) -> Estimate:
    low, high = np.quantile(spread, _BOUNDS)
    return Estimate(value, float(low), float(high))
