"""What probes send and receive through: a socket, its peer, and the kernel's time of arrival."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from ocad.errors import UsageError

Address = tuple[str, int]

LARGEST_PAYLOAD = 65_535
SO_TIMESTAMPNS = 35
"""Linux's option, which Python's socket module does not name: the kernel notes when a packet came in."""
TIMESPEC = struct.Struct("@qq")
RECEIVE_ERRORS: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
"""Linux's IP_RECVERR and IPV6_RECVERR: what routers and the far end say of a datagram is kept in a queue of its own."""
MSG_ERRQUEUE = 0x2000
EXTENDED_ERROR = struct.Struct("@I4B2I")
"""`sock_extended_err` (ip(7)): errno, origin, type, code, padding, info, data."""
OWN_MACHINE = 1
"""The origin SO_EE_ORIGIN_LOCAL."""


class Arrival(NamedTuple):
    """What came in: its payload, whom it came from, and when, in ns of the wall clock (CLOCK_REALTIME)."""

    payload: bytes
    sender: Any
    time_ns: int


class Channel(ABC):
    """A socket that never blocks, and the peer that `send` goes to when no other is named."""

    def __init__(self, connection: socket.socket, peer: Any) -> None:
        self.peer = peer
        self.unreachable: dict[str, int] = {}
        """What the far end or the way to it said of what was sent, such as `connection refused`, and how often."""
        self._socket = connection
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):  # without it, arrivals are timed when they are read
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    @abstractmethod
    def send(self, payload: bytes, to: Any = None) -> None:
        """Sends to `to` or the peer; raises `OSError` when the own machine refuses (link down, no route)."""

    @abstractmethod
    def receive(self) -> Arrival:
        """The next one that came in; raises `OSError` when there is none or the link went down."""

    def _receive(self) -> Arrival:
        payload, ancillary, _, sender = self._socket.recvmsg(LARGEST_PAYLOAD, 64)
        for level, kind, value in ancillary:
            if (level, kind, len(value)) == (socket.SOL_SOCKET, SO_TIMESTAMPNS, TIMESPEC.size):
                seconds, nanoseconds = TIMESPEC.unpack(value)
                return Arrival(payload, sender, seconds * 1_000_000_000 + nanoseconds)
        return Arrival(payload, sender, time.time_ns())


class UdpChannel(Channel):
    """Datagrams to and from `peer` (None: only answering), from the local address `bind`; port 0 takes a free one.

    Raises `UsageError` when an address cannot be resolved or bound.
    """

    def __init__(self, peer: Address | None, bind: Address) -> None:
        family, numeric = _resolve(peer or bind)
        if peer is None:
            bind = numeric
        super().__init__(_bound_socket(family, bind), numeric if peer else None)
        if peer is not None:
            with contextlib.suppress(OSError):  # without it, silence is all that is heard of a closed port
                self._socket.setsockopt(*RECEIVE_ERRORS[family], 1)

    @property
    def address(self) -> Address:
        """The local address."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def send(self, payload: bytes, to: Any = None) -> None:
        """See `Channel.send`."""
        try:
            self._socket.sendto(payload, to or self.peer)
        except OSError:
            if not self._note_errors():
                raise
            self._socket.sendto(payload, to or self.peer)  # what was raised was said of an earlier one

    def receive(self) -> Arrival:
        """See `Channel.receive`; the sender is its numeric host and port."""
        try:
            payload, sender, time_ns = self._receive()
        except OSError:
            self._note_errors()
            raise
        return Arrival(payload, sender[:2], time_ns)

    def _note_errors(self) -> int:
        """Takes what is in the queue of errors; how many of them came from elsewhere."""
        found = 0
        with contextlib.suppress(OSError):
            while True:
                for level, kind, value in self._socket.recvmsg(1, 512, MSG_ERRQUEUE)[1]:
                    if (level, kind) not in RECEIVE_ERRORS.values():
                        continue
                    number, origin, *_ = EXTENDED_ERROR.unpack_from(value)
                    if origin != OWN_MACHINE:
                        reason = os.strerror(number).lower()
                        self.unreachable[reason] = self.unreachable.get(reason, 0) + 1
                        found += 1
        return found


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
