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


def window_sums(increments: Floats, window: int, shortest: int = 1, prompt: bool = False) -> Floats:
    """For the rows of `increments` `(window + n, c)` after the first `window`, the largest sum that ends there, `(n, c)`.

    A sum spans `shortest` to `window` rows. `prompt`: 0 where the row's own increment is not above 0.
    """
    sums = np.cumsum(increments, axis=0)
    span = window - shortest + 1
    lowest, size = sums[: len(sums) - shortest + 1], 1
    while 2 * size <= span:  # doubling: the lowest of `size` rows, then of twice as many
        lowest = np.minimum(lowest[:-size], lowest[size:])
        size *= 2
    if size < span:
        lowest = np.minimum(lowest[: size - span], lowest[span - size :])
    largest = sums[window:] - lowest[:-1]
    return np.where(increments[window:] > 0, largest, 0.0) if prompt else np.asarray(largest)


def run_lengths(mask: NDArray[np.bool_], before: NDArray[np.int64] | int = 0) -> NDArray[np.int64]:
    """For each row of `mask` `(n, …)` how many rows in a row, it included, hold, after `before` (…) such rows."""
    rows = np.arange(len(mask)).reshape(-1, *(1,) * (mask.ndim - 1))
    return np.asarray(rows - np.maximum.accumulate(np.where(mask, -1 - before, rows), axis=0))


def point_sum(
    newest_first: Sequence[float], drifts: Sequence[float], down_too: bool, shortest: int = 1, prompt: bool = False
) -> float:
    """The same for one row, upwards or in both directions: `newest_first` are deviations, `drifts` the drift times 1, 2, …"""
    newest, drift = newest_first[0], drifts[0]
    if prompt and (abs(newest) if down_too else newest) <= drift:
        return 0.0
    sums = list(accumulate(newest_first))
    if shortest > 1:
        sums, drifts = sums[shortest - 1 :] or [sums[-1]], drifts[shortest - 1 :]
    up: float = 0.0 if prompt and newest <= drift else max(map(sub, sums, drifts))
    down: float = -min(map(add, sums, drifts)) if down_too and not (prompt and -newest <= drift) else 0.0
    return max(up, down)


def loss_sum(lost: int, hit: float, miss: float) -> float:
    """The same for lost rows as bits, the newest the lowest: `hit` for a lost row, `miss` (below 0) for an answered one."""
    best = total = 0.0
    while lost:
        total += hit if lost & 1 else miss
        best = max(best, total)
        lost >>= 1
    return best
