"""Connectivity fault management (IEEE 802.1Q clause 21, ITU-T G.8013/Y.1731 clause 9): what its messages share."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

ETHERTYPE = 0x8902
COMMON_HEADER = struct.Struct("!BBBB")
"""Maintenance domain level (3 bits) and version (5); opcode; flags; offset of the first TLV from here."""
TLV_HEADER = struct.Struct("!BH")
END_TLV, DATA_TLV = 0, 3


class Opcode(IntEnum):
    """The messages that are known here."""

    CCM = 1
    LBR = 2
    LBM = 3


class Tlv(NamedTuple):
    """Type, length, value; the length is that of `value`."""

    kind: int
    value: bytes


class CfmMessage(NamedTuple):
    """One message; `fields` are the bytes between the common header and the first TLV; the End TLV is implied."""

    level: int
    opcode: int
    flags: int
    fields: bytes
    tlvs: tuple[Tlv, ...] = ()

    def encode(self) -> bytes:
        """The bytes after the ethertype."""
        header = COMMON_HEADER.pack(self.level << 5, self.opcode, self.flags, len(self.fields))
        return header + self.fields + _encode_tlvs(self.tlvs) + bytes([END_TLV])


def decode(payload: bytes) -> CfmMessage | None:
    """The message at the start of `payload`, which padding may follow; None when its TLVs do not fit into it."""
    if len(payload) < COMMON_HEADER.size:
        return None
    first, opcode, flags, offset = COMMON_HEADER.unpack_from(payload)
    start = COMMON_HEADER.size + offset
    tlvs = _decode_tlvs(payload, start)
    if tlvs is None:
        return None
    # a later version only adds fields, flags and TLVs: it is read like version 0
    return CfmMessage(first >> 5, opcode, flags, payload[COMMON_HEADER.size : start], tlvs)


def _encode_tlvs(tlvs: Sequence[Tlv]) -> bytes:
    return b"".join(TLV_HEADER.pack(tlv.kind, len(tlv.value)) + tlv.value for tlv in tlvs)


def _decode_tlvs(payload: bytes, position: int) -> tuple[Tlv, ...] | None:
    tlvs: list[Tlv] = []
    while position < len(payload) and payload[position] != END_TLV:
        if position + TLV_HEADER.size > len(payload):
            return None
        kind, length = TLV_HEADER.unpack_from(payload, position)
        position += TLV_HEADER.size + length
        if position > len(payload):
            return None
        tlvs.append(Tlv(kind, payload[position - length : position]))
    return tuple(tlvs) if position < len(payload) else None
