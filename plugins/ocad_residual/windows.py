"""The windows that a series is forecast from: missing values hold the last one, a new stretch begins flat."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ocad.timeseries.windows import Windows
from ocad_residual.forecasters import Forecaster

Floats = NDArray[np.float64]

CHUNK = 4096
"""Windows that are forecast in one call: memory stays bounded however long a series is."""


def forecast_series(
    forecaster: Forecaster, values: Floats, broken: NDArray[np.bool_], window: Sequence[float]
) -> tuple[Floats, list[float]]:
    """The forecast `(n,)` of each of `values` `(n,)` from those before it, and the window that the next row has.

    `broken` says where a stretch begins; `window` is what an earlier piece left, [] at the beginning. NaN until the first
    value of a stretch is known. A value never sees itself.
    """
    forecasts = np.full(len(values), np.nan)
    left = list(window)
    starts = np.unique(np.concatenate([[0], np.flatnonzero(broken), [len(values)]]))
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if broken[start]:
            left = []
        left = _forecast_stretch(forecaster, values[start:end], left, forecasts[start:end])
    return forecasts, left


def slide(window: list[float], value: float, length: int) -> None:
    """What `forecast_series` does to the window for one row: in place, [] until a value is known."""
    if not window:
        if not math.isnan(value):
            window.extend([value] * length)
        return
    window.append(window[-1] if math.isnan(value) else value)
    del window[0]


def _forecast_stretch(forecaster: Forecaster, values: Floats, window: list[float], into: Floats) -> list[float]:
    known = np.flatnonzero(~np.isnan(values))
    first = 0
    if not window:
        if len(known) == 0:
            return []
        first = int(known[0]) + 1
        window = [float(values[known[0]])] * forecaster.length
    series = np.concatenate([window, values[first:]])
    held = np.maximum.accumulate(np.where(np.isnan(series), 0, np.arange(len(series))))  # the window has no NaN
    series = series[held]
    windows = sliding_window_view(series, forecaster.length)[:-1]
    for start in range(0, len(windows), CHUNK):
        into[first + start : first + start + CHUNK] = forecaster.forecast(windows[start : start + CHUNK])
    return [float(value) for value in series[-forecaster.length :]]


def whole_windows(times: NDArray[np.int64], values: Floats, broken: NDArray[np.bool_], length: int) -> Windows:
    """Every window of `length` known values of one stretch, with the value that follows it; its endpoint stays empty."""
    stretch = np.cumsum(broken) + np.cumsum(np.isnan(values))
    starts = np.arange(max(0, len(values) - length))
    starts = starts[~np.isnan(values[starts]) & (stretch[starts] == stretch[starts + length])]
    sequence = sliding_window_view(values, length)[starts] if len(starts) else np.empty((0, length))
    target = starts + length
    return Windows(sequence, values[target], times[target].view("datetime64[us]"), np.full(len(target), "", object))
