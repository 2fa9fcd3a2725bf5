"""A responder that can be told to misbehave, on a real loopback socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from ocad.probe.channel import Address
from ocad.probe.udp_echo import PAYLOAD


@dataclass
class Peer:
    """Calls `behave(peer, payload, sequence, sender)` for each datagram; `behave` decides what is sent."""

    behave: Callable[[Peer, bytes, int, Address], None]
    seen: list[int] = field(default_factory=list)
    kept: dict[int, bytes] = field(default_factory=dict)
    connection: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def __post_init__(self) -> None:
        self.connection.bind(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def address(self) -> Address:
        host, port = self.connection.getsockname()
        return str(host), int(port)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.address)
        self.thread.join()
        self.connection.close()

    def _run(self) -> None:
        while True:
            payload, sender = self.connection.recvfrom(65_535)
            if not payload:
                return
            sequence = PAYLOAD.unpack(payload)[1]
            self.seen.append(sequence)
            self.behave(self, payload, sequence, sender)


MakePeer = Callable[[Callable[[Peer, bytes, int, Address], None]], Peer]


@pytest.fixture
def make_peer() -> Iterator[MakePeer]:
    """Starts peers and ends them after the test."""
    peers: list[Peer] = []

    def make(behave: Callable[[Peer, bytes, int, Address], None]) -> Peer:
        peers.append(Peer(behave))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()
