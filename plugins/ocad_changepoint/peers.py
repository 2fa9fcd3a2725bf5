"""What the other endpoints have in common: a prober's host that is busy delays all of its links, and none of them is to blame.

Each endpoint's deviations are averaged over its last rows; an endpoint is compared with the median of its peers' averages
as they stood before its own row. Rows of the same time are peers of none, so the order in which they arrive does not
matter; rows of all endpoints must arrive in the order of their times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from ocad.detection.level import column_medians, median_of

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

_KEPT = 2
"""Averages that an endpoint's track keeps: the newest, and the one before for rows of the same time."""


def averages(track: dict[str, Any], times: Times, deviations: Floats, weight: float) -> tuple[Times, Floats]:
    """Times and averages of the kept rows and of the new ones `(n, m)`; the track's `smooth` then holds the last of them."""
    kept = track["smooth"]
    before = np.array(kept[-1][1]) if kept else np.zeros(deviations.shape[1])
    smooth = lfilter([weight], [1, weight - 1], deviations, axis=0, zi=(1 - weight) * before[None])[0]
    times = np.concatenate([np.array([time for time, _ in kept], np.int64), times])
    smooth = np.concatenate([np.array([row for _, row in kept]).reshape(-1, deviations.shape[1]), smooth])
    track["smooth"] = [
        [int(times[place]), smooth[place].tolist()] for place in range(max(0, len(times) - _KEPT), len(times))
    ]
    return times, smooth


def common(times: Times, peers: Sequence[tuple[Times, Floats]], stale_us: float) -> Floats:
    """The median `(n, m)` of the `peers`' averages as they stood before each of `times` `(n,)`; 0 where none is recent."""
    found = []
    for known, smooth in peers:
        place = np.searchsorted(known, times, side="left") - 1
        recent = (place >= 0) & (times - known[place] <= stale_us)
        found.append(np.where(recent[:, None], smooth[place], np.nan))
    return np.nan_to_num(column_medians(np.stack(found, axis=1)), nan=0.0)


def common_point(
    endpoint: str, time_us: int, tracks: Mapping[str, Mapping[str, Any]], stale_us: float
) -> Sequence[float] | None:
    """The same for one row; None where no peer is recent."""
    found = []
    for name, track in tracks.items():
        if name == endpoint:
            continue
        before = next((row for row in reversed(track.get("smooth", ())) if row[0] < time_us), None)
        if before is not None and time_us - before[0] <= stale_us:
            found.append(before[1])
    return [median_of(column) for column in zip(*found, strict=True)] if found else None


def remember_point(track: dict[str, Any], time_us: int, deviations: Sequence[float], weight: float) -> None:
    """`averages` for one row."""
    kept = track["smooth"]
    before = kept[-1][1] if kept else [0.0] * len(deviations)
    row = [weight * new + (1 - weight) * old for new, old in zip(deviations, before, strict=True)]
    track["smooth"] = [*kept[1 - _KEPT :], [time_us, row]]
