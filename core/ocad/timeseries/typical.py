"""Typical rows of a series: what remains when a few values that are out of all proportion are set aside.

One value of 1e9 among thousands of 500 owns every mean, deviation and squared error: a model that repeats the last value then
looks perfect. What is fitted, chosen and gated looks at typical rows; squared errors of all rows are measured beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ocad.timeseries.windows import Windows

REACH = 20.0
"""Deviations from the median within which a training value is typical, the deviation taken from its middle 95 %."""
STRIDE = 10.0
"""A step is typical up to so many times what 95 % of the steps stay below."""
_MIDDLE = 3.92
"""The width of the middle 95 % of a standard normal."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Typical:
    """What is typical of a series, fitted on its training part: values from `low` to `high`, steps up to `stride`."""

    low: float
    high: float
    stride: float

    def steady(self, windows: Windows) -> NDArray[np.bool_]:
        """The windows `(n,)` without a step beyond `stride`, at whatever level: a path may have moved since training."""
        values = np.column_stack([windows.sequence, windows.target])
        largest = np.abs(np.diff(values, axis=1)).max(axis=1)
        return np.asarray(largest <= self.stride)

    def within(self, windows: Windows) -> NDArray[np.bool_]:
        """The steady windows `(n,)` whose values all lie from `low` to `high`: what to learn from."""
        values = np.column_stack([windows.sequence, windows.target])
        return np.asarray((values.min(axis=1) >= self.low) & (values.max(axis=1) <= self.high)) & self.steady(windows)


def fit_typical(train: Windows) -> Typical:
    """What is typical of the training part; where 95 % of it never moves, everything is."""
    target = train.target
    low, middle, high = (float(value) for value in np.quantile(target, (0.025, 0.5, 0.975)))
    reach = REACH * (high - low) / _MIDDLE or np.inf
    stride = STRIDE * float(np.quantile(np.abs(target - train.sequence[:, -1]), 0.95)) or np.inf
    return Typical(middle - reach, middle + reach, stride)


def chosen(windows: Windows, rows: NDArray[np.bool_]) -> Windows:
    """The windows where `rows` is true; all of them where it is true of none."""
    if rows.all() or not rows.any():
        return windows
    return Windows(**{field.name: getattr(windows, field.name)[rows] for field in fields(Windows)})
