"""Calibrators: increasing maps from log-odds to probability, fitted on validation rows and exported inside the graph.

None of them turns the order of two rows round; `isotonic` ties those beyond its outermost knots, where validation showed
nothing. Their parameters are rounded to float32 when they are fitted: numpy, torch and the exported graph compute with the
same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ocad.errors import DataError, nearest
from ocad.metrics.rows import Flags, Floats, check_classes, check_labels, check_values, check_weights

if TYPE_CHECKING:
    from torch import nn

STEEPEST = 64.0
"""The largest slope, in log-odds per log-odds: a model that was stopped early has log-odds that are all but equal, and what
stretches them may be steep. A probability then moves by at most 16 times the float32 error of its log-odds, which stays below
1e-5; parity measures it."""
SHARPEST = 4.0
"""The largest slope of temperature scaling: its targets are not drawn in, so rows that are separable would know no bound."""
NEAREST = 1e-3
"""The least distance of two knots in log-odds: nearer ones could be one number in float32."""
BIN_ROWS = 100
MOST_BINS = 64
_STEPS, _CONVERGED = 50, 1e-10


class Calibrator(Protocol):
    """What every calibrator does; `kind` names it in `to_json`."""

    @property
    def kind(self) -> str:
        """The name of the method."""
        ...

    def apply(self, logit: ArrayLike) -> Floats:
        """Calibrated probabilities of log-odds `(n,)`, in float64."""
        ...

    def as_module(self) -> nn.Module:
        """The same as a torch module, from log-odds of any shape to probabilities of that shape; exports to ONNX."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Kind and parameters; `calibrator_from_json` reads them."""
        ...


@dataclass(frozen=True, slots=True)
class Linear:
    """p = sigmoid(slope · logit + shift): what identity, temperature and Platt scaling come to."""

    kind: str = "identity"
    slope: float = 1.0
    shift: float = 0.0

    def apply(self, logit: ArrayLike) -> Floats:
        """See `Calibrator`."""
        return sigmoid(np.float32(self.slope) * np.asarray(logit, np.float64) + np.float32(self.shift))

    def as_module(self) -> nn.Module:
        """See `Calibrator`."""
        from ocad.calibration.modules import LinearModule

        return LinearModule(self.slope, self.shift)

    def to_json(self) -> dict[str, Any]:
        """See `Calibrator`."""
        return {"kind": self.kind, "slope": self.slope, "shift": self.shift}


IDENTITY = Linear()
"""No calibration: the network's own probability."""


@dataclass(frozen=True, slots=True)
class Isotonic:
    """Calibrated log-odds by linear interpolation between `knots` `(k,)` with `values` `(k,)`, flat beyond both ends: what
    lies further out than validation rows did is not made more certain than they were."""

    knots: tuple[float, ...]
    values: tuple[float, ...]
    kind: str = "isotonic"

    def apply(self, logit: ArrayLike) -> Floats:
        """See `Calibrator`."""
        return sigmoid(np.interp(np.asarray(logit, np.float64), self.knots, self.values))

    def as_module(self) -> nn.Module:
        """See `Calibrator`."""
        from ocad.calibration.modules import IsotonicModule, LinearModule

        if len(self.knots) == 1:
            return LinearModule(0.0, self.values[0])
        return IsotonicModule(self.knots, self.values)

    def to_json(self) -> dict[str, Any]:
        """See `Calibrator`."""
        return {"kind": self.kind, "knots": list(self.knots), "values": list(self.values)}


def fit_temperature(logit: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Linear:
    """p = sigmoid(logit / T) with the T of least log loss (Guo et al. 2017, On calibration of modern neural networks)."""
    scores, positive, weights = _check(logit, label, weight)
    slope = _newton(scores[:, None], positive.astype(np.float64), weights, np.ones(1))[0]
    if not slope > 0:
        return IDENTITY
    return Linear("temperature", _round(min(slope, SHARPEST)))


def fit_platt(logit: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Linear:
    """p = sigmoid(a · logit + b) of least log loss against targets drawn in by one row of each class.

    Platt (1999), by Newton's method as Lin, Lin & Weng (2007) advise. Undoes what `pos_weight`, focal loss or another share
    of clicks do to the odds.
    """
    scores, positive, weights = _check(logit, label, weight)
    low, high = _softened(positive, weights)
    target, ones = np.where(positive, high, low), np.ones_like(scores)
    slope, shift = _newton(np.column_stack([scores, ones]), target, weights, np.array([1.0, 0.0]))
    if not slope > 0:
        return IDENTITY
    if slope > STEEPEST:
        slope = STEEPEST
        shift = _newton(ones[:, None], target, weights, np.zeros(1), offset=slope * scores)[0]
    return Linear("platt", _round(slope), _round(shift))


def fit_isotonic(logit: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Isotonic:
    """The increasing map of least squared error (Zadrozny & Elkan 2002), centred and without cliffs.

    Over bins of equal mass (64 at most, of 100 rows at least) the pool-adjacent-violators solution gives blocks; each becomes
    one knot at its mean (centred isotonic regression, Oron & Flournoy 2017), in log-odds, drawn in as Platt's targets are.
    Blocks are pooled further while the line between two is steeper than `STEEPEST`.
    """
    scores, positive, weights = _check(logit, label, weight)
    mean_score, mean_label, mass = _bins(scores, positive, weights)
    low, high = _softened(positive, weights)
    knots: list[tuple[float, float, float]] = []
    for block in _blocks(mean_score, mean_label, mass):
        knots.append(block)
        while len(knots) > 1 and _too_steep(knots[-2], knots[-1], low, high):
            knots.append(_pool(knots.pop(), knots.pop()))
    values = [_round(_logit(min(max(share, low), high))) for _, share, _ in knots]
    return Isotonic(tuple(_round(score) for score, _, _ in knots), tuple(values))


def calibrator_from_json(stored: Mapping[str, Any]) -> Calibrator:
    """The calibrator that `to_json` described; raises `DataError` on another kind or bad parameters."""
    try:
        kind = stored["kind"]
        if kind == "isotonic":
            return Isotonic(tuple(map(float, stored["knots"])), tuple(map(float, stored["values"])))
        if kind in ("identity", "temperature", "platt"):
            return Linear(kind, float(stored["slope"]), float(stored["shift"]))
    except (KeyError, TypeError, ValueError):
        raise DataError("the stored calibrator lacks a parameter", "register the version again") from None
    known = ("identity", "isotonic", "platt", "temperature")
    raise DataError(f"unknown calibrator `{kind}`", nearest(str(kind), known))


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(-logit)) without overflow."""
    small = np.exp(-np.abs(logit))
    probability: Floats = np.where(logit >= 0, 1.0, small) / (1.0 + small)
    return probability


def _check(logit: ArrayLike, label: ArrayLike, weight: ArrayLike | None) -> tuple[Floats, Flags, Floats]:
    positive = check_labels(label)
    check_classes(positive)
    weights = check_weights(weight, positive.size)
    return check_values("logit", logit, positive.size), positive, np.ones(positive.size) if weights is None else weights


def _softened(positive: Flags, weight: Floats) -> tuple[float, float]:
    """Platt's targets for negatives and positives: as if one more row of each class had been seen."""
    found, missed = float(weight[positive].sum()), float(weight[~positive].sum())
    return 1.0 / (missed + 2.0), (found + 1.0) / (found + 2.0)


def _newton(inputs: Floats, target: Floats, weight: Floats, start: Floats, offset: Floats | float = 0.0) -> Floats:
    """Logistic regression of `target` `(n,)` on `inputs` `(n, k)` and a fixed `offset`, from `start`.

    Newton's method; a step that does not help is halved until it does.
    """
    parameters, loss = start, _cross_entropy(inputs @ start + offset, target, weight)
    for _ in range(_STEPS):
        probability = sigmoid(inputs @ parameters + offset)
        gradient = inputs.T @ (weight * (probability - target))
        curvature = (inputs.T * (weight * probability * (1.0 - probability))) @ inputs
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(start)), gradient)
        before = loss
        for _ in range(_STEPS):
            loss = _cross_entropy(inputs @ (parameters - step) + offset, target, weight)
            if loss <= before:
                parameters = parameters - step
                break
            step = step / 2
        if before - loss <= _CONVERGED * abs(before):
            break
    return parameters


def _cross_entropy(logit: Floats, target: Floats, weight: Floats) -> float:
    return float(weight @ (np.logaddexp(0.0, logit) - target * logit))


def _bins(scores: Floats, positive: Flags, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean score, share of positives and weight of bins of equal mass; equal scores share a bin."""
    count = int(np.clip(scores.size // BIN_ROWS, 2, MOST_BINS))
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, count + 1)[1:-1]))
    index = np.searchsorted(edges, scores)
    mass, score, found = (
        np.bincount(index, column).astype(np.float64) for column in (weight, weight * scores, weight * positive)
    )
    filled = mass > 0
    return score[filled] / mass[filled], found[filled] / mass[filled], mass[filled]


def _blocks(score: Floats, label: Floats, mass: Floats) -> list[tuple[float, float, float]]:
    """The blocks of isotonic regression: mean score, mean label, weight."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression().fit_transform(score, label, sample_weight=mass)
    starts = np.flatnonzero(np.append(True, np.diff(fitted) > 0))
    total = np.add.reduceat(mass, starts)
    centre = np.add.reduceat(mass * score, starts) / total
    return list(zip(centre.tolist(), fitted[starts].tolist(), total.tolist(), strict=True))


def _too_steep(one: tuple[float, float, float], other: tuple[float, float, float], low: float, high: float) -> bool:
    rise = _logit(min(max(other[1], low), high)) - _logit(min(max(one[1], low), high))
    # two knots at one value would make a flat line, which loses the order of rows
    gap = other[0] - one[0]
    return gap < NEAREST or rise > STEEPEST * gap or rise <= 0


def _pool(one: tuple[float, float, float], other: tuple[float, float, float]) -> tuple[float, float, float]:
    mass = one[2] + other[2]
    score, share = ((one[i] * one[2] + other[i] * other[2]) / mass for i in (0, 1))
    return score, share, mass


def _logit(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))


def _round(value: float) -> float:
    return float(np.float32(value))
