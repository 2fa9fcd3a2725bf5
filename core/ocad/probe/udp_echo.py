"""UDP echo (RFC 862): a responder that sends every datagram back, and an exchange that measures round-trip times."""

from __future__ import annotations

import secrets
import struct

from ocad.probe.channel import Address, Arrival, UdpChannel
from ocad.probe.measurement import Deliver, Measurement, Pace, Reply
from ocad.probe.responder import Responder

METRIC = "udp_echo"
PAYLOAD = struct.Struct("!8sI")
"""A token of 8 random bytes, one per measurement, and the sequence number; a reply without both is not ours."""


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


def echo_probe(target: Address, pace: Pace, deliver: Deliver, bind: str = "") -> Measurement:
    """Round-trip times in µs to the responder at `target`; `bind` is the local address to send from ("" = any).

    Raises `UsageError` when the target or the local address cannot be used.
    """
    return Measurement(EchoExchange(), UdpChannel(target, (bind, 0)), pace, deliver)


def echo_responder(port: int, bind: str = "127.0.0.1") -> tuple[Responder, Address]:
    """A responder, and where it listens: port 0 takes a free one. Raises `UsageError` when the port is taken."""
    channel = UdpChannel(None, (bind, port))
    address = channel.address

    def echo(arrival: Arrival) -> bytes | None:
        # two responders on one port would answer each other for ever
        return arrival.payload if arrival.sender[1] != address[1] else None

    return Responder(channel, echo), address
