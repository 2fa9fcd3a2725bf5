"""Hold-down: an alarm begins on strong or repeated evidence and ends only after quiet, row by row or vectorised alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.detection.sums import run_lengths
from ocad.detection.units import ALARM
from ocad.errors import UsageError


class Hold:
    """The alarm of one endpoint's scores.

    It begins at a score of at least `instant`, or when `k` of the last `n` rows have at least `on`; it ends at the `m`-th
    row in a row below `off`, after which earlier rows no longer count. Lower levels never end an alarm or keep one from
    beginning. Raises `UsageError` for thresholds out of order.
    """

    def __init__(self, on: float, instant: float, k: int, n: int, off: float, m: int) -> None:
        if not off <= on <= instant:
            raise UsageError(f"hold-down thresholds {off:g}, {on:g}, {instant:g}", "they must be off <= on <= instant")
        if not 1 <= k <= n or m < 1:
            raise UsageError(f"hold-down counts k={k}, n={n}, m={m}", "they must be 1 <= k <= n and m >= 1")
        self.on, self.instant, self.off = on, instant, off
        self.k, self.n, self.m = k, n, m
        self.alarm = False
        self._recent: list[bool] = []
        """Whether each of the last rows (at most `n`) reached `on`."""
        self._below = 0
        """Rows in a row below `off`, while the alarm is on."""

    def step(self, score: float) -> bool:
        """Whether the alarm is on after this row."""
        self._recent.append(score >= self.on)
        if len(self._recent) > self.n:
            del self._recent[0]
        if score >= self.instant or (score >= self.on and sum(self._recent) >= self.k):
            self.alarm, self._below = True, 0
        elif self.alarm:
            self._below = self._below + 1 if score < self.off else 0
            if self._below == self.m:
                self.alarm, self._below = False, 0
        return self.alarm

    def run(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """`step` for each of `scores` `(n,)`."""
        values = np.asarray(scores, np.float64)
        if len(values) == 0:
            return np.zeros(0, dtype=bool)
        reached = np.concatenate([self._recent, values >= self.on]).astype(bool)
        counted = np.cumsum(np.concatenate([np.zeros(self.n, np.int64), reached]))
        within = (counted[self.n :] - counted[: -self.n])[len(self._recent) :]
        begins = (values >= self.instant) | ((values >= self.on) & (within >= self.k))
        carried = self._below if self.alarm else 0
        quiet = (values < self.off) & ~begins
        below = run_lengths(np.concatenate([np.ones(carried, dtype=bool), quiet]))[carried:]
        rows = np.arange(len(values))
        began = np.maximum.accumulate(np.where(begins, rows, -1 if self.alarm else -len(values) - 2))
        ended = np.maximum.accumulate(np.where(below >= self.m, rows, -len(values) - 1))
        alarm = began > ended
        if self.alarm:
            alarm |= (began == -1) & (ended < 0)
        self.alarm = bool(alarm[-1])
        self._below = int(below[-1]) if self.alarm else 0
        self._recent = reached[-self.n :].tolist()
        return np.asarray(alarm)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON-able values."""
        recent = [int(reached) for reached in self._recent]
        return {"alarm": self.alarm, "recent": recent, "below": self._below}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; an empty one is the beginning."""
        self.alarm = bool(state.get("alarm", False))
        self._recent = [bool(reached) for reached in state.get("recent", ())]
        self._below = int(state.get("below", 0))


REST = 10
"""Quiet rows after which an alarm is another incident; one that comes back before belongs to the one that it was."""


def default_hold(level: float = ALARM) -> Hold:
    """The hold-down of scores in noise units: one row at `level` begins an alarm, one below three quarters of it ends it."""
    return Hold(on=level, instant=level, k=1, n=1, off=0.75 * level, m=1)
