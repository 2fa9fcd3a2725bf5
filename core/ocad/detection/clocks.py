"""Time in a live stream: one clock for the stream, each link's own beside it, and rows whose time cannot be.

The stream's time advances with the rows and, while none comes, with the wall clock, so that silence passes too and a
recording that is replayed in a second has its own hours. A link whose clock is off is read by how far it is off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

SECOND = 1_000_000
MAX_AHEAD_S = 60.0
"""How far a row may be ahead of this machine's clock, or of the rows around it."""
SKEW_US = 10 * SECOND
"""Clocks that differ by less count as equal."""
_WINDOW = 60
"""Rows over which a link's least delay is taken for its clock's: what comes in bursts is late, not slow."""

Verdict = Literal["take", "hold", "future", "past"]


@dataclass(slots=True)
class _Link:
    skew_us: int
    """What to add to the link's own time to get the stream's."""
    least_us: int
    """The least delay behind the stream's time among the rows of this window."""
    rows: int = 0


class StreamClock:
    """The time of a stream in µs since 1970, and each link's difference from it."""

    def __init__(
        self, max_ahead_s: float = MAX_AHEAD_S, wall_us: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        self._ahead_us, self._wall_us = round(max_ahead_s * SECOND), wall_us
        self.now_us: int | None = None
        """None before the first row."""
        self._resumed = False
        self._links: dict[str, _Link] = {}

    def judge(self, endpoint: str, time_us: int, usual_us: float = 0.0) -> Verdict:
        """What to do with a row: take it, hold it until the next one of its link says whether it can be true, or refuse it.

        `usual_us` is the longest step that is usual for the link. It is `future` beyond the wall clock, `past` before 1970.
        """
        if time_us < 0:
            return "past"
        if self.is_future(time_us):
            return "future"
        if self.now_us is None:
            return "take"
        leap = time_us + self.skew_us(endpoint) - self.now_us
        if leap <= max(self._ahead_us, usual_us):
            return "take"
        return "take" if self._resumed and self._wall_us() - time_us <= self._ahead_us else "hold"

    def take(self, endpoint: str, time_us: int) -> int:
        """A row was taken; returns its time in the stream's terms, which is never later than `now_us` afterwards."""
        link = self._links.get(endpoint)
        if self.now_us is None:
            self.now_us = time_us
        if self._resumed:  # how long nobody listened, its first row says
            self.now_us = max(self.now_us, time_us + self.skew_us(endpoint))
            self._resumed = False
        if link is None:
            difference = self.now_us - time_us
            skew = difference if abs(difference) > SKEW_US else 0
            link = self._links[endpoint] = _Link(skew, abs(difference - skew))
        self.now_us = max(self.now_us, time_us + link.skew_us)
        delay = self.now_us - time_us - link.skew_us
        link.least_us = min(link.least_us, delay)
        link.rows += 1
        if link.rows >= _WINDOW:
            if link.least_us > SKEW_US:
                link.skew_us += link.least_us
            link.rows, link.least_us = 0, delay
        return time_us + link.skew_us

    def wait(self, seconds: float) -> None:
        """Nothing came for so long."""
        if self.now_us is not None:
            self.now_us += round(seconds * SECOND)

    def is_future(self, time_us: int) -> bool:
        """Whether the time is further ahead of this machine's clock than a row may be."""
        return time_us > self._wall_us() + self._ahead_us

    def resume(self, now_us: int) -> None:
        """The stream goes on from this time; 0 for none, as for one from the future, at which every row would be late."""
        known = bool(now_us) and not self.is_future(now_us)
        self.now_us, self._resumed = now_us if known else None, known

    def skew_us(self, endpoint: str) -> int:
        """What to add to the link's own time to get the stream's; 0 for a link that was not heard."""
        link = self._links.get(endpoint)
        return link.skew_us if link else 0

    def lag_s(self) -> float:
        """How far the stream is behind this machine's clock, in seconds; 0 before the first row."""
        return 0.0 if self.now_us is None else (self._wall_us() - self.now_us) / SECOND

    def reset(self, endpoint: str) -> None:
        """The link's clock was set: its next row says anew how far it is off."""
        self._links.pop(endpoint, None)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON-able values."""
        return {"now_us": self.now_us, "skews": {name: link.skew_us for name, link in self._links.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; an empty one is the beginning."""
        self.resume(state.get("now_us") or 0)
        self._links = {name: _Link(int(skew), 0) for name, skew in state.get("skews", {}).items()}
