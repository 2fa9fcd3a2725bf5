"""Loopback (IEEE 802.1Q clauses 20.2 and 21.7, ITU-T Y.1731 clause 7.2): unicast LBM out, LBR back, the round trip timed."""

from __future__ import annotations

import secrets
import struct

from ocad.probe import cfm
from ocad.probe.channel import Arrival, Channel
from ocad.probe.measurement import Deliver, Measurement, Pace, Reply
from ocad.probe.responder import Answer

METRIC = "lbm"
TRANSACTION = struct.Struct("!I")
"""The loopback transaction identifier, the only field between the header and the TLVs."""


def encode_loopback(opcode: cfm.Opcode, level: int, transaction: int, data: bytes) -> bytes:
    """An LBM or LBR of maintenance domain level `level` (0-7) with one Data TLV."""
    fields = TRANSACTION.pack(transaction)
    return cfm.CfmMessage(level, opcode, 0, fields, (cfm.Tlv(cfm.DATA_TLV, data),)).encode()


class LoopbackExchange:
    """LBMs numbered from a random transaction identifier on, with a random Data TLV that must come back unchanged."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._first = secrets.randbits(32)
        self._data = secrets.token_bytes(8)

    def request(self, sequence: int) -> bytes:
        """See `Exchange.request`."""
        transaction = (self._first + sequence) & 0xFFFFFFFF
        return encode_loopback(cfm.Opcode.LBM, self._level, transaction, self._data)

    def match(self, payload: bytes) -> Reply | None:
        """See `Exchange.match`."""
        message = cfm.decode(payload)
        if message is None or message.opcode != cfm.Opcode.LBR or message.level != self._level:
            return None
        if len(message.fields) < TRANSACTION.size or cfm.Tlv(cfm.DATA_TLV, self._data) not in message.tlvs:
            return None
        (transaction,) = TRANSACTION.unpack_from(message.fields)
        return Reply((transaction - self._first) & 0xFFFFFFFF)


def loopback_probe(channel: Channel, pace: Pace, deliver: Deliver, level: int = 0) -> Measurement:
    """Round-trip times in µs through `channel` to a maintenance point of `level`."""
    return Measurement(LoopbackExchange(level), channel, pace, deliver)


def loopback_answer(level: int) -> Answer:
    """Answers LBMs of `level`: an LBR is the LBM with the other opcode, its flags and TLVs copied."""

    def respond(arrival: Arrival) -> bytes | None:
        message = cfm.decode(arrival.payload)
        if message is None or message.opcode != cfm.Opcode.LBM or message.level != level:
            return None
        return message._replace(opcode=cfm.Opcode.LBR).encode()

    return respond
