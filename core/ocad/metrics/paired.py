"""Two models on the same rows: the difference of each metric with a 95 % interval, and what may be said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.errors import DataError
from ocad.metrics.probability import Reliability, bin_of, logloss, row_losses
from ocad.metrics.ranking import Thresholds, auc
from ocad.metrics.rows import Flags, Floats, check_classes, check_labels, check_probabilities, check_weights

Verdict = Literal["better", "worse", "not shown better"]
RESAMPLES = 1000
LEVEL = (0.025, 0.975)
_NORMAL = 1.959964
DECIDING = ("auc", "logloss")
"""The metrics that decide about a model as a whole; the others are shown."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`second` minus `first` of a metric, from `low` to `high` with 95 % confidence; `verdict` is on the second model."""

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    verdict: Verdict
    method: str

    def to_json(self) -> dict[str, Any]:
        """As `ocad compare --json` shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


def overall(differences: list[Difference]) -> Verdict:
    """`worse` where AUC or log loss is, `better` where one of them is and neither is worse."""
    verdicts = [one.verdict for one in differences if one.metric in DECIDING]
    return "worse" if "worse" in verdicts else "better" if "better" in verdicts else "not shown better"


def compare_clicks(
    label: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    seed: int,
    weight: ArrayLike | None = None,
    group: NDArray[np.int64] | None = None,
    resamples: int = RESAMPLES,
) -> list[Difference]:
    """AUC, log loss, average precision and ECE of two models' probabilities `(n,)` for the same rows.

    AUC by DeLong, DeLong & Clarke-Pearson (1988) where rows are independent and count alike; the rest by a paired percentile
    bootstrap, of rows within each class, or of whole groups where `group` says which rows belong together. Raises `DataError`
    on rows that cannot be measured.
    """
    positive = check_labels(label)
    check_classes(positive)
    weights = check_weights(weight, positive.size)
    base = np.ones(positive.size) if weights is None else weights
    pair = [check_probabilities(probability, positive.size) for probability in (first, second)]
    models = [_Resampled(positive, probability) for probability in pair]
    drawn = [[model.measure(base * counts) for model in models] for counts in _counts(positive, group, seed, resamples)]
    unit = "groups" if group is not None else "rows"
    differences = []
    for metric, (measure, higher) in METRICS.items():
        one, other = (measure(positive, probability, weights) for probability in pair)
        spread = np.asarray([second[metric] - first[metric] for first, second in drawn])
        low, high = (float(value) for value in np.quantile(spread, LEVEL))
        method = f"bootstrap of {unit}"
        if metric == "auc" and group is None and weights is None:
            error = delong(positive, *pair)
            low, high, method = other - one - _NORMAL * error, other - one + _NORMAL * error, "DeLong"
        verdict = _verdict(low, high, higher)
        differences.append(Difference(metric, one, other, other - one, low, high, verdict, method))
    return differences


def delong(positive: Flags, first: Floats, second: Floats) -> float:
    """The standard error of the difference of two AUC on the same rows, by midranks (Sun & Xu 2014)."""
    found, missed = int(positive.sum()), int((~positive).sum())
    placed = []
    for score in (first, second):
        ranks, within = _midranks(score), np.empty(score.size)
        for rows in (positive, ~positive):
            within[rows] = _midranks(score[rows])
        # how much of the other class each row stands above
        placed.append((ranks - within) / np.where(positive, missed, found))
    gap = placed[1] - placed[0]
    variance = sum(float(gap[rows].var(ddof=1)) / int(rows.sum()) for rows in (positive, ~positive) if rows.sum() > 1)
    return float(np.sqrt(variance))


def _midranks(values: Floats) -> Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    middle: Floats = (last - (count - 1) / 2)[place]
    return middle


def _verdict(low: float, high: float, higher_is_better: bool) -> Verdict:
    better, worse = (low > 0, high < 0) if higher_is_better else (high < 0, low > 0)
    return "better" if better else "worse" if worse else "not shown better"


def _counts(
    positive: Flags, group: NDArray[np.int64] | None, seed: int, resamples: int
) -> Iterator[NDArray[np.float64]]:
    """How often each row `(n,)` is drawn, once for each resample that holds both classes."""
    generator = np.random.default_rng(seed)
    if group is None:
        strata = [np.flatnonzero(positive), np.flatnonzero(~positive)]
        place = np.arange(positive.size)
    else:
        _, place = np.unique(group, return_inverse=True)
        strata = [np.arange(place.max() + 1)]
        if len(strata[0]) < 2:
            raise DataError("all rows are of one group, which cannot be drawn again", "give rows of several groups")
    units = sum(map(len, strata))
    for _ in range(resamples):
        drawn = np.zeros(units)
        for rows in strata:
            drawn[rows] = np.bincount(generator.integers(0, len(rows), len(rows)), minlength=len(rows))
        counts = drawn[place]
        if counts[positive].any() and counts[~positive].any():
            yield counts


class _Resampled:
    """A model's rows, sorted once, to be measured under many weightings."""

    def __init__(self, positive: Flags, probability: Floats) -> None:
        self._order = np.argsort(-probability, kind="stable")
        ordered = probability[self._order]
        self._ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
        self._positive = positive[self._order]
        self._gap = probability - positive
        self._bins = bin_of(probability, 15, "width")
        self._losses = row_losses(positive, probability)

    def measure(self, weight: Floats) -> dict[str, float]:
        """The metrics of `METRICS` with rows weighted by `weight` `(n,)`."""
        ordered = weight[self._order]
        found = np.cumsum(ordered * self._positive)[self._ends]
        missed = np.cumsum(ordered * ~self._positive)[self._ends]
        before, steps = np.append(0.0, found[:-1]), np.diff(found, prepend=0.0)
        area = float(np.diff(missed, prepend=0.0) @ (before + found)) / (2 * found[-1] * missed[-1])
        precision = found / np.maximum(found + missed, 1e-300)
        total = float(weight.sum())
        return {
            "auc": area,
            "logloss": float(weight @ self._losses) / total,
            "average_precision": float(steps @ precision) / float(found[-1]),
            "ece": float(np.abs(np.bincount(self._bins, weight * self._gap)).sum()) / total,
        }


def _average_precision(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None) -> float:
    return Thresholds.of(label, probability, weight).average_precision


def _ece(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None) -> float:
    return Reliability.of(label, probability, weight=weight).expected_error


METRICS: Mapping[str, tuple[Callable[[ArrayLike, ArrayLike, ArrayLike | None], float], bool]] = {
    "auc": (auc, True),
    "logloss": (logloss, False),
    "average_precision": (_average_precision, True),
    "ece": (_ece, False),
}
"""What is compared, and whether higher is better."""
