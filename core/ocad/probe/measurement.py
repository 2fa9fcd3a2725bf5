"""Paced requests and their replies: what every probe shares that asks and is answered.

Requests leave on absolute deadlines of the monotonic clock (`start + i / rate`), so a late wake-up delays one request
and not the ones after it. The probe waits on its socket only until the next deadline, so a lost reply blocks nothing.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import count, takewhile
from typing import NamedTuple, Protocol

from ocad.errors import UsageError
from ocad.probe.channel import Arrival, Channel


class Row(NamedTuple):
    """One row of a measurement: its number, its UTC time in µs since 1970, and what was measured (NaN: lost)."""

    sequence: int
    time_us: int
    value: float


Deliver = Callable[[Row], None]

REMEMBERED = 1 << 16
"""So many requests are told apart; a reply to an older one is foreign."""
FASTEST, SLOWEST = 100_000.0, 1 / 86_400
"""Requests a second."""
LONGEST_TIMEOUT = 3600.0


class Reply(NamedTuple):
    """The request that a reply belongs to, and what it tells, in µs; None: the round-trip time is what is measured."""

    sequence: int
    value_us: float | None = None


class Exchange(Protocol):
    """One kind of request and reply."""

    def request(self, sequence: int) -> bytes:
        """The payload of request number `sequence`; called right before it is sent."""

    def match(self, payload: bytes) -> Reply | None:
        """What the reply `payload` answers; None when it is none of ours."""


def require_positive(**values: float) -> None:
    """Raises `UsageError` naming the first of `values` that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise UsageError(f"`{name}` is {value}", "give a number above 0")


@dataclass(frozen=True, slots=True)
class Pace:
    """`rate` requests a second for `duration` seconds; a reply that takes longer than `timeout` seconds is lost."""

    rate: float
    duration: float
    timeout: float = 1.0

    def __post_init__(self) -> None:
        require_positive(rate=self.rate, duration=self.duration, timeout=self.timeout)
        if not SLOWEST <= self.rate <= FASTEST:
            raise UsageError(f"`rate` is {self.rate}", f"give at most {FASTEST:,.0f} a second, at least one a day")
        if self.timeout > LONGEST_TIMEOUT:
            raise UsageError(f"`timeout` is {self.timeout}", f"give at most {LONGEST_TIMEOUT:.0f} seconds")
        if self.rate * self.timeout > REMEMBERED:
            raise UsageError(
                f"{self.rate:g} requests a second for a `timeout` of {self.timeout:g} s are more than {REMEMBERED} open ones",
                "lower `--rate` or `--timeout`",
            )

    @property
    def requests(self) -> float:
        """How many there are; infinite when the duration is."""
        exact = self.rate * self.duration
        return max(1, round(exact)) if math.isfinite(exact) else exact


@dataclass(slots=True)
class Counts:
    """What became of the requests; `sent = received + lost + unresolved`."""

    sent: int = 0
    received: int = 0
    """Answered within the timeout: these have a value."""
    lost: int = 0
    """Not answered within the timeout, send errors included: these are NaN."""
    late: int = 0
    """Of the lost ones, those whose reply came after the timeout."""
    duplicates: int = 0
    """Further replies to a request that had one already."""
    foreign: int = 0
    """Replies of another sender, measurement or request."""
    send_errors: int = 0
    """Of the lost ones, those that the own machine refused to send (link down, no route, full buffer)."""
    unreachable: int = 0
    """How often the far end, or a router on the way, said that nothing listens there or no way leads there."""
    unresolved: int = 0
    """Sent less than a timeout before an interruption, neither answered nor lost: these have no row."""

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(slots=True)
class _Request:
    sent_ns: int
    value_us: float = math.nan
    in_time: bool = False


@dataclass(slots=True)
class Measurement:
    """Sends requests of `exchange` through `channel` at `pace`, and hands each row to `deliver` as soon as it is known.

    Rows come in the order of sending: one that is still open holds those after it back, at most for the timeout.
    Nothing else is kept, so it may run for ever. `run` may be interrupted (KeyboardInterrupt); the rows that are known
    are delivered then.
    """

    exchange: Exchange
    channel: Channel
    pace: Pace
    deliver: Deliver
    counts: Counts = field(init=False, default_factory=Counts)
    _open: dict[int, _Request] = field(init=False, default_factory=dict)
    _answered: bytearray = field(init=False, default_factory=lambda: bytearray(REMEMBERED))
    _timeout_ns: int = field(init=False, default=0)
    _epoch_ns: int = field(init=False, default=0)

    def run(self) -> None:
        """Measures until the duration is over and every reply is there or lost; closes the channel."""
        self._timeout_ns = round(self.pace.timeout * 1e9)
        # wall-clock time is read once: a clock step during the measurement cannot disorder the timestamps
        start = time.monotonic_ns()
        self._epoch_ns = time.time_ns() - start
        with closing(self.channel):
            try:
                for sequence in takewhile(lambda number: number < self.pace.requests, count()):
                    self._receive_until(start + round(sequence * 1e9 / self.pace.rate))
                    self._send(sequence)
                self._receive_until(time.monotonic_ns() + self._timeout_ns, lambda: not self._open)
            finally:
                self._settle()

    def _send(self, sequence: int) -> None:
        payload = self.exchange.request(sequence)
        self._answered[sequence % REMEMBERED] = False
        self.counts.sent += 1
        self._open[sequence] = _Request(time.monotonic_ns())
        try:
            self.channel.send(payload)
        except OSError:  # a link that is down is what is being measured: the request is lost and the next one is sent
            self.counts.send_errors += 1

    def _receive_until(self, deadline: int, done: Callable[[], bool] = lambda: False) -> None:
        """Takes replies until `deadline`, and at most one after it: neither silence nor a flood delays the next."""
        while not done():
            now = time.monotonic_ns()
            oldest = next(iter(self._open.values()), None)
            wake = deadline if oldest is None else min(deadline, oldest.sent_ns + self._timeout_ns + 1)
            if select.select([self.channel], [], [], max(0, wake - now) / 1e9)[0]:
                try:
                    arrival = self.channel.receive()
                    self._take(arrival, time.monotonic_ns())
                except OSError:  # a datagram with a bad checksum is gone when it is read; a link that went down says so
                    pass
            self._deliver_known(time.monotonic_ns())
            if deadline <= now:
                return

    def _take(self, arrival: Arrival, now: int) -> None:
        reply = self.exchange.match(arrival.payload) if arrival.sender == self.channel.peer else None
        if reply is None or not 0 < self.counts.sent - reply.sequence <= REMEMBERED:
            self.counts.foreign += 1
        elif self._answered[reply.sequence % REMEMBERED]:
            self.counts.duplicates += 1
        else:
            self._answered[reply.sequence % REMEMBERED] = True
            request = self._open.get(reply.sequence)
            if request is None or now - request.sent_ns > self._timeout_ns:
                self.counts.late += 1
            else:
                request.in_time = True
                request.value_us = (now - request.sent_ns) / 1000 if reply.value_us is None else reply.value_us

    def _deliver_known(self, now: int) -> None:
        """Delivers the oldest open requests up to the first whose fate is unknown."""
        while self._open:
            sequence, request = next(iter(self._open.items()))
            if not self._is_known(request, now):
                return
            self._deliver(sequence, request)

    def _settle(self) -> None:
        """Delivers all whose fate is known, at the end or an interruption."""
        now = time.monotonic_ns()
        for sequence, request in list(self._open.items()):
            if self._is_known(request, now):
                self._deliver(sequence, request)
        self.counts.unresolved = len(self._open)
        self.counts.unreachable = sum(self.channel.unreachable.values())

    def _deliver(self, sequence: int, request: _Request) -> None:
        del self._open[sequence]
        self.counts.received += request.in_time
        self.counts.lost += not request.in_time
        self.deliver(Row(sequence, (request.sent_ns + self._epoch_ns) // 1000, request.value_us))

    def _is_known(self, request: _Request, now: int) -> bool:
        return request.in_time or now - request.sent_ns > self._timeout_ns
