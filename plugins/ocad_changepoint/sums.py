"""Window-limited CUSUM (Page 1954; Lai 1995): the largest sum of increments over any of the last 1 … `window` rows.

Looking back on a bounded number of rows makes a sum fall as soon as the change has left the window, where Page's own
would take as long to come down as it took to rise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import add, sub

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def window_sums(increments: Floats, window: int) -> Floats:
    """For the rows of `increments` `(window + n, c)` after the first `window`, the largest sum that ends there, `(n, c)`."""
    sums = np.cumsum(increments, axis=0)
    lowest, size = sums, 1
    while 2 * size <= window:  # doubling: the lowest of `size` rows, then of twice as many
        lowest = np.minimum(lowest[:-size], lowest[size:])
        size *= 2
    if size < window:
        lowest = np.minimum(lowest[: size - window], lowest[window - size :])
    return np.asarray(sums[window:] - lowest[:-1])


def point_sum(newest_first: Sequence[float], drifts: Sequence[float], down_too: bool) -> float:
    """The same for one row, upwards or in both directions: `newest_first` are deviations, `drifts` the drift times 1, 2, …"""
    sums = list(accumulate(newest_first))
    up: float = max(map(sub, sums, drifts))
    down: float = -min(map(add, sums, drifts)) if down_too else 0.0
    return max(up, down)


def loss_sum(lost: int, hit: float, miss: float) -> float:
    """The same for lost rows as bits, the newest the lowest: `hit` for a lost row, `miss` (below 0) for an answered one."""
    best = total = 0.0
    while lost:
        total += hit if lost & 1 else miss
        best = max(best, total)
        lost >>= 1
    return best
