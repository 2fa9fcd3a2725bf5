"""How true predicted probabilities are: log loss and its kin, and calibration errors over bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.metrics.rows import Flags, Floats, check_classes, check_labels, check_probabilities, check_weights

SMALLEST = float(np.finfo(np.float64).eps)
"""Probabilities are kept this far from 0 and 1 in logarithms, as scikit-learn does."""

Bins = Literal["width", "mass"]
"""Bins of equal width in probability, or of equal numbers of rows."""


def row_losses(positive: Flags, probability: Floats) -> Floats:
    """The log loss of each row `(n,)` in nats."""
    likelihood = np.where(positive, probability, 1.0 - probability)
    losses: Floats = -np.log(np.clip(likelihood, SMALLEST, 1.0))
    return losses


def logloss(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The mean of -log p(label) in nats."""
    positive = check_labels(label)
    losses = row_losses(positive, check_probabilities(probability, positive.size))
    return float(np.average(losses, weights=check_weights(weight, positive.size)))


def normalized_entropy(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The log loss divided by that of the rows' own share of clicks, told of every row (He et al. 2014, Facebook).

    Above 1 the model is worse than that one number. Raises `DataError` on labels of one class.
    """
    positive = check_labels(label)
    check_classes(positive)
    share = float(np.average(positive.astype(np.float64), weights=check_weights(weight, positive.size)))
    constant = -share * np.log(share) - (1 - share) * np.log1p(-share)
    return logloss(label, probability, weight) / float(constant)


def wll(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The weighted log loss: positives and negatives count half each, whatever their share.

    Its optimum is the probability at a prior of 50 %, so a calibrated model of rare clicks scores worse than one trained on
    balanced classes: a measure of ranking and spread at a fixed prior, not of calibration.
    """
    positive = check_labels(label)
    check_classes(positive)
    losses = row_losses(positive, check_probabilities(probability, positive.size))
    weights = check_weights(weight, positive.size)
    halves = [
        np.average(losses[rows], weights=None if weights is None else weights[rows]) for rows in (positive, ~positive)
    ]
    return float(np.mean(halves))


def accuracy(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The share of rows on the right side of 0.5 (0.5 itself counts as a click)."""
    positive = check_labels(label)
    right = (check_probabilities(probability, positive.size) >= 0.5) == positive
    return float(np.average(right, weights=check_weights(weight, positive.size)))


def brier(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The mean squared difference of probability and label (Brier 1950)."""
    positive = check_labels(label)
    difference = check_probabilities(probability, positive.size) - positive
    return float(np.average(difference**2, weights=check_weights(weight, positive.size)))


@dataclass(frozen=True, slots=True)
class Reliability:
    """Non-empty bins, from the lowest probability up: mean prediction, share of clicks, share of the weight, `(b,)` each."""

    predicted: Floats
    observed: Floats
    share: Floats

    @classmethod
    def of(
        cls,
        label: ArrayLike,
        probability: ArrayLike,
        bins: int = 15,
        mass: Bins = "width",
        weight: ArrayLike | None = None,
    ) -> Reliability:
        """The bins of `(n,)` rows, upper edges included; with `mass="mass"` equal probabilities stay in one bin."""
        positive = check_labels(label)
        values = check_probabilities(probability, positive.size)
        weights = check_weights(weight, positive.size)
        index = bin_of(values, bins, mass)
        total, predicted, observed = (
            np.bincount(index, column)
            for column in (
                (np.ones_like(values), values, positive)
                if weights is None
                else (weights, weights * values, weights * positive)
            )
        )
        filled = total > 0
        total = total[filled]
        return cls(predicted[filled] / total, observed[filled] / total, total / total.sum())

    @property
    def expected_error(self) -> float:
        """See `ece`."""
        return float(np.sum(self.share * np.abs(self.predicted - self.observed)))

    @property
    def largest_error(self) -> float:
        """See `mce`."""
        return float(np.max(np.abs(self.predicted - self.observed)))


def bin_of(values: Floats, bins: int, mass: Bins) -> NDArray[np.int64]:
    """The bin of each value, upper edges included: see `Reliability.of`."""
    inner = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    edges = np.unique(np.quantile(values, inner)) if mass == "mass" else inner
    return np.searchsorted(edges, values).astype(np.int64)


def ece(
    label: ArrayLike,
    probability: ArrayLike,
    bins: int = 15,
    mass: Bins = "width",
    weight: ArrayLike | None = None,
) -> float:
    """The expected calibration error: mean |prediction - share of clicks| over bins by their rows (Naeini et al. 2015)."""
    return Reliability.of(label, probability, bins, mass, weight).expected_error


def mce(
    label: ArrayLike,
    probability: ArrayLike,
    bins: int = 15,
    mass: Bins = "width",
    weight: ArrayLike | None = None,
) -> float:
    """The maximum calibration error: the largest |prediction - share of clicks| of a bin, however few rows it holds."""
    return Reliability.of(label, probability, bins, mass, weight).largest_error
