"""From residuals to evidence: how far one metric is from its forecast, now and on average, in noise units."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.level import robust_sigma
from ocad.detection.units import spike_gain
from ocad_residual.config import EvidenceSettings

Floats = NDArray[np.float64]


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
    alone: float = 1.0
    """What a single residual counts, less than 1 where far ones are usual."""
    together: float = 1.0
    """The same of the average."""
    upward: float = 0.0
    """1 where only values above their forecast count."""

    @classmethod
    def fit(cls, span: tuple[float, float], residuals: Floats, upward: bool, settings: EvidenceSettings) -> Normal:
        """From `residuals` `(n,)` in time order, all finite, a tenth of them of incidents; `span` is low and high."""
        centre = float(np.median(residuals)) if len(residuals) else 0.0
        scale = robust_deviation(residuals, centre)
        standard = np.clip((residuals - centre) / scale, -settings.limit, settings.limit)
        average, averages = 0.0, []
        for value in standard.tolist():
            average += settings.smoothing * (value - average)
            averages.append(average)
        # a residual of one scale moves the average by `smoothing`: what is quieter than that has hardly moved yet
        smooth = max(robust_deviation(np.asarray(averages), 0.0), settings.smoothing) if averages else 1.0
        alone, together = (
            spike_gain(found if upward else np.abs(found))
            for found in ((residuals - centre) / scale, np.asarray(averages) / smooth)
        )
        return cls(*span, centre, scale, smooth, alone, together, float(upward))

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
    """The robust deviation of `values` `(n,)` from `centre`, above 0."""
    return robust_sigma(values - centre, 0.0)


class Evidence:
    """The evidence of one metric of one endpoint, a row at a time, in noise units.

    A residual counts by itself and in the average of those before it.
    """

    __slots__ = ("_centre", "_limit", "_per_average", "_per_residual", "_scale", "_smoothing", "_upward", "average")

    def __init__(self, normal: Normal, settings: EvidenceSettings, average: float = 0.0) -> None:
        self._centre, self._scale, self._upward = normal.centre, normal.scale, bool(normal.upward)
        self._per_residual, self._per_average = normal.alone, normal.together / normal.smooth
        self._smoothing, self._limit = settings.smoothing, settings.limit
        self.average = average
        """The exponentially weighted average of the residuals so far, in `Normal.scale`s."""

    def step(self, residual: float) -> float:
        """The evidence of a row; `residual` is NaN where there is no forecast or no value."""
        alone = 0.0
        if not math.isnan(residual):
            alone = (residual - self._centre) / self._scale
            bounded = min(max(alone, -self._limit), self._limit)
            self.average += self._smoothing * (bounded - self.average)
        average = self.average
        if not self._upward:
            alone, average = abs(alone), abs(average)
        return max(alone * self._per_residual, average * self._per_average, 0.0)

    def forget(self) -> None:
        """Begins anew, after a gap."""
        self.average = 0.0
