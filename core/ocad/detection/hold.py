"""Hold-down: an alarm begins on strong or repeated evidence and ends only after quiet, row by row or vectorised alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.errors import UsageError


class Hold:
    """The alarm of one endpoint's scores.

    It begins at a score of at least `instant`, or when `k` of the last `n` rows have at least `on`; it ends at the `m`-th
    row in a row below `off`, after which earlier rows no longer count. Another begins only after `rest` rows in a row below
    `off`, those `m` included, so that an endpoint that flaps is told of once. Raises `UsageError` for thresholds out of order.
    """

    def __init__(self, on: float, instant: float, k: int, n: int, off: float, m: int, rest: int = 0) -> None:
        if not off <= on <= instant:
            raise UsageError(f"hold-down thresholds {off:g}, {on:g}, {instant:g}", "they must be off <= on <= instant")
        if not 1 <= k <= n or m < 1:
            raise UsageError(f"hold-down counts k={k}, n={n}, m={m}", "they must be 1 <= k <= n and m >= 1")
        self.on, self.instant, self.off = on, instant, off
        self.k, self.n, self.m, self.rest = k, n, m, max(m, rest)
        self.alarm = False
        self._resting = False
        """Whether the last alarm is over and its `rest` is not."""
        self._recent: list[bool] = []
        """Whether each of the last rows (at most `n`, none from before the last alarm's end) reached `on`."""
        self._below = 0
        """Rows in a row below `off`, while the alarm is on or at rest."""

    def step(self, score: float) -> bool:
        """Whether the alarm is on after this row."""
        if self.alarm or self._resting:
            self._below = self._below + 1 if score < self.off else 0
            if self.alarm and self._below == self.m:
                self.alarm, self._resting = False, True
            if self._resting and self._below == self.rest:
                self._resting, self._below = False, 0
            return self.alarm
        self._recent.append(score >= self.on)
        if len(self._recent) > self.n:
            del self._recent[0]
        if score >= self.instant or (score >= self.on and sum(self._recent) >= self.k):
            self.alarm = True
            self._recent.clear()
        return self.alarm

    def run(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """`step` for each of `scores` `(n,)`, visiting only the rows where an alarm begins or ends."""
        values = np.asarray(scores, np.float64)
        held = self.alarm or self._resting
        carried = self._below if held else len(self._recent)
        on = np.concatenate([np.full(carried, False) if held else self._recent, values >= self.on]).astype(bool)
        instant = np.concatenate([np.full(carried, False), values >= self.instant])
        below = _run_lengths(np.concatenate([np.full(carried, held), values < self.off]))
        starts = _Starts(on, instant, self.k, self.n)
        ends, rested = (np.flatnonzero(below >= rows) for rows in (self.m, self.rest))
        alarm, position = np.zeros(len(on), dtype=bool), 0
        while position < len(on):
            if self._resting:
                place = int(np.searchsorted(rested, position))
                self._resting = place == len(rested)
                position = len(on) if self._resting else int(rested[place]) + 1
                continue
            start = position if self.alarm else starts.after(position)
            if start is None:
                break
            place = int(np.searchsorted(ends, start))
            self.alarm = place == len(ends)
            self._resting = not self.alarm
            position = len(on) if self.alarm else int(ends[place])
            alarm[start:position] = True
        held = self.alarm or self._resting
        self._below = int(below[-1]) if held and len(below) else 0
        self._recent = [] if held else on[max(position, len(on) - self.n) :].tolist()
        return alarm[carried:]

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON-able values."""
        return {
            "alarm": self.alarm,
            "resting": self._resting,
            "recent": [int(reached) for reached in self._recent],
            "below": self._below,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; an empty one is the beginning."""
        self.alarm, self._resting = (bool(state.get(name, False)) for name in ("alarm", "resting"))
        self._recent = [bool(reached) for reached in state.get("recent", ())]
        self._below = int(state.get("below", 0))


def default_hold() -> Hold:
    """The hold-down of surprises where none was tuned: three of five rows at 3, or one at 6, until five are below 2."""
    return Hold(on=3.0, instant=6.0, k=3, n=5, off=2.0, m=5)


class _Starts:
    """Where an alarm begins: at an instant row, or at the `k`-th of `k` reaching rows within `n`."""

    def __init__(self, on: NDArray[np.bool_], instant: NDArray[np.bool_], k: int, n: int) -> None:
        self._k = k
        self._on, self._instant = np.flatnonzero(on), np.flatnonzero(instant)
        spans = self._on[k - 1 :] - self._on[: max(0, len(self._on) - k + 1)]
        self._completing = np.flatnonzero(spans < n) + k - 1
        """Places in `_on` of the rows that complete `k` within `n`."""

    def after(self, position: int) -> int | None:
        """The first start at or after row `position`, counting no row before it."""
        found = []
        place = int(np.searchsorted(self._instant, position))
        if place < len(self._instant):
            found.append(int(self._instant[place]))
        first = int(np.searchsorted(self._on, position))
        place = int(np.searchsorted(self._completing, first + self._k - 1))
        if place < len(self._completing):
            found.append(int(self._on[self._completing[place]]))
        return min(found, default=None)


def _run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row how many rows in a row, it included, have `mask`."""
    rows = np.arange(len(mask))
    return rows - np.maximum.accumulate(np.where(mask, -1, rows))
