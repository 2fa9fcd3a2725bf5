"""Clean backgrounds: the quiet rows of a real link, resampled into a series in which nothing natural happens.

The stationary bootstrap (Politis and Romano, "The stationary bootstrap", JASA 89, 1994): blocks of geometric length from
places drawn at random, so that the noise of a link keeps its tail and its dependence from row to row.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.detection.truth.natural import natural_events, surroundings
from ocad.errors import DataError

ROWS = 6000
MEAN_BLOCK = 50.0
"""Rows of a block on average; it ends earlier where the quiet rows do."""
LEAST_QUIET = 500
"""Quiet rows that a link must have to be resampled."""
MARGIN = 10
"""Rows beside a natural event that are not quiet."""

Floats = NDArray[np.float64]


def clean_backgrounds(
    frame: pd.DataFrame, metric: str, seed: int, rows: int = ROWS, mean_block: float = MEAN_BLOCK
) -> pd.DataFrame:
    """A series of `rows` rows for each link of `frame` that has enough quiet ones: `timestamp`, `endpoint`, `metric`.

    Steps are the link's median step. A link's series depends on the seed and its own rows alone. Raises `DataError`
    when no link has `LEAST_QUIET` quiet rows.
    """
    parts = []
    for endpoint, part in frame.groupby("endpoint", sort=True):
        values = part[metric].to_numpy(np.float64)
        quiet = quiet_rows(values)
        if quiet.sum() < LEAST_QUIET:
            continue
        made = stationary_bootstrap(values, quiet, rows, mean_block, seeded(seed, str(endpoint)))
        step = part["timestamp"].diff().median()
        times = part["timestamp"].iloc[0] + step * np.arange(rows)
        parts.append(pd.DataFrame({"timestamp": times, "endpoint": str(endpoint), metric: made}))
    if not parts:
        raise DataError(f"no link has {LEAST_QUIET} quiet rows of `{metric}`", "give longer or calmer series")
    return pd.concat(parts, ignore_index=True)


def quiet_rows(values: Floats) -> NDArray[np.bool_]:
    """Whether each of `values` `(n,)` lies more than `MARGIN` rows from every natural event; see `natural_events`."""
    return ~natural_events(values).rows(len(values), MARGIN)


def stationary_bootstrap(
    values: Floats, quiet: NDArray[np.bool_], rows: int, mean_block: float, generator: np.random.Generator
) -> Floats:
    """`rows` values in blocks of consecutive `quiet` rows of `values` `(n,)`, about the median level of the quiet ones.

    Each block is moved by what the level around its middle row differs from the link's, so lasting levels stay out while what
    happens within a block stays as it was. Lost rows stay lost.
    """
    level, _ = surroundings(values)
    usual = float(np.median(level[quiet & np.isfinite(level)]))
    starts = np.flatnonzero(quiet)
    ends = _ends_of_stretches(quiet)
    made: list[Floats] = []
    total = 0
    while total < rows:
        first = int(starts[generator.integers(len(starts))])
        length = min(int(generator.geometric(1 / mean_block)), int(ends[first]) - first, rows - total)
        around = level[first + length // 2]
        made.append(values[first : first + length] + (usual - around if np.isfinite(around) else 0.0))
        total += length
    return np.concatenate(made)


def seeded(seed: int, endpoint: str, *more: int) -> np.random.Generator:
    """One stream for each endpoint, whatever other endpoints stand beside it."""
    digest = hashlib.sha256(endpoint.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big"), *more])


def _ends_of_stretches(quiet: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row the row after the stretch of quiet rows that it is in."""
    rows = np.arange(len(quiet))
    noisy = np.where(quiet, len(quiet), rows)
    return np.minimum.accumulate(noisy[::-1])[::-1]
