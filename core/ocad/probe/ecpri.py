"""eCPRI one-way delay measurement (eCPRI specification V2.0, section 3.2.4.6): message type 5, over Ethernet or UDP.

The measuring end sends a Request with its time `t1` and compensation `tcv1`; the responder answers with the time `t2`
at which it came in and `tcv2`. The delay is `(t2 - tcv2) - (t1 + tcv1)`, so the clocks of both ends must agree: what
they differ by is added to every value, and may make it negative.
"""

from __future__ import annotations

import secrets
import struct
import time
from dataclasses import dataclass
from enum import IntEnum

from ocad.errors import UsageError
from ocad.probe.channel import Arrival, Channel
from ocad.probe.measurement import REMEMBERED, Deliver, Measurement, Pace, Reply

METRIC = "ecpri"
ETHERTYPE = 0xAEFE
REVISION = 1
MESSAGE_TYPE = 5
COMMON_HEADER = struct.Struct("!BBH")
"""Revision (4 bits), reserved (3), C (1); message type; payload size."""
BODY = struct.Struct("!BBHIIq")
"""Measurement ID; action; time stamp as seconds (48 bits) and nanoseconds; compensation in 2^-16 ns."""
NONCE = struct.Struct("!8sI")
"""What the dummy bytes of a request hold: a random token of the measurement, and the request's number."""
IDENTIFIERS = 256
NANOSECONDS = 1_000_000_000


class Action(IntEnum):
    """What a message asks or tells."""

    REQUEST = 0
    REQUEST_WITH_FOLLOW_UP = 1
    RESPONSE = 2
    REMOTE_REQUEST = 3
    REMOTE_REQUEST_WITH_FOLLOW_UP = 4
    FOLLOW_UP = 5


ACTIONS = frozenset(Action)


@dataclass(frozen=True, slots=True)
class DelayMessage:
    """One message; `time_ns` is since 1970, `compensation` in 2^-16 ns; `dummy` bytes make it as long as wanted."""

    identifier: int
    action: Action
    time_ns: int = 0
    compensation: int = 0
    dummy: bytes = b""
    concatenated: bool = False

    def encode(self) -> bytes:
        """The bytes of common header and payload."""
        seconds, nanoseconds = divmod(self.time_ns, NANOSECONDS)
        header = COMMON_HEADER.pack(REVISION << 4 | self.concatenated, MESSAGE_TYPE, BODY.size + len(self.dummy))
        body = BODY.pack(
            self.identifier, self.action, seconds >> 32, seconds & 0xFFFFFFFF, nanoseconds, self.compensation
        )
        return header + body + self.dummy


def decode(payload: bytes) -> DelayMessage | None:
    """The message at the start of `payload`, which padding may follow; None when it is none of this type."""
    if len(payload) < COMMON_HEADER.size + BODY.size:
        return None
    first, message_type, size = COMMON_HEADER.unpack_from(payload)
    end = COMMON_HEADER.size + size
    if first >> 4 != REVISION or message_type != MESSAGE_TYPE or size < BODY.size or end > len(payload):
        return None
    identifier, action, high, low, nanoseconds, compensation = BODY.unpack_from(payload, COMMON_HEADER.size)
    if action not in set(Action) or nanoseconds >= NANOSECONDS:
        return None
    time_ns = (high << 32 | low) * NANOSECONDS + nanoseconds
    dummy = payload[COMMON_HEADER.size + BODY.size : end]
    return DelayMessage(identifier, Action(action), time_ns, compensation, dummy, bool(first & 1))


def one_way_delay_us(request: DelayMessage, response: DelayMessage) -> float:
    """The delay in µs from the sender of `request` to the sender of `response`."""
    compensation = (request.compensation + response.compensation) / 65_536
    return (response.time_ns - request.time_ns - compensation) / 1000


class DelayExchange:
    """Requests that carry the time of sending, told apart by the dummy bytes that the responder sends back.

    The identifier has 8 bits and comes round while a late response is still under way. A responder that leaves the dummy
    bytes out is believed by the identifier alone.
    """

    def __init__(self) -> None:
        self._token = secrets.token_bytes(8)
        self._sent: dict[int, DelayMessage] = {}
        self._newest = 0

    def request(self, sequence: int) -> bytes:
        """See `Exchange.request`."""
        nonce = NONCE.pack(self._token, sequence & 0xFFFFFFFF)
        message = DelayMessage(sequence % IDENTIFIERS, Action.REQUEST, time.time_ns(), dummy=nonce)
        self._sent[sequence] = message
        self._sent.pop(sequence - REMEMBERED, None)
        self._newest = sequence
        return message.encode()

    def match(self, payload: bytes) -> Reply | None:
        """See `Exchange.match`: the request whose dummy bytes came back, else the newest with the response's identifier."""
        message = decode(payload)
        if message is None or message.action != Action.RESPONSE:
            return None
        sequence = self._sequence(message)
        request = self._sent.get(sequence)
        if request is None or request.identifier != message.identifier:
            return None
        return Reply(sequence, one_way_delay_us(request, message))

    def _sequence(self, response: DelayMessage) -> int:
        """The number of the request that is answered; -1 where its nonce is of another measurement."""
        if len(response.dummy) < NONCE.size or not any(response.dummy):
            return self._newest - (self._newest - response.identifier) % IDENTIFIERS
        token, low = NONCE.unpack_from(response.dummy)
        return self._newest - ((self._newest - low) & 0xFFFFFFFF) if token == self._token else -1


def delay_probe(channel: Channel, pace: Pace, deliver: Deliver) -> Measurement:
    """One-way delays in µs through `channel`.

    Raises `UsageError` when more requests would be open at once than identifiers tell apart.
    """
    if pace.rate * pace.timeout >= IDENTIFIERS:
        channel.close()
        raise UsageError(
            f"eCPRI tells {IDENTIFIERS} open requests apart, and {pace.rate:g} a second for {pace.timeout:g} s are more",
            "lower `--rate` or `--timeout`",
        )
    return Measurement(DelayExchange(), channel, pace, deliver)


def respond(arrival: Arrival) -> bytes | None:
    """The Response to a Request, with the time at which that came in."""
    message = decode(arrival.payload)
    if message is None or message.action not in (Action.REQUEST, Action.REQUEST_WITH_FOLLOW_UP):
        return None
    return DelayMessage(message.identifier, Action.RESPONSE, arrival.time_ns, dummy=message.dummy).encode()
