"""sha256 of bytes and files, and the one line of `metadata.sha256`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ocad_registry.errors import Corrupt

if TYPE_CHECKING:
    from ocad_registry.storage import Payload

CHUNK = 1024 * 1024
_LENGTH = 64
_TAIL = b"  metadata.json\n"


def digest(data: bytes) -> str:
    """64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_stream(
    descriptor: int, write: Callable[[memoryview], object] | None = None, limit: int | None = None
) -> tuple[int, str]:
    """Size and sha256 of what `descriptor` still holds, or of its next `limit` bytes, handing each chunk to `write`."""
    state, size, buffer = hashlib.sha256(), 0, bytearray(CHUNK)
    view = memoryview(buffer)
    while count := os.readv(descriptor, [view if limit is None else view[: min(CHUNK, limit - size)]]):
        state.update(view[:count])
        size += count
        if write:
            write(view[:count])
    return size, state.hexdigest()


def digest_line(sha256: str) -> bytes:
    """The content of `metadata.sha256`, which `sha256sum -c` understands."""
    return sha256.encode("ascii") + _TAIL


def parse_digest_line(data: bytes, where: str) -> str:
    """The digest in a `metadata.sha256`; raises `Corrupt` (`metadata-digest`) when it is not exactly one such line."""
    head = data[:_LENGTH]
    if data[_LENGTH:] != _TAIL or len(head.strip(b"0123456789abcdef")) != 0:
        raise Corrupt("metadata-digest", f"`metadata.sha256` of {where} is malformed")
    return head.decode("ascii")


def check_file(measure: Callable[[], tuple[int, str]], expected: Payload, where: str) -> None:
    """Raises `Corrupt` (`missing-file`, `size`, `digest`) unless `measure` finds the listed size and sha256."""
    try:
        size, sha256 = measure()
    except FileNotFoundError:
        raise Corrupt("missing-file", f"{where} is missing") from None
    if size != expected.size:
        raise Corrupt("size", f"{where} has {size} bytes, not {expected.size}")
    if sha256 != expected.sha256:
        raise Corrupt("digest", f"{where} is not what was published (sha256 differs)")
