"""Forecasts that a network must beat: each is a linear function of the window, fitted on the training windows alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ocad.timeseries.windows import Windows

Floats = NDArray[np.float64]

_ROUNDING = 1e-9
_ALPHAS = np.linspace(0.02, 1.0, 50)


@dataclass(frozen=True, slots=True)
class LinearForecast:
    """`sequence @ weights + bias`, weights `(length,)` from the oldest to the newest value, bias in the metric's unit."""

    name: str
    weights: Floats
    bias: float = 0.0

    @property
    def follows_shifts(self) -> bool:
        """Whether adding a constant to the window adds it to the forecast."""
        return self.bias == 0.0 and abs(float(self.weights.sum()) - 1.0) < _ROUNDING

    def predict(self, sequence: Floats) -> Floats:
        """The next value `(n,)` of each row of `sequence` `(n, length)`."""
        return sequence @ self.weights + self.bias


def naive_last(train: Windows) -> LinearForecast:
    """The newest value again."""
    weights = np.zeros(train.sequence.shape[1])
    weights[-1] = 1.0
    return LinearForecast("naive", weights)


def exponential_average(train: Windows) -> LinearForecast:
    """The exponentially weighted average of the window, its alpha the one with the lowest squared error in training."""
    ages = np.arange(train.sequence.shape[1])[::-1]
    candidates = [(1 - alpha) ** ages / ((1 - alpha) ** ages).sum() for alpha in _ALPHAS]
    errors = [float(np.mean((train.sequence @ weights - train.target) ** 2)) for weights in candidates]
    return LinearForecast("ewma", candidates[int(np.argmin(errors))])


def autoregression(train: Windows) -> LinearForecast:
    """Least squares of the target on the whole window and a constant: AR(10) for a window of ten."""
    center = float(train.sequence.mean())
    design = np.column_stack([train.sequence - center, np.ones(len(train))])
    solution = np.linalg.lstsq(design, train.target - center, rcond=None)[0]
    weights: Floats = solution[:-1].astype(np.float64)
    return LinearForecast(f"ar{len(weights)}", weights, float(solution[-1] + center * (1 - weights.sum())))


def centred_autoregression(train: Windows) -> LinearForecast:
    """AR(10) whose weights sum to 1, without a constant: least squares around the mean of each window."""
    middle = train.sequence.mean(axis=1)
    around = train.sequence - middle[:, None]
    solution = np.linalg.lstsq(around, train.target - middle, rcond=None)[0].astype(np.float64)
    # the least-norm solution sums to 0: the mean of the window is what it adds to
    return LinearForecast(f"centred ar{len(solution)}", solution + 1 / len(solution))


def fit_baselines(train: Windows) -> tuple[LinearForecast, ...]:
    """All baselines, fitted on `train`."""
    return naive_last(train), exponential_average(train), autoregression(train)
