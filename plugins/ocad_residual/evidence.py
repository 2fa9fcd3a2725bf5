"""From residuals to evidence: how far one metric is from its forecast, now and on average, and how much of it is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad_residual.config import EvidenceSettings

Floats = NDArray[np.float64]

_NORMAL_DEVIATION = 1.4826
"""The standard deviation of a normal distribution by its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What is normal for one metric of one endpoint, from its training rows."""

    centre: float
    """The median residual."""
    scale: float
    """The robust standard deviation of the residuals."""
    smooth: float
    """The robust standard deviation of their exponentially weighted average, in `scale`s."""
    loss: float
    """The share of missing values."""

    @classmethod
    def fit(cls, residuals: Floats, lost: int, settings: EvidenceSettings) -> Noise:
        """From `residuals` `(n,)` in time order, all finite, and the number of `lost` values."""
        centre = float(np.median(residuals)) if len(residuals) else 0.0
        scale = robust_deviation(residuals, centre)
        standard = np.clip((residuals - centre) / scale, -settings.limit, settings.limit)
        average, averages = 0.0, []
        for value in standard.tolist():
            average += settings.smoothing * (value - average)
            averages.append(average)
        smooth = robust_deviation(np.asarray(averages), 0.0) if averages else 1.0
        return cls(centre, scale, smooth, (lost + 1) / (len(residuals) + lost + 2))

    def to_json(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Noise:
        """The noise that `to_json` wrote."""
        return cls(*(float(value[name]) for name in ("centre", "scale", "smooth", "loss")))


def robust_deviation(values: Floats, centre: float) -> float:
    """1.4826 times the median distance from `centre`; the standard deviation where most values are equal, else 1."""
    if len(values) == 0:
        return 1.0
    found = _NORMAL_DEVIATION * float(np.median(np.abs(values - centre)))
    return found or float(np.std(values)) or 1.0


class Evidence:
    """The evidence of one metric of one endpoint, a row at a time, in standard deviations of a normal distribution.

    A residual counts by itself and in the average of those before it. `k` values missing of late count as what happens by
    chance with probability `loss ** k`: that is about sqrt(2 k ln(1 / loss)) deviations.
    """

    __slots__ = ("_centre", "_limit", "_memory", "_per_loss", "_scale", "_smooth", "_smoothing", "average", "lost")

    def __init__(self, noise: Noise, settings: EvidenceSettings, average: float = 0.0, lost: float = 0.0) -> None:
        self._centre, self._scale, self._smooth = noise.centre, noise.scale, noise.smooth
        self._per_loss = -2 * math.log(noise.loss)
        self._smoothing, self._limit, self._memory = settings.smoothing, settings.limit, settings.loss_memory
        self.average = average
        """The exponentially weighted average of the residuals so far, in `Noise.scale`s."""
        self.lost = lost
        """The count of missing values, fading."""

    def step(self, residual: float, missing: bool) -> float:
        """The evidence of a row; `residual` is NaN where there is no forecast or no value."""
        self.lost = self._memory * self.lost + missing
        found = math.sqrt(self._per_loss * self.lost)
        if not math.isnan(residual):
            standard = (residual - self._centre) / self._scale
            bounded = min(max(standard, -self._limit), self._limit)
            self.average += self._smoothing * (bounded - self.average)
            found = max(found, abs(standard))
        return max(found, abs(self.average) / self._smooth)

    def forget(self) -> None:
        """Begins anew, after a gap."""
        self.average = self.lost = 0.0
