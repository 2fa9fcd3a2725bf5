"""UDP echo (RFC 862): a responder that sends every datagram back, and an exchange that measures round-trip times."""

from __future__ import annotations

import secrets
import struct
from collections import OrderedDict
from hashlib import blake2b

from ocad.probe.channel import Address, Arrival, UdpChannel
from ocad.probe.measurement import Deliver, Measurement, Pace, Reply
from ocad.probe.responder import Guard, Responder

METRIC = "udp_echo"
PAYLOAD = struct.Struct("!8sI")
"""A token of 8 random bytes, one per measurement, and the sequence number; a reply without both is not ours."""
SERVICE_PORTS = 1024
"""Below it services listen (echo, chargen, DNS, NTP …) that may answer an answer, as a responder does."""
ECHOED = 1 << 15
"""So many datagrams are known again when they come back."""


class EchoExchange:
    """Datagrams that carry a token and their number, and come back as they were."""

    def __init__(self) -> None:
        self._token = secrets.token_bytes(8)

    def request(self, sequence: int) -> bytes:
        """See `Exchange.request`."""
        return PAYLOAD.pack(self._token, sequence)

    def match(self, payload: bytes) -> Reply | None:
        """See `Exchange.match`."""
        token, sequence = PAYLOAD.unpack(payload) if len(payload) == PAYLOAD.size else (b"", 0)
        return Reply(sequence) if token == self._token else None


class Echo:
    """Sends a datagram back, and never twice the same one to the same address and port.

    The answer of an echo looks like a request: between two responders a single datagram with a forged sender would go to
    and fro for ever. What comes back was echoed before and ends here; so does what a service's port sends.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._echoed: OrderedDict[bytes, None] = OrderedDict()

    def __call__(self, arrival: Arrival) -> bytes | None:
        """See `Answer`."""
        host, port = arrival.sender
        if port == self._port or port < SERVICE_PORTS:
            return None
        known = blake2b(arrival.payload, digest_size=16, key=f"{host} {port}".encode()).digest()
        if known in self._echoed:
            self._echoed.move_to_end(known)
            return None
        self._echoed[known] = None
        if len(self._echoed) > ECHOED:
            self._echoed.popitem(last=False)
        return arrival.payload


def echo_probe(target: Address, pace: Pace, deliver: Deliver, bind: str = "") -> Measurement:
    """Round-trip times in µs to the responder at `target`; `bind` is the local address to send from ("" = any).

    Raises `UsageError` when the target or the local address cannot be used.
    """
    return Measurement(EchoExchange(), UdpChannel(target, (bind, 0)), pace, deliver)


def echo_responder(port: int, bind: str = "127.0.0.1", guard: Guard | None = None) -> tuple[Responder, Address]:
    """A responder, and where it listens: port 0 takes a free one. Raises `UsageError` when the port is taken."""
    channel = UdpChannel(None, (bind, port))
    address = channel.address
    return Responder(channel, Echo(address[1]), guard or Guard()), address
