"""Continuity check (IEEE 802.1Q clauses 20.1 and 21.6, ITU-T Y.1731 clause 7.1): CCMs out, and a monitor of how many are missed.

Missed messages are told by the gaps in their sequence numbers, so that one that is only late is not missed; silence of
more than 3.5 periods, the standard's loss of continuity, counts as missed messages before a gap can show.
"""

from __future__ import annotations

import contextlib
import math
import select
import struct
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import count, takewhile
from typing import NamedTuple

from ocad.errors import UsageError
from ocad.probe import cfm
from ocad.probe.channel import Channel
from ocad.probe.measurement import Deliver, Row, require_positive

METRIC = "ccm"
PERIODS = {
    "3.33ms": 1 / 300,
    "10ms": 0.01,
    "100ms": 0.1,
    "1s": 1.0,
    "10s": 10.0,
    "1min": 60.0,
    "10min": 600.0,
}
"""Seconds between two CCMs; the place in this list, from 1, is the interval code in the flags (802.1Q, 21.6)."""
FIELDS = struct.Struct("!IH48s16x")
"""Sequence number, MEPID, MAID, and the counters of ITU-T Y.1731, which are zero."""
MAID_BYTES = 48
CHARACTER_STRING_MD, CHARACTER_STRING_MA = 4, 2
LOSS_OF_CONTINUITY = 3.5
REORDERED = 64
"""A number that is at most so far behind the newest one was overtaken; further behind, the sender began anew."""


def group_address(level: int) -> bytes:
    """The multicast address of CCMs of `level`, 01-80-C2-00-00-3y."""
    return bytes.fromhex("0180c20000") + bytes([0x30 | level])


@dataclass(frozen=True, slots=True)
class Association:
    """What both ends must be configured alike: level (0-7), names, the sender's MEPID, and one of `PERIODS`."""

    interval: str = "10ms"
    level: int = 0
    mepid: int = 1
    domain: str = "ocad"
    name: str = "link"

    def __post_init__(self) -> None:
        if not 1 <= self.mepid <= 8191:
            raise UsageError(f"the MEPID is {self.mepid}", "give a number from 1 to 8191")
        if not self.domain or not self.name or len(self.domain.encode()) + len(self.name.encode()) > MAID_BYTES - 4:
            raise UsageError("domain and association name do not fit", "give both, of at most 44 bytes together")

    @property
    def period(self) -> float:
        """Seconds between two CCMs."""
        return PERIODS[self.interval]

    @property
    def code(self) -> int:
        """The interval's code in the flags."""
        return list(PERIODS).index(self.interval) + 1

    def maid(self) -> bytes:
        """The maintenance association identifier: both names as character strings, zeros up to 48 bytes."""
        domain, name = self.domain.encode(), self.name.encode()
        text = bytes([CHARACTER_STRING_MD, len(domain)]) + domain + bytes([CHARACTER_STRING_MA, len(name)]) + name
        return text.ljust(MAID_BYTES, b"\0")


class Check(NamedTuple):
    """What a CCM says: `sequence` 0 when the sender does not count (Y.1731); `remote_defect` is RDI."""

    level: int
    code: int
    sequence: int
    mepid: int
    maid: bytes
    remote_defect: bool = False

    def encode(self) -> bytes:
        """The bytes after the ethertype."""
        flags = self.remote_defect << 7 | self.code
        fields = FIELDS.pack(self.sequence, self.mepid, self.maid)
        return cfm.CfmMessage(self.level, cfm.Opcode.CCM, flags, fields).encode()


def decode(payload: bytes) -> Check | None:
    """The CCM at the start of `payload`; None when it is none."""
    message = cfm.decode(payload)
    if message is None or message.opcode != cfm.Opcode.CCM or len(message.fields) < FIELDS.size:
        return None
    sequence, mepid, maid = FIELDS.unpack_from(message.fields)
    return Check(message.level, message.flags & 7, sequence, mepid, maid, bool(message.flags & 0x80))


@dataclass(slots=True)
class Sender:
    """Sends a CCM every period for `duration` seconds; `sent` and `errors` (refused by the own machine) count."""

    channel: Channel
    association: Association
    duration: float
    sent: int = field(init=False, default=0)
    errors: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        require_positive(duration=self.duration)

    def run(self) -> None:
        """Sends on absolute deadlines until the duration is over, or KeyboardInterrupt; closes the channel."""
        association = self.association
        first = Check(association.level, association.code, 0, association.mepid, association.maid())
        start = time.monotonic()
        with closing(self.channel):
            for index in takewhile(lambda index: index + 0.5 < self.duration / association.period, count()):
                time.sleep(max(0.0, start + index * association.period - time.monotonic()))
                self.sent += 1
                try:
                    self.channel.send(first._replace(sequence=self.sent & 0xFFFFFFFF).encode())
                except OSError:  # the number is used up all the same: the monitor sees the gap
                    self.errors += 1


@dataclass(slots=True)
class CheckCounts:
    """What the monitor saw: messages that came, that were missed, and that were of another association or malformed."""

    received: int = 0
    missed: int = 0
    foreign: int = 0
    remote_defects: int = 0
    """Of the received ones, those that carry RDI: the far end misses our CCMs."""

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(slots=True)
class Continuity:
    """Tells missed messages from the sequence numbers and times of those that come; times are monotonic seconds."""

    period: float
    last_time: float
    _last: int = 0
    _presumed: int = 0

    def come(self, sequence: int, now: float) -> int:
        """A message came: how many were newly found missed before it; negative when an overtaken one came after all."""
        behind = self._last - sequence
        elapsed = max(0, round((now - self.last_time) / self.period) - 1)
        if sequence and self._last and 0 <= behind <= REORDERED:
            self.last_time = now
            return 0 if behind == 0 else -1
        counted = sequence and self._last and behind < 0
        # a gap wider than the time allows is a sender that began anew
        gap = min(-behind - 1, elapsed + REORDERED) if counted else elapsed
        found = max(0, gap - self._presumed)
        self._last, self.last_time, self._presumed = sequence, now, 0
        return found

    def silent(self, now: float) -> int:
        """How many more are missed by `now`, going by the silence alone."""
        periods = (now - self.last_time) / self.period
        if periods <= LOSS_OF_CONTINUITY:
            return 0
        due = max(0, int(periods) - self._presumed)
        self._presumed += due
        return due


@dataclass(slots=True)
class Monitor:
    """Watches for CCMs of `association` for `duration` seconds and delivers one row per `report` seconds.

    A row's value is the share of the expected messages missed in its interval (0-1), its time the interval's start.
    """

    channel: Channel
    association: Association
    duration: float
    report: float
    deliver: Deliver
    counts: CheckCounts = field(init=False, default_factory=CheckCounts)
    _missed: int = field(init=False, default=0)
    _next: tuple[Check | None, float] | None = field(init=False, default=None)
    """What came in and is not counted yet: it may belong to the next interval."""

    def __post_init__(self) -> None:
        require_positive(duration=self.duration)
        if not self.association.period <= self.report < math.inf:
            self.channel.close()
            raise UsageError(f"`report` is {self.report}", "give seconds, at least the CCM interval")

    def run(self) -> None:
        """Watches until the duration is over, or KeyboardInterrupt (an unfinished interval has no row); then closes."""
        start = time.monotonic()
        epoch = time.time() - start
        continuity = Continuity(self.association.period, start)
        with closing(self.channel):
            for index in takewhile(lambda index: index == 0 or index + 0.5 < self.duration / self.report, count()):
                begin, end = start + index * self.report, start + (index + 1) * self.report
                self._watch(continuity, end)
                self.deliver(Row(index, round((epoch + begin) * 1e6), self._share(continuity.silent(end))))

    def _share(self, silent: int) -> float:
        """The share missed in the interval that ends, `silent` at its end included."""
        missed = max(0, self._missed + silent)
        self._missed = 0
        self.counts.missed += missed
        return min(1.0, missed * self.association.period / self.report)

    def _watch(self, continuity: Continuity, end: float) -> None:
        """Takes what came in by `end`, by the kernel's time: a monitor that wakes up late misjudges nothing."""
        while True:
            wait = end - time.monotonic()
            if self._next is None and select.select([self.channel], [], [], max(0.0, wait))[0]:
                self._read()
            elif self._next is None and wait <= 0:
                return
            if self._next is not None:
                check, when = self._next
                if when > end:
                    return
                self._next = None
                self._take(check, when, continuity)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # a link that went down says so here, once
            arrival = self.channel.receive()
            when = time.monotonic() - (time.time_ns() - arrival.time_ns) / 1e9
            self._next = decode(arrival.payload) if arrival.sender else None, when

    def _take(self, check: Check | None, when: float, continuity: Continuity) -> None:
        wanted = self.association
        if check is None or check[:2] + check[3:5] != (wanted.level, wanted.code, wanted.mepid, wanted.maid()):
            self.counts.foreign += 1
            return
        self.counts.received += 1
        self.counts.remote_defects += check.remote_defect
        self._missed += continuity.come(check.sequence, when)
