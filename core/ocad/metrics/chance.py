"""What chance alone explains in rows of so many: how far a sound model's mean and calibration may be off."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ocad.metrics.probability import Bins, bin_of
from ocad.metrics.rows import Floats, check_probabilities, check_weights

SURE = 3.0
"""Standard errors that chance is given: one sound model in some 700 is further off."""
MEAN_SHARE, MEAN_MOST = 0.05, 0.005
"""What the mean may be off by in any number of rows: so much of the base rate, and no more than this."""
ECE_SHARE, ECE_MOST = 0.1, 0.01
"""The same for the expected calibration error."""
_MEAN_OF_HALF_NORMAL = math.sqrt(2 / math.pi)


def mean_allowance(
    probability: ArrayLike, base_rate: float, calibrated_on: float = math.inf, weight: ArrayLike | None = None
) -> float:
    """How far the mean of `probability` `(n,)` may lie from the share of clicks.

    Three standard errors of that share where every probability is true, and of the share in as many rows as the model was
    `calibrated_on`; at least 5 % of the base rate or 0.005, whichever is less.
    """
    values = check_probabilities(probability, np.size(probability))
    weights = _weights(weight, values.size)
    share = weights / weights.sum()
    variance = float(share**2 @ (values * (1 - values))) + float(share @ (values * (1 - values))) / calibrated_on
    return max(SURE * math.sqrt(variance), min(MEAN_MOST, MEAN_SHARE * base_rate))


def ece_allowance(
    probability: ArrayLike,
    base_rate: float,
    calibrated_on: float = math.inf,
    mass: Bins = "width",
    weight: ArrayLike | None = None,
) -> float:
    """What `ece` over 15 bins is at most where every `probability` `(n,)` is true, but for one model in some 700.

    The gap of a bin is then normal with the variance p(1-p)/n of its rows (and of the rows that the model was
    `calibrated_on`), so that the error is a sum of half-normal gaps: its mean and three of its standard deviations, and at
    least 10 % of the base rate or 0.01, whichever is less, on top of that mean.
    """
    values = check_probabilities(probability, np.size(probability))
    weights = _weights(weight, values.size)
    index = bin_of(values, 15, mass)
    share = weights / weights.sum()
    spread = values * (1 - values)
    rows, own, all_of = (np.bincount(index, column) for column in (share, share**2 * spread, share * spread))
    filled = rows > 0
    # of a bin's gap times its share: from its own rows, and from its share of those that calibrated
    variance = own[filled] + all_of[filled] / calibrated_on
    mean = _MEAN_OF_HALF_NORMAL * float(np.sqrt(variance).sum())
    deviation = math.sqrt((1 - 2 / math.pi) * float(variance.sum()))
    return mean + max(SURE * deviation, min(ECE_MOST, ECE_SHARE * base_rate))


def _weights(weight: ArrayLike | None, rows: int) -> Floats:
    weights = check_weights(weight, rows)
    return np.ones(rows) if weights is None else weights
