"""UDP echo (RFC 862): a responder that sends every datagram back, and a sender that measures round-trip times.

The sender paces itself on absolute deadlines of the monotonic clock (`start + i / rate`), so a late wake-up delays one
datagram and not the ones after it. It waits on its socket only until the next deadline, so a lost reply blocks nothing.
"""

from __future__ import annotations

import secrets
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ocad.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

Address = tuple[str, int]

PAYLOAD = struct.Struct("!8sI")
"""A token of 8 random bytes, one per measurement, and the sequence number; a reply without both is not ours."""
LARGEST_DATAGRAM = 65_535
POLL_SECONDS = 0.2


@dataclass(slots=True)
class EchoCounts:
    """What became of the datagrams; `sent = received + lost + unresolved`."""

    sent: int = 0
    received: int = 0
    """Answered within the timeout: these have a round-trip time."""
    lost: int = 0
    """Not answered within the timeout, send errors included: these are NaN."""
    late: int = 0
    """Of the lost ones, those whose reply came after the timeout."""
    duplicates: int = 0
    """Further replies to a sequence number that had one already."""
    foreign: int = 0
    """Datagrams of another sender, token or sequence number."""
    send_errors: int = 0
    """Of the lost ones, those that the own machine refused to send (link down, no route, full buffer)."""
    unresolved: int = 0
    """Sent less than a timeout before an interruption, neither answered nor lost: these have no row."""

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(slots=True)
class EchoProbe:
    """Sends `rate` datagrams a second for `duration` seconds to a responder at `target` and times the replies.

    `timeout` in seconds: a reply that takes longer counts as lost. `bind` is the local address to send from ("" = any).
    `run` may be interrupted (KeyboardInterrupt); `frame` and `counts` then hold what was measured until then.
    """

    target: Address
    rate: float
    duration: float
    timeout: float = 1.0
    bind: str = ""
    counts: EchoCounts = field(init=False, default_factory=EchoCounts)
    _token: bytes = field(init=False, default_factory=lambda: secrets.token_bytes(8))
    _sent_ns: list[int] = field(init=False, default_factory=list)
    _round_trip_us: dict[int, float] = field(init=False, default_factory=dict)
    _replied: set[int] = field(init=False, default_factory=set)
    _epoch_ns: int = field(init=False, default=0)
    _ended_ns: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        for name in ("rate", "duration", "timeout"):
            if not getattr(self, name) > 0:
                raise UsageError(f"`{name}` is {getattr(self, name)}", "give a number above 0")

    def run(self) -> None:
        """Measures until the duration is over and every reply is there or lost.

        Raises `UsageError` when the target or the local address cannot be used.
        """
        family, peer = _resolve(self.target)
        with _bound_socket(family, (self.bind, 0)) as connection:
            connection.setblocking(False)
            # wall-clock time is read once: a clock step during the measurement cannot disorder the timestamps
            start = time.monotonic_ns()
            self._epoch_ns = time.time_ns() - start
            try:
                for sequence in range(max(1, round(self.rate * self.duration))):
                    self._receive_until(connection, peer, start + round(sequence * 1e9 / self.rate))
                    self._send(connection, peer, sequence)
                end = time.monotonic_ns() + round(self.timeout * 1e9)
                self._receive_until(connection, peer, end, lambda: len(self._replied) == len(self._sent_ns))
            finally:
                self._ended_ns = time.monotonic_ns()
                self._settle()

    def frame(self) -> pd.DataFrame:
        """One row per datagram: `timestamp` (UTC, of sending), `udp_echo` (round trip in µs, NaN when lost), `seq`."""
        import numpy as np
        import pandas as pd

        rows = [i for i in range(len(self._sent_ns)) if not self._is_unresolved(i)]
        sent = np.array([self._sent_ns[i] for i in rows], dtype=np.int64) + self._epoch_ns
        return pd.DataFrame(
            {
                "timestamp": pd.to_datetime(sent // 1000, unit="us", utc=True).as_unit("us"),
                "udp_echo": np.array([self._round_trip_us.get(i, np.nan) for i in rows], dtype=np.float64),
                "seq": np.array(rows, dtype=np.int64),
            }
        )

    def _send(self, connection: socket.socket, peer: Address, sequence: int) -> None:
        payload = PAYLOAD.pack(self._token, sequence)
        self._sent_ns.append(time.monotonic_ns())
        try:
            connection.sendto(payload, peer)
        except OSError:  # a link that is down is what is being measured: the datagram is lost and the next one is sent
            self.counts.send_errors += 1

    def _receive_until(
        self, connection: socket.socket, peer: Address, deadline: int, done: Callable[[], bool] = lambda: False
    ) -> None:
        """Takes replies until `deadline`, and at most one after it: neither silence nor a flood delays the next."""
        while not done():
            wait = deadline - time.monotonic_ns()
            if select.select([connection], [], [], max(0, wait) / 1e9)[0]:
                try:
                    payload, sender = connection.recvfrom(LARGEST_DATAGRAM)
                    self._take(payload, sender[:2] == peer, time.monotonic_ns())
                except OSError:  # a datagram with a bad checksum is gone when it is read
                    pass
            if wait <= 0:
                return

    def _take(self, payload: bytes, from_peer: bool, now: int) -> None:
        token, sequence = PAYLOAD.unpack(payload) if len(payload) == PAYLOAD.size else (b"", 0)
        if not from_peer or token != self._token or sequence >= len(self._sent_ns):
            self.counts.foreign += 1
        elif sequence in self._replied:
            self.counts.duplicates += 1
        else:
            self._replied.add(sequence)
            round_trip = now - self._sent_ns[sequence]
            if round_trip <= self.timeout * 1e9:
                self._round_trip_us[sequence] = round_trip / 1000
            else:
                self.counts.late += 1

    def _is_unresolved(self, sequence: int) -> bool:
        young = self._ended_ns - self._sent_ns[sequence] < self.timeout * 1e9
        return young and sequence not in self._replied

    def _settle(self) -> None:
        counts = self.counts
        counts.sent, counts.received = len(self._sent_ns), len(self._round_trip_us)
        counts.unresolved = sum(self._is_unresolved(i) for i in range(counts.sent))
        counts.lost = counts.sent - counts.received - counts.unresolved


@dataclass(slots=True)
class Responder:
    """Sends every datagram back to where it came from, unchanged (RFC 862); port 0 takes a free one."""

    port: int
    bind: str = "127.0.0.1"
    echoed: int = field(init=False, default=0)
    _socket: socket.socket = field(init=False)
    _stopped: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Binds at once, so that `address` is known before `run`; raises `UsageError` when the port is taken."""
        family, address = _resolve((self.bind, self.port))
        self._socket = _bound_socket(family, address)

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def run(self) -> None:
        """Answers until `stop` is called or KeyboardInterrupt is raised, then closes the socket."""
        own_port = self.address[1]
        with self._socket as connection:
            connection.settimeout(POLL_SECONDS)
            while not self._stopped:
                try:
                    payload, sender = connection.recvfrom(LARGEST_DATAGRAM)
                    if sender[1] == own_port:
                        continue  # two responders on one port would answer each other for ever
                    connection.sendto(payload, sender)
                except OSError:  # no datagram yet, or a peer that is gone
                    continue
                self.echoed += 1

    def stop(self) -> None:
        """Ends `run` within a fraction of a second."""
        self._stopped = True


def parse_target(text: str) -> Address:
    """`HOST:PORT` or `[IPV6]:PORT` as a pair; raises `UsageError` for anything else."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise UsageError(f"cannot read the target `{text}`", "write it as `HOST:PORT`, such as `192.0.2.7:7`")
    return host, int(port)


def _resolve(address: Address) -> tuple[int, Address]:
    """The family and the numeric form of `address`: what its replies come from."""
    try:
        family, _, _, _, numeric = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot resolve `{address[0]}` ({reason})", "give an address or a known name") from None
    return family, (str(numeric[0]), int(numeric[1]))


def _bound_socket(family: int, address: Address) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_DGRAM)
    try:
        connection.bind(address)
    except OSError as error:
        connection.close()
        reason = (error.strerror or str(error)).lower()
        place = f"{address[0]}:{address[1]}"
        raise UsageError(f"cannot bind UDP `{place}` ({reason})", "choose an own address and a free port") from None
    return connection
