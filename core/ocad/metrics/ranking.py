"""How well scores rank clicks above the rest: areas under curves, overall and within groups.

All of them sort once. Equal scores count as equal: each metric is the mean over every order of the tied rows, so the order
in which rows are stored never changes a figure (only step-wise `average_precision` takes tied rows as one threshold).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.errors import DataError
from ocad.metrics.rows import Floats, check_classes, check_labels, check_values, check_weights

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The weight of positives and negatives at or above each distinct score `(k,)`, from the highest score down."""

    score: Floats
    true_positives: Floats
    false_positives: Floats

    @classmethod
    def of(cls, label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> Thresholds:
        """The thresholds of `(n,)` rows; raises `DataError` on unusable rows or when all labels are of one class."""
        positive = check_labels(label)
        check_classes(positive)
        values = check_values("score", score, positive.size)
        weights = check_weights(weight, positive.size)
        order = np.argsort(-values)
        values, positive = values[order], positive[order]
        # the last row of each run of equal scores
        ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
        if weights is None:
            found = np.cumsum(positive)[ends].astype(np.float64)
            return cls(values[ends], found, ends + 1.0 - found)
        weights = weights[order]
        return cls(values[ends], np.cumsum(weights * positive)[ends], np.cumsum(weights * ~positive)[ends])

    @property
    def recall(self) -> Floats:
        """The share of positives at or above each score; also the true-positive rate."""
        share: Floats = self.true_positives / self.true_positives[-1]
        return share

    @property
    def false_positive_rate(self) -> Floats:
        """The share of negatives at or above each score."""
        share: Floats = self.false_positives / self.false_positives[-1]
        return share

    @property
    def precision(self) -> Floats:
        """The share of positives among the rows at or above each score (1 where those weigh nothing)."""
        total = self.true_positives + self.false_positives
        return np.divide(self.true_positives, total, out=np.ones_like(total), where=total > 0)

    @property
    def auc(self) -> float:
        """See `auc`."""
        return float(np.trapezoid(np.append(0.0, self.recall), np.append(0.0, self.false_positive_rate)))

    @property
    def pr_auc(self) -> float:
        """See `pr_auc`."""
        return float(np.trapezoid(np.append(1.0, self.precision), np.append(0.0, self.recall)))

    @property
    def average_precision(self) -> float:
        """See `average_precision`."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))


def auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The area under the ROC curve: the probability that a click scores above a non-click, ties half (Hanley & McNeil 1982)."""
    return Thresholds.of(label, score, weight).auc


def pr_auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The area under the precision-recall curve by trapezoids, from precision 1 at recall 0.

    Trapezoids are optimistic (Davis & Goadrich 2006); `average_precision` is the cautious figure of the same curve.
    """
    return Thresholds.of(label, score, weight).pr_auc


def average_precision(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The mean of precision over the steps of recall: Σ (Rₙ - Rₙ₋₁) Pₙ."""
    return Thresholds.of(label, score, weight).average_precision


@dataclass(frozen=True, slots=True)
class _Grouped:
    """Rows sorted by group and then by score, seen as blocks of tied rows; positions are counted inside the group."""

    rows: Integers
    """Rows of each group `(g,)`."""
    positives: Integers
    """Positive rows of each group `(g,)`."""
    group: Integers
    """The group of each block `(b,)`."""
    first: Integers
    """The position of each block's first row `(b,)`."""
    size: Integers
    """Rows of each block `(b,)`."""
    found: Integers
    """Positive rows of each block `(b,)`."""

    @classmethod
    def of(cls, label: ArrayLike, score: ArrayLike, group: ArrayLike) -> _Grouped:
        """The blocks from the highest score of each group down."""
        positive = check_labels(label)
        values = check_values("score", score, positive.size)
        codes, groups = _group_codes(group, positive.size)
        # one integer key instead of a two-key sort: the group, and within it the rank of the score
        key = codes * positive.size + _descending_rank(values)
        order = np.argsort(key)
        key, codes, positive = key[order], codes[order], positive[order]
        starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        rows = np.bincount(codes, minlength=groups)
        offsets = np.cumsum(rows) - rows
        block = codes[starts]
        found = np.add.reduceat(positive.astype(np.int64), starts)
        positives = np.bincount(codes[positive], minlength=groups)
        return cls(rows, positives, block, starts - offsets[block], np.diff(starts, append=codes.size), found)

    def sum_by_group(self, values: Floats) -> Floats:
        """The sum over the blocks of each group."""
        return np.bincount(self.group, values, minlength=len(self.rows)).astype(np.float64)


def _descending_rank(values: Floats) -> Integers:
    """The dense rank of each value, 0 for the highest."""
    order = np.argsort(-values)
    ordered = values[order]
    rank = np.empty(values.size, np.int64)
    rank[order] = np.cumsum(np.append(False, ordered[1:] != ordered[:-1]))
    return rank


def gauc(label: ArrayLike, score: ArrayLike, group: ArrayLike) -> float:
    """The AUC within each group, averaged by the groups' impressions (Zhu et al. 2017; Zhou et al. 2018, DIN).

    `group` `(n,)` are integers or strings. Groups of one class have no AUC and are left out; `DataError` when all are.
    """
    blocks = _Grouped.of(label, score, group)
    negatives = blocks.rows - blocks.positives
    usable = (blocks.positives > 0) & (negatives > 0)
    if not usable.any():
        raise DataError("no group holds both a positive and a negative row", "choose a coarser group column")
    missed = blocks.size - blocks.found
    above = np.cumsum(missed) - missed
    start = np.cumsum(negatives) - negatives
    below = negatives[blocks.group] - (above - start[blocks.group]) - missed
    wins = blocks.sum_by_group(blocks.found * (below + 0.5 * missed))
    area = wins[usable] / (blocks.positives[usable].astype(np.float64) * negatives[usable])
    return float(np.average(area, weights=blocks.rows[usable]))


def ndcg(label: ArrayLike, score: ArrayLike, group: ArrayLike, k: int = 10) -> float:
    """NDCG@k (Järvelin & Kekäläinen 2002): the mean over groups with a click, ties averaged (McSherry & Najork 2008).

    Raises `DataError` when no group has a click.
    """
    blocks = _Grouped.of(label, score, group)
    # cumulative[i] is the sum of the discounts of the first i positions, of which those beyond k count nothing
    positions = np.arange(min(k, int(blocks.rows.max())))
    cumulative = np.append(0.0, np.cumsum(1.0 / np.log2(positions + 2.0)))
    top = len(positions)
    covered = cumulative[np.minimum(blocks.first + blocks.size, top)] - cumulative[np.minimum(blocks.first, top)]
    gained = blocks.sum_by_group(blocks.found / blocks.size * covered)
    usable = blocks.positives > 0
    if not usable.any():
        raise DataError("no group holds a positive row", "choose a coarser group column")
    ideal = cumulative[np.minimum(blocks.positives[usable], top)]
    return float(np.mean(gained[usable] / ideal))


def mixed_groups(label: ArrayLike, group: ArrayLike) -> int:
    """The number of groups that hold both classes: those that ranking within groups can be measured on."""
    positive = check_labels(label)
    codes, groups = _group_codes(group, positive.size)
    positives = np.bincount(codes[positive], minlength=groups)
    return int(np.sum((positives > 0) & (positives < np.bincount(codes, minlength=groups))))


def _group_codes(group: ArrayLike, rows: int) -> tuple[Integers, int]:
    """The groups as numbers from 0, and how many there are."""
    import pandas as pd

    codes, groups = pd.factorize(np.asarray(group).reshape(-1))
    if codes.size != rows:
        raise DataError(f"{codes.size} values of `group` for {rows} labels", "give one for each row")
    if codes.min() < 0:
        raise DataError("a row has no group", "fill the missing values of the group column")
    return codes.astype(np.int64), len(groups)
