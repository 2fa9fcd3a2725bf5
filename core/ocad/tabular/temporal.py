"""Features of time: hour, weekday, recency, and the click rate of the past at the same hour of the day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOUR = 3600
DAY = 24 * HOUR
PARTS = {"hour": 24, "weekday": 7}
"""The categorical parts and how many values each has."""


def hour_of(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … 23, UTC."""
    return times // HOUR % 24


def weekday_of(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Monday = 0 … Sunday = 6; 1 January 1970 was a Thursday."""
    return (times // DAY + 3) % 7


def recency(times: NDArray[np.int64], newest: int) -> NDArray[np.float32]:
    """log(1 + days before `newest`, the newest training row); 0 for later rows."""
    return np.log1p(np.maximum(newest - times, 0) / DAY).astype(np.float32)


@dataclass(frozen=True)
class HourlyRates:
    """Rows and clicks of each hour that has training rows: the hours since 1970 in order, and sums up to each one's end."""

    hours: NDArray[np.int64]
    rows: NDArray[np.int64]
    clicks: NDArray[np.int64]
    smoothing: float

    def rate(self, times: NDArray[np.int64]) -> NDArray[np.float32]:
        """For each time the click rate at its hour of the day, from training rows of earlier hours alone.

        (clicks + smoothing · r) / (rows + smoothing), r the overall rate of earlier hours, starting from one half.
        """
        hours = times // HOUR
        rows, clicks = self._before(hours, self.hours, self.rows, self.clicks)
        overall = (clicks + 0.5) / (rows + 1)
        same_rows, same_clicks = np.zeros(len(times)), np.zeros(len(times))
        for hour in np.unique(hours % 24):
            mine, theirs = hours % 24 == hour, self.hours % 24 == hour
            same_rows[mine], same_clicks[mine] = self._before(
                hours[mine], self.hours[theirs], self.rows[theirs], self.clicks[theirs]
            )
        rates = (same_clicks + self.smoothing * overall) / (same_rows + self.smoothing)
        return rates.astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        arrays = {"hours": self.hours, "rows": self.rows, "clicks": self.clicks}
        return {**{name: array.tolist() for name, array in arrays.items()}, "smoothing": self.smoothing}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> HourlyRates:
        """The rates that `to_json` wrote."""
        arrays = {name: np.asarray(value[name], np.int64) for name in ("hours", "rows", "clicks")}
        return cls(**arrays, smoothing=value["smoothing"])

    @staticmethod
    def _before(
        hours: NDArray[np.int64], known: NDArray[np.int64], rows: NDArray[np.int64], clicks: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sums of `rows` and `clicks` over the `known` hours that are earlier than each of `hours`."""
        place = np.searchsorted(known, hours, side="left")
        return np.append(0, np.cumsum(rows))[place], np.append(0, np.cumsum(clicks))[place]


class TemporalFit:
    """The newest time, and rows and clicks by hour, of the training rows."""

    def __init__(self) -> None:
        self.newest = 0
        self._seen = False
        self._hours: dict[int, list[int]] = {}

    def add(self, times: NDArray[np.int64], label: NDArray[np.float32]) -> None:
        """Takes in a batch."""
        if not len(times):
            return
        newest = int(times.max())
        self.newest = max(self.newest, newest) if self._seen else newest
        self._seen = True
        hours, place = np.unique(times // HOUR, return_inverse=True)
        rows, clicks = np.bincount(place), np.bincount(place, weights=label)
        for hour, row_count, click_count in zip(hours.tolist(), rows.tolist(), clicks.tolist(), strict=True):
            entry = self._hours.setdefault(hour, [0, 0])
            entry[0] += row_count
            entry[1] += int(click_count)

    def rates(self, smoothing: float) -> HourlyRates:
        """The rates by hour."""
        hours = sorted(self._hours)
        rows, clicks = (np.asarray([self._hours[hour][i] for hour in hours], np.int64) for i in (0, 1))
        return HourlyRates(np.asarray(hours, np.int64), rows, clicks, smoothing)
