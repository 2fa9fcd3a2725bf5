"""HTTP/2 by hand, as far as an attacker of the gRPC port needs it: streams that begin and do not end."""

from __future__ import annotations

import socket
import struct
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW = 0, 1, 4, 6, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
LARGEST = 16384


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def head(method: str, headers: dict[str, str] | None = None) -> bytes:
    """The header block of a call, every field written out."""

    def literal(text: str) -> bytes:
        assert len(text) < 127
        return bytes([len(text)]) + text.encode()

    fields = {"content-type": "application/grpc", "te": "trailers", **(headers or {})}
    path = b"\x04" + literal(f"/inference.GRPCInferenceService/{method}")
    more = b"".join(b"\x00" + literal(name) + literal(value) for name, value in fields.items())
    return b"\x83\x86" + path + b"\x01" + literal("localhost") + more


class Connection:
    """A connection that sends as much as it may and looks at nothing but the windows."""

    def __init__(self, address: str, window: int = 65535) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)))
        self.windows = {0: 65535}
        self.initial = 65535
        self.streams = 0
        self.read = b""
        self.failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(self, method: str, headers: dict[str, str] | None = None) -> int:
        """Begins a call and answers its stream."""
        stream = self.streams = self.streams + 2 if self.streams else 1
        self.windows[stream] = self.initial
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, head(method, headers)))
        return stream

    def send(self, stream: int, content: bytes, seconds: float, *, end: bool = False) -> int:
        """Sends `content` as far as the windows open within `seconds` each time; answers how much went."""
        sent = 0
        while sent < len(content):
            room = min(LARGEST, self.windows[0], self.windows[stream], len(content) - sent)
            if room <= 0:
                if not self.receive(seconds):
                    break
                continue
            last = END_STREAM if end and sent + room == len(content) else 0
            try:
                self.socket.sendall(frame(DATA, last, stream, content[sent : sent + room]))
            except OSError:
                self.failed = True
                break
            sent += room
            self.windows[0] -= room
            self.windows[stream] -= room
        return sent

    def receive(self, seconds: float) -> bool:
        """Reads what comes within `seconds` and takes note of the windows; false when nothing came."""
        self.socket.settimeout(seconds)
        try:
            part = self.socket.recv(65536)
        except OSError:
            return False
        if not part:
            self.failed = True
            return False
        self.read += part
        while len(self.read) >= 9 and len(self.read) >= 9 + (length := int.from_bytes(self.read[:3], "big")):
            kind, flags, stream = self.read[3], self.read[4], int.from_bytes(self.read[5:9], "big")
            self.note(kind, flags, stream, self.read[9 : 9 + length])
            self.read = self.read[9 + length :]
        return True

    def note(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        """Takes note of one frame."""
        if kind == WINDOW:
            self.windows[stream] = self.windows.get(stream, self.initial) + int.from_bytes(content, "big")
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(content), 6):
                setting, value = struct.unpack(">HI", content[at : at + 6])
                if setting == 4:
                    more = value - self.initial
                    self.initial = value
                    self.windows = {key: left + (more if key else 0) for key, left in self.windows.items()}
            self.socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.socket.sendall(frame(PING, ACK, 0, content))
