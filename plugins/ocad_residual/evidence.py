"""From residuals to evidence: how far one metric is from its forecast, now and on average, and how much of it is lost."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad_residual.config import EvidenceSettings

Floats = NDArray[np.float64]

_NORMAL_DEVIATION = 1.4826
"""The standard deviation of a normal distribution by its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Normal:
    """What is normal for one metric of one endpoint, from its training rows."""

    low: float
    high: float
    """The values that a forecaster sees lie between these: an anomaly never becomes what it expects next."""
    centre: float
    """The median residual."""
    scale: float
    """The robust standard deviation of the residuals."""
    smooth: float
    """The robust standard deviation of their exponentially weighted average, in `scale`s."""
    loss: float
    """The share of missing values."""

    @classmethod
    def fit(cls, span: tuple[float, float], residuals: Floats, lost: int, settings: EvidenceSettings) -> Normal:
        """From `residuals` `(n,)` in time order, all finite, and the number of `lost` values; `span` is low and high."""
        centre = float(np.median(residuals)) if len(residuals) else 0.0
        scale = robust_deviation(residuals, centre)
        standard = np.clip((residuals - centre) / scale, -settings.limit, settings.limit)
        average, averages = 0.0, []
        for value in standard.tolist():
            average += settings.smoothing * (value - average)
            averages.append(average)
        smooth = robust_deviation(np.asarray(averages), 0.0) if averages else 1.0
        return cls(*span, centre, scale, smooth, (lost + 1) / (len(residuals) + lost + 2))

    def to_json(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Normal:
        """What `to_json` wrote."""
        return cls(*(float(value[item.name]) for item in fields(cls)))


def normal_span(values: Floats, share: float | None) -> tuple[float, float]:
    """The lowest and highest of the central `share` of `values` `(n,)`, NaN left out; any number for None."""
    known = values[np.isfinite(values)]
    if share is None or len(known) == 0:
        return -sys.float_info.max, sys.float_info.max
    low, high = np.quantile(known, ((1 - share) / 2, (1 + share) / 2))
    return float(low), float(high)


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

    def __init__(self, normal: Normal, settings: EvidenceSettings, average: float = 0.0, lost: float = 0.0) -> None:
        self._centre, self._scale, self._smooth = normal.centre, normal.scale, normal.smooth
        self._per_loss = -2 * math.log(normal.loss)
        self._smoothing, self._limit, self._memory = settings.smoothing, settings.limit, settings.loss_memory
        self.average = average
        """The exponentially weighted average of the residuals so far, in `Normal.scale`s."""
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
