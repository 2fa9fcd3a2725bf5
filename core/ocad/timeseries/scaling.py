"""Scalings of a heavy-tailed series, fitted on training values alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ScalingKind = Literal["standard", "robust", "log"]
SCALINGS: tuple[ScalingKind, ...] = ("standard", "robust", "log")

_NORMAL_QUARTILE_RANGE = 1.349
"""The interquartile range of a standard normal: divides it out, so that `robust` and `standard` agree on normal data."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """`u = (x - center) / scale`; for `log`, `sign(u) * log(1 + |u|)`, which takes any number and tames both tails."""

    kind: ScalingKind
    center: float
    scale: float

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """`values` scaled, in the same shape."""
        scaled = (values - self.center) / self.scale
        return np.sign(scaled) * np.log1p(np.abs(scaled)) if self.kind == "log" else scaled

    def to_dict(self) -> dict[str, str | float]:
        """The scaling as plain values, for `preprocess.json`."""
        return asdict(self)


def fit_scaling(kind: ScalingKind, values: NDArray[np.float64]) -> Scaling:
    """The scaling of `kind` with the statistics of `values`: mean and deviation, or median and quartile range.

    A quartile range of zero (more than half of the values equal) is replaced by the standard deviation.
    """
    deviation = float(np.std(values))
    if kind == "standard":
        return Scaling(kind, float(np.mean(values)), deviation)
    low, middle, high = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return Scaling(kind, middle, (high - low) / _NORMAL_QUARTILE_RANGE or deviation)
