"""Endpoints that fall silent: their rows stop for longer than their own rhythm allows.

A link that is cut, or whose probe has died, sends no lost rows: it sends none. A `Rhythm` is learnt from the steps that an
endpoint takes, so that one of steady steps is missed within three of them and one that is always irregular is not.
The same rhythm judges a file (`silences`) and a stream (`Presence`).
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.incidents import Incident
from ocad.detection.tracker import fingerprint
from ocad.detection.units import ALARM

if TYPE_CHECKING:
    import pandas as pd

MOST_ENDPOINTS = 10_000
"""Endpoints that a stream may have at a time; beyond them those not heard for longest are forgotten."""
_MISSED = 2.5
"""Steps after which a steady endpoint is silent: two rows are missing, and less than three steps have passed."""
_JITTER, _IRREGULAR = 1.2, 4.5
"""Where its upper steps are longer than so many usual ones, an endpoint may be late by so many times the rest beyond that:
of exponential steps one in 40,000 is longer."""
_UPPER = 0.95
_HICCUP = 4.0
"""A step of at most so many usual ones is a hiccup, which may come again; a longer one is a silence."""
_EAGER, _LENIENT = 3, 10.0
"""Until so many steps are seen an endpoint may be late by so many fitted ones: this data may have another step."""
_ENOUGH = 9
"""Steps that make a rhythm where none was fitted."""
_WINDOW, _BLOCK = 128, 32
"""Steps that are remembered, and how often they are looked at."""
_LONG = 512
_FORGET = 0.999


class Rhythm:
    """The usual step of one endpoint and how long it may be silent, in µs, learnt from its own steps.

    `fitted_us` is the median step of its training rows, if any.
    """

    __slots__ = ("_before", "_fitted", "_hiccup", "_steps", "allowance_us", "count", "step_us")

    def __init__(self, fitted_us: float | None = None) -> None:
        self._fitted = fitted_us or 0.0
        self._steps = array("q")
        self._hiccup = self._before = 0
        self.count = 0
        self.step_us = self._fitted
        self.allowance_us = _LENIENT * self._fitted if self._fitted else math.inf

    def add(self, step: int) -> None:
        """One more step."""
        odd = step > self.allowance_us
        self._extend((step,))
        if odd or self.count <= _ENOUGH or self.count % _BLOCK == 0:
            self._learn()

    def odd(self, steps: NDArray[np.int64]) -> Iterator[int]:
        """The places of `steps` `(n,)` that are longer than allowed; meanwhile the rhythm is as it was before that step."""
        place = 0
        while place < len(steps):
            end = place + 1 if self.count < _ENOUGH else min(len(steps), place + _BLOCK - self.count % _BLOCK)
            long = np.flatnonzero(steps[place:end] > self.allowance_us)
            if len(long):
                end = place + int(long[0]) + 1
                yield end - 1
            self._extend(steps[place:end].tolist())
            if len(long) or self.count <= _ENOUGH or self.count % _BLOCK == 0:
                self._learn()
            place = end

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON-able values."""
        allowance = self.allowance_us if math.isfinite(self.allowance_us) else None
        usual = {"step_us": self.step_us, "allowance_us": allowance, "hiccups": [self._hiccup, self._before]}
        return {"steps": self._steps.tolist(), "count": self.count, **usual}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self._steps, self.count = array("q", state["steps"]), int(state["count"])
        self._hiccup, self._before = state["hiccups"]
        self.step_us = float(state["step_us"])
        self.allowance_us = math.inf if state["allowance_us"] is None else float(state["allowance_us"])

    def _extend(self, steps: Sequence[int]) -> None:
        """Keeps steps of one block."""
        usual = _HICCUP * self.step_us
        self._hiccup = max(self._hiccup, max((step for step in steps if step <= usual), default=0))
        self._steps.extend(steps)
        if len(self._steps) >= _WINDOW + _BLOCK:
            del self._steps[: len(self._steps) - _WINDOW]
        if (self.count + len(steps)) // _LONG > self.count // _LONG:
            self._before, self._hiccup = self._hiccup, 0
        self.count += len(steps)

    def _learn(self) -> None:
        seen = sorted(self._steps[-_WINDOW:])
        middle = float(seen[len(seen) // 2]) if seen else 0.0
        if self.count < _ENOUGH:
            if not self._fitted:
                return
            self.step_us = max(self._fitted, middle)
            if self.count < _EAGER:
                self.allowance_us = _LENIENT * self.step_us
                return
            self.allowance_us = _MISSED * self.step_us + max(0.0, _IRREGULAR * (seen[-1] - _JITTER * self.step_us))
            return
        upper = seen[math.ceil(_UPPER * len(seen)) - 1]
        hiccup = max(self._hiccup, self._before)
        self.step_us = middle
        self.allowance_us = _MISSED * middle + max(0.0, _IRREGULAR * (upper - _JITTER * middle), hiccup - middle)


def silence(endpoint: str, metrics: Sequence[str], start_us: int, end_us: int | None) -> Incident:
    """The incident of an endpoint last heard at `start_us`, until `end_us` where it spoke again; it has no rows."""
    identity = fingerprint(f"{endpoint} silent", start_us)
    return Incident(identity, endpoint, tuple(metrics), start_us, end_us, "silent", ALARM, {}, {}, 0)


def silences(frame: pd.DataFrame, metrics: Sequence[str], steps: Mapping[str, float]) -> Iterator[tuple[Incident, int]]:
    """The silences in a frame (DESIGN §7) sorted by endpoint and time, each with the time in µs at which it was plain.

    `steps` are the fitted ones in µs. A silence at the end, of an endpoint whose last row is earlier than the frame's last
    by more than its rhythm allows, is open.
    """
    if len(frame) == 0:
        return
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64)
    end = int(times.max())
    for name, places in frame.groupby("endpoint", sort=False).indices.items():
        endpoint, own = str(name), times[places]
        rhythm = Rhythm(steps.get(endpoint))
        for place in rhythm.odd(np.diff(own)):
            start, stop = int(own[place]), int(own[place + 1])
            yield silence(endpoint, metrics, start, stop), start + math.ceil(rhythm.allowance_us)
        last = int(own[-1])
        if end - last > rhythm.allowance_us:
            yield silence(endpoint, metrics, last, None), last + math.ceil(rhythm.allowance_us)


@dataclass(slots=True)
class _Watched:
    rhythm: Rhythm
    last_us: int
    """The last row, by the endpoint's own clock."""
    heard_us: int
    """When it came, in the stream's time."""
    late_us: float = 0.0
    """How late rows may come that were measured in time: some senders deliver in bursts."""
    silent: Incident | None = None
    queued_us: float = math.inf
    """Its newest entry among the deadlines."""

    def deadline_us(self) -> float:
        """When it is silent, in the stream's time."""
        return self.heard_us + max(self.rhythm.allowance_us, self.late_us)


class Presence:
    """Who is silent in a stream: told by `due` when the stream's time has passed an endpoint's rhythm, and by `heard` when
    it speaks again. `metrics` are those of the incidents, `steps` the fitted ones in µs. Memory is for `most` endpoints.
    """

    def __init__(self, metrics: Sequence[str], steps: Mapping[str, float], most: int = MOST_ENDPOINTS) -> None:
        self._metrics, self._steps, self._most = tuple(metrics), steps, most
        self._known: dict[str, _Watched] = {}
        """Those that were fitted, the one not heard for longest first; they are forgotten last."""
        self._strangers: dict[str, _Watched] = {}
        self._heap: list[tuple[float, str]] = []
        """For each endpoint that is not silent one deadline that is not later than its own, and such that no longer count."""

    def __len__(self) -> int:
        return len(self._known) + len(self._strangers)

    def allowance_us(self, endpoint: str) -> float:
        """How long the endpoint may be silent; 0 where that is not known."""
        found = self._of(endpoint).get(endpoint)
        return found.rhythm.allowance_us if found and math.isfinite(found.rhythm.allowance_us) else 0.0

    def last_us(self, endpoint: str) -> int | None:
        """The endpoint's last row, by its own clock."""
        found = self._of(endpoint).get(endpoint)
        return found.last_us if found else None

    def heard(self, endpoint: str, time_us: int, now_us: int) -> Incident | None:
        """A row of `time_us` by the endpoint's clock came at `now_us` of the stream's; the silence that it ends, if any."""
        home = self._of(endpoint)
        found = home.pop(endpoint, None)
        if found is None:
            found = home[endpoint] = _Watched(Rhythm(self._steps.get(endpoint)), time_us, now_us)
            self._queue(endpoint, found)
            return None
        home[endpoint] = found
        rhythm, step = found.rhythm, time_us - found.last_us
        waited, allowance = now_us - found.heard_us, rhythm.allowance_us
        ended = None
        if found.silent is not None or step > allowance:
            ended = silence(endpoint, self._metrics, found.last_us, time_us)
        if step <= allowance < waited:
            found.late_us = max(found.late_us, 1.5 * waited)
        elif found.late_us:
            found.late_us = found.late_us * _FORGET if found.late_us > allowance else 0.0
        rhythm.add(step)
        found.last_us, found.heard_us = time_us, now_us
        found.silent = None
        self._queue(endpoint, found)
        return ended

    def seen(self, endpoint: str, now_us: int) -> Incident | None:
        """A row came that could not be used: the endpoint is there all the same. The silence that it ends, if any."""
        found = self._of(endpoint).get(endpoint)
        if found is None:
            return None
        ended = self._ended(endpoint, found, now_us)
        found.heard_us, found.silent = now_us, None
        self._queue(endpoint, found)
        return ended

    def due(self, now_us: int) -> Iterator[tuple[int, Incident]]:
        """The silences that are plain by `now_us`, each with the stream's time at which it became so."""
        while self._heap and self._heap[0][0] < now_us:
            queued, endpoint = heapq.heappop(self._heap)
            found = self._of(endpoint).get(endpoint)
            if found is None or found.silent is not None or queued != found.queued_us:
                continue
            found.queued_us = math.inf
            deadline = found.deadline_us()
            if deadline >= now_us:
                self._queue(endpoint, found)
                continue
            found.silent = silence(endpoint, self._metrics, found.last_us, None)
            yield math.ceil(deadline), found.silent

    def forget_oldest(self, now_us: int) -> tuple[str, Incident | None] | None:
        """Forgets the endpoint not heard for longest, strangers first, when there are too many; its silence ends with it."""
        if len(self) <= self._most:
            return None
        home = self._strangers or self._known
        endpoint = next(iter(home))
        found = home.pop(endpoint)
        return endpoint, self._ended(endpoint, found, now_us)

    def forget(self, endpoint: str, now_us: int) -> Incident | None:
        """The endpoint's clock was set: what was learnt by it does not count. The silence that ends with it, if any."""
        found = self._of(endpoint).pop(endpoint, None)
        return None if found is None else self._ended(endpoint, found, now_us)

    def open(self) -> list[Incident]:
        """The silences that go on."""
        return [one.silent for home in (self._known, self._strangers) for one in home.values() if one.silent]

    def last_heard(self, most: int) -> list[tuple[str, int]]:
        """Of at most `most` endpoints, those not heard for longest, when they were, in the stream's time."""
        heard = ((name, one.heard_us) for home in (self._known, self._strangers) for name, one in home.items())
        return heapq.nsmallest(most, heard, key=lambda one: one[1])

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON-able values."""
        return {
            name: {
                "rhythm": one.rhythm.state(),
                "last_us": one.last_us,
                "heard_us": one.heard_us,
                "late_us": one.late_us,
                "silent": one.silent.to_json() if one.silent else None,
            }
            for home in (self._known, self._strangers)
            for name, one in home.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; an empty one is the beginning."""
        self._known, self._strangers, self._heap = {}, {}, []
        for name, kept in state.items():
            rhythm = Rhythm(self._steps.get(name))
            rhythm.restore(kept["rhythm"])
            silent = Incident.from_json(kept["silent"]) if kept["silent"] else None
            found = _Watched(rhythm, int(kept["last_us"]), int(kept["heard_us"]), float(kept["late_us"]), silent)
            self._of(name)[name] = found
            self._queue(name, found)

    def _of(self, endpoint: str) -> dict[str, _Watched]:
        return self._known if endpoint in self._steps else self._strangers

    def _ended(self, endpoint: str, found: _Watched, now_us: int) -> Incident | None:
        if found.silent is None:
            return None
        end = max(found.last_us, found.last_us + now_us - found.heard_us)
        return silence(endpoint, self._metrics, found.last_us, end)

    def _queue(self, endpoint: str, found: _Watched) -> None:
        """Sees to it that the deadlines hold one of the endpoint that is not too late."""
        deadline = found.deadline_us()
        if found.silent is None and deadline < found.queued_us:
            found.queued_us = deadline
            heapq.heappush(self._heap, (deadline, endpoint))
