"""The choice of a calibrator by cross-validated log loss on the validation part, and only where it helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.calibration.calibrators import IDENTITY, Calibrator, fit_isotonic, fit_platt, fit_temperature
from ocad.metrics.probability import row_losses
from ocad.metrics.rows import Flags, Floats, check_classes, check_labels, check_values, check_weights

Fit = Callable[[ArrayLike, ArrayLike, ArrayLike | None], Calibrator]

METHODS: Mapping[str, Fit] = {"temperature": fit_temperature, "platt": fit_platt, "isotonic": fit_isotonic}
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Comparison:
    """The cross-validated log loss of each method, `identity` included, and what is certain about the best one's gain."""

    losses: Mapping[str, float]
    gain: float
    """How much lower the best method's log loss is than that of `identity`, in nats per row."""
    gain_error: float
    """The standard error of `gain`."""

    @property
    def chosen(self) -> str:
        """The method of lowest loss, or `identity` where its gain is within its standard error."""
        best = min(self.losses, key=lambda name: self.losses[name])
        return best if self.gain > self.gain_error else "identity"


def choose_calibrator(logit: ArrayLike, label: ArrayLike, seed: int, weight: ArrayLike | None = None) -> Calibrator:
    """The calibrator for validation rows `(n,)`, fitted on all of them; `IDENTITY` where none helps.

    Raises `DataError` on values that are not finite, labels that are not 0 or 1, or labels of one class.
    """
    return fit_calibrator(compare_calibrators(logit, label, seed, weight).chosen, logit, label, weight)


def fit_calibrator(kind: str, logit: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Calibrator:
    """The calibrator of the `kind` that `Comparison.chosen` named."""
    return METHODS[kind](logit, label, weight) if kind in METHODS else IDENTITY


def compare_calibrators(logit: ArrayLike, label: ArrayLike, seed: int, weight: ArrayLike | None = None) -> Comparison:
    """Measures each method by 5-fold cross-validation over validation rows `(n,)`, folds stratified and drawn from `seed`."""
    positive = check_labels(label)
    check_classes(positive)
    scores = check_values("logit", logit, positive.size)
    weights = check_weights(weight, positive.size)
    fold = _folds(positive, seed)
    losses = {"identity": row_losses(positive, IDENTITY.apply(scores))}
    losses |= {name: _held_out(fit, scores, positive, weights, fold) for name, fit in METHODS.items()}
    mean = {name: float(np.average(values, weights=weights)) for name, values in losses.items()}
    best = min(mean, key=lambda name: mean[name])
    share = np.full(positive.size, 1.0 / positive.size) if weights is None else weights / weights.sum()
    gains = losses["identity"] - losses[best]
    gain = float(share @ gains)
    return Comparison(mean, gain, float(np.sqrt(share**2 @ (gains - gain) ** 2)))


def _folds(positive: Flags, seed: int) -> NDArray[np.int64]:
    """The fold of each row: each class is dealt out evenly; with few rows of a class, no fold holds all of them."""
    generator = np.random.default_rng(seed)
    fold = np.empty(positive.size, np.int64)
    for rows in (positive, ~positive):
        fold[rows] = generator.permutation(np.arange(int(rows.sum())) % FOLDS)
    return fold


def _held_out(fit: Fit, scores: Floats, positive: Flags, weights: Floats | None, fold: NDArray[np.int64]) -> Floats:
    """The log loss `(n,)` of each row by the calibrator that was fitted on the other folds."""
    losses = np.empty(positive.size)
    for number in range(FOLDS):
        out = fold == number
        if not out.any():
            continue
        kept = positive[~out]
        if kept.all() or not kept.any():
            calibrator: Calibrator = IDENTITY
        else:
            calibrator = fit(scores[~out], kept, None if weights is None else weights[~out])
        losses[out] = row_losses(positive[out], calibrator.apply(scores[out]))
    return losses
