"""The score of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015), and one of its published detectors to check it with.

A detection inside a labelled window earns the more the earlier it comes, later ones in the same window nothing; a window
without any costs 1; a false alarm costs the more the farther it is past the last window. The first 15 % of a series (750
rows at most) count nothing. Sums over the corpus are put on a scale where no detections are 0 and perfect ones 100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

PROBATION, PROBATION_ROWS = 0.15, 750
FAR_PAST = 3.0
"""Window widths past the window from which a false alarm costs in full."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a false alarm and a missed window cost; a detection earns at most 1."""

    false_alarm: float = 0.11
    missed: float = 1.0


PROFILES = {"standard": Profile(), "reward low FP": Profile(false_alarm=0.22), "reward low FN": Profile(missed=2.0)}
STANDARD = PROFILES["standard"]


@dataclass(frozen=True, slots=True)
class NabSeries:
    """One file: its `values` `(n,)`, the labelled `windows` as first and last row, and the rows that do not count."""

    name: str
    values: Floats
    windows: tuple[tuple[int, int], ...]
    probation: int

    @classmethod
    def of(cls, name: str, values: Floats, labels: NDArray[np.int64]) -> NabSeries:
        """From `values` and 0/1 `labels` `(n,)`; each run of 1 is a window."""
        edges = np.flatnonzero(np.diff(labels, prepend=0, append=0))
        windows = tuple((int(first), int(end) - 1) for first, end in edges.reshape(-1, 2))
        probation = min(math.floor(PROBATION * len(values)), PROBATION_ROWS)
        return cls(name, values, windows, probation)

    def worth(self) -> Floats:
        """What a detection in each row is worth `(n,)`: up to 1 within a window, -1 to 0 outside."""
        worth = np.full(len(self.values), -1.0)
        for place, (first, last) in enumerate(self.windows):
            width = last - first + 1
            inside = np.arange(first, last + 1)
            worth[inside] = _sigmoid((inside - last - 1) / width) / _sigmoid(np.array(-1.0))
            end = self.windows[place + 1][0] if place + 1 < len(self.windows) else len(worth)
            past = np.arange(last + 1, end)
            relative = (past - last) / (width - 1)
            worth[past] = np.where(relative >= FAR_PAST, -1.0, _sigmoid(relative))
        return worth


def read_corpus(path: Path) -> list[NabSeries]:
    """The files of the corpus in the order of the table, which has `file`, `value` and `label`; no row is left out."""
    table = pd.read_parquet(path)
    return [
        NabSeries.of(str(name), rows["value"].to_numpy(np.float64), rows["label"].to_numpy(np.int64))
        for name, rows in table.groupby("file", sort=False)
    ]


def score_series(series: NabSeries, detections: Flags, profile: Profile = STANDARD) -> float:
    """The score of one file for `detections` `(n,)`, not normalised."""
    counted = np.flatnonzero(detections)
    counted = counted[counted >= series.probation]
    worth, outside, total = series.worth(), np.ones(len(detections), dtype=bool), 0.0
    for first, last in series.windows:
        outside[first : last + 1] = False
        found = counted[(counted >= first) & (counted <= last)]
        total += float(worth[found[0]]) if len(found) else -profile.missed
    return total + profile.false_alarm * float(worth[counted[outside[counted]]].sum())


def normalised(total: float, corpus: Sequence[NabSeries], profile: Profile = STANDARD) -> float:
    """A sum over the corpus on the scale where no detections are 0 and perfect ones 100."""
    windows = sum(len(series.windows) for series in corpus)
    nothing = -profile.missed * windows
    return 100 * (total - nothing) / (windows - nothing)


def corpus_score(corpus: Sequence[NabSeries], detections: Sequence[Flags], profile: Profile = STANDARD) -> float:
    """The normalised score of the whole corpus."""
    total = sum(score_series(series, found, profile) for series, found in zip(corpus, detections, strict=True))
    return normalised(total, corpus, profile)


def windowed_gaussian(values: Floats, window: int = 6_400, step: int = 100) -> Floats:
    """NAB's own detector of that name: the tail probability under a normal distribution of the last `window` values.

    Its published result files have 12 digits, and so have these scores `(n,)`.
    """
    scores, mean, deviation = np.zeros(len(values)), 0.0, 1.0
    for row, value in enumerate(values.tolist()):
        scores[row] = 1 - 0.5 * math.erfc(abs(value - mean) / deviation / 1.4142)
        if row < window or (row + 1 - window) % step == 0:
            recent = values[max(0, row + 1 - window) : row + 1]
            mean, deviation = float(recent.mean()), float(recent.std()) or 1e-6
    scores[0] = 0.0
    return np.round(scores, 12)


def _sigmoid(position: Floats) -> Floats:
    """From 1 far before the window's end through 0 at it to -1 far past it; `position` in window widths."""
    return np.asarray(2 / (1 + np.exp(5 * position)) - 1, np.float64)
