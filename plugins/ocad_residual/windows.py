"""The windows that a series is forecast from: a missing value holds the last one, a new stretch begins flat."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ocad.timeseries.windows import Windows
from ocad_residual.forecasters import Forecaster

Floats = NDArray[np.float64]

CHUNK = 4096
"""Windows that are forecast in one call: memory stays bounded however long a series is."""


@dataclass(slots=True)
class Window:
    """The last values of one series as its forecaster sees them: none missing, none outside `low` and `high`."""

    length: int
    low: float
    high: float
    values: list[float] = field(default_factory=list)
    """`length` values, or none until the first of a stretch is known."""

    def slide(self, value: float) -> None:
        """Goes on by one row; a missing value holds the last one, the first known one stands for all before it."""
        if math.isnan(value):
            if self.values:
                self.values = [*self.values[1:], self.values[-1]]
            return
        seen = min(max(value, self.low), self.high)
        self.values = [*self.values[1:], seen] if self.values else [seen] * self.length

    def forecast(self, forecaster: Forecaster, values: Floats, broken: NDArray[np.bool_]) -> Floats:
        """The forecast `(n,)` of each of `values` `(n,)` from those before it, NaN until one is known; slides over all.

        `broken` says where a stretch begins, at which the window begins anew.
        """
        forecasts = np.full(len(values), np.nan)
        starts = np.unique(np.concatenate([[0], np.flatnonzero(broken), [len(values)]]))
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            if broken[start]:
                self.values = []
            self._forecast_stretch(forecaster, values[start:end], forecasts[start:end])
        return forecasts

    def _forecast_stretch(self, forecaster: Forecaster, values: Floats, into: Floats) -> None:
        first = 0
        if not self.values:
            known = np.flatnonzero(~np.isnan(values))
            if len(known) == 0:
                return
            first = int(known[0]) + 1
            self.slide(float(values[known[0]]))
        series = np.clip(np.concatenate([self.values, values[first:]]), self.low, self.high)
        series = series[np.maximum.accumulate(np.where(np.isnan(series), 0, np.arange(len(series))))]
        windows = sliding_window_view(series, self.length)[:-1]
        for start in range(0, len(windows), CHUNK):
            into[first + start : first + start + CHUNK] = forecaster.forecast(windows[start : start + CHUNK])
        self.values = [float(value) for value in series[-self.length :]]


def whole_windows(times: NDArray[np.int64], values: Floats, broken: NDArray[np.bool_], length: int) -> Windows:
    """Every window of `length` known values of one stretch, with the value that follows it; its endpoint stays empty."""
    stretch = np.cumsum(broken) + np.cumsum(np.isnan(values))
    starts = np.arange(max(0, len(values) - length))
    starts = starts[~np.isnan(values[starts]) & (stretch[starts] == stretch[starts + length])]
    sequence = sliding_window_view(values, length)[starts] if len(starts) else np.empty((0, length))
    target = starts + length
    return Windows(sequence, values[target], times[target].view("datetime64[us]"), np.full(len(target), "", object))
