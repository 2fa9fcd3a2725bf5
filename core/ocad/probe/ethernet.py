"""Ethernet frames of one ethertype on one interface, by a packet socket (packet(7)); Linux only."""

from __future__ import annotations

import errno
import re
import socket
import struct
from typing import Any

from ocad.errors import OcadError, UsageError
from ocad.probe.channel import Arrival, Channel

HEADER = struct.Struct("!6s6sH")
"""Destination, source, ethertype (IEEE 802.3)."""
SHORTEST_FRAME = 60
"""Shorter ones are padded with zeros; the checksum, which hardware adds, is not counted."""
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_MULTICAST = 263, 1, 0
SO_ATTACH_FILTER = 26
TO_THIS_HOST, TO_A_GROUP = 0, 2
"""The packet types PACKET_HOST and PACKET_MULTICAST."""
MAC_FORM = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


class EthernetChannel(Channel):
    """Frames of `ethertype` on `interface`, to and from the MAC address `peer`; `own` is the interface's own one.

    `kind` is the value of the payload's second byte (eCPRI's message type, CFM's opcode): the kernel drops all other
    frames, so that they cost nothing. `group` is a multicast address to join.
    Raises `OcadError` naming the missing capability, `UsageError` for an unknown interface.
    """

    def __init__(
        self, interface: str, ethertype: int, kind: int, peer: bytes | None = None, group: bytes | None = None
    ) -> None:
        connection = _packet_socket(interface, ethertype, kind)
        self.interface = interface
        self.own: bytes = connection.getsockname()[4]
        self._ethertype = ethertype
        self._wanted = TO_THIS_HOST if group is None else TO_A_GROUP
        if group is not None:
            request = struct.pack("@iHH8s", socket.if_nametoindex(interface), PACKET_MR_MULTICAST, len(group), group)
            connection.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        super().__init__(connection, peer)

    def send(self, payload: bytes, to: Any = None) -> None:
        """See `Channel.send`; `to` is a MAC address (6 bytes)."""
        self._socket.send(encode_frame(to or self.peer, self.own, self._ethertype, payload))

    def receive(self) -> Arrival:
        """See `Channel.receive`; the sender is a MAC address, empty when the frame was not for this end."""
        frame, (_, _, packet_type, *_), time_ns = self._receive()
        for_us = packet_type == self._wanted and len(frame) >= HEADER.size
        return Arrival(frame[HEADER.size :], frame[6:12] if for_us else b"", time_ns)


def encode_frame(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    """A whole frame without its checksum, padded to the shortest length."""
    return (HEADER.pack(destination, source, ethertype) + payload).ljust(SHORTEST_FRAME, b"\0")


def parse_mac(text: str) -> bytes:
    """`02:00:00:00:00:01` as 6 bytes; raises `UsageError` for anything else."""
    if not MAC_FORM.fullmatch(text):
        raise UsageError(f"cannot read the MAC address `{text}`", "write it as `02:00:00:00:00:01`")
    return bytes.fromhex(text.replace(":", "").replace("-", ""))


def format_mac(address: bytes) -> str:
    """6 bytes as `02:00:00:00:00:01`."""
    return address.hex(":")


def _packet_socket(interface: str, ethertype: int, kind: int) -> socket.socket:
    """A packet socket that is bound only once its filter stands, so that nothing else ever gets in."""
    try:
        connection = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise OcadError(
            "Ethernet frames need the capability `CAP_NET_RAW`", "run it as root, or with that capability"
        ) from None
    try:
        _keep_only(connection, HEADER.size + 1, kind)
        connection.bind((interface, ethertype))
    except OSError as error:
        connection.close()
        if error.errno in (errno.ENODEV, errno.ENXIO):
            known = ", ".join(f"`{name}`" for _, name in socket.if_nameindex())
            raise UsageError(f"there is no interface `{interface}`", f"known: {known}") from None
        reason = (error.strerror or str(error)).lower()
        raise OcadError(f"cannot use the interface `{interface}` ({reason})", "check that it is up") from None
    return connection


def _keep_only(connection: socket.socket, offset: int, value: int) -> None:
    """Attaches a filter (classic BPF) that keeps the frames whose byte at `offset` is `value`."""
    import ctypes

    load_byte, jump_if_equal, give_back = 0x30, 0x15, 0x06
    program = b"".join(
        struct.pack("@HBBI", *instruction)
        for instruction in (
            (load_byte, 0, 0, offset),
            (jump_if_equal, 0, 1, value),
            (give_back, 0, 0, 0xFFFF),
            (give_back, 0, 0, 0),
        )
    )
    memory = ctypes.create_string_buffer(program, len(program))
    connection.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(memory))
    )
