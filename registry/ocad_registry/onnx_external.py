"""The external-data locations of an ONNX file, read from its protobuf wire format without the onnx package.

Only the few messages that can hold a tensor are walked (onnx.proto3 of ONNX 1.x); everything else is skipped unread,
so a file with large embedded weights costs little.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

Fields = dict[int, str]

_MESSAGES: dict[str, Fields] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_DEPTH_LIMIT = 64
_EXTERNAL = 1
_TAG_LIMIT = 2**32 - 1


class BadOnnxError(ValueError):
    """The bytes are no ONNX protobuf."""


def external_locations(path: str | os.PathLike[str]) -> set[str]:
    """Every `location` that a tensor of the ONNX file names; raises `BadOnnxError`, or `OSError` when it cannot be read."""
    with Path(path).open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            raise BadOnnxError("the file is empty")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_walk(data, 0, len(data), "model", 0))


def _walk(data: mmap.mmap, start: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth > _DEPTH_LIMIT:
        raise BadOnnxError(f"nested deeper than {_DEPTH_LIMIT} messages")
    if message == "tensor":
        yield from _tensor(data, start, end)
        return
    known = _MESSAGES[message]
    for number, wire, first, last in _fields(data, start, end):
        if wire == 2 and number in known:
            yield from _walk(data, first, last, known[number], depth + 1)


def _tensor(data: mmap.mmap, start: int, end: int) -> Iterator[str]:
    external, locations = False, []
    for number, wire, first, last in _fields(data, start, end):
        if number == 13 and wire == 2:
            entry = {key: data[a:b] for key, kind, a, b in _fields(data, first, last) if kind == 2}
            if entry.get(1) == b"location":
                locations.append(_text(entry.get(2, b"")))
        elif number == 14 and wire == 0:
            external = first & _TAG_LIMIT == _EXTERNAL  # an enumeration is of 32 bits too
    if external and not locations:
        raise BadOnnxError("a tensor is external but names no location")
    yield from locations


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadOnnxError("a location is no UTF-8") from None


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, first, last) of each field; `first` is the value itself for a varint."""
    position = start
    while position < end:
        key, position = _varint(data, position, end)
        if key > _TAG_LIMIT:  # a runtime keeps the low 32 bits, and would see another field than is seen here
            raise BadOnnxError("a tag above 2^32 - 1")
        number, wire = key >> 3, key & 7
        if number == 0:
            raise BadOnnxError("field number 0")
        if wire == 0:
            value, position = _varint(data, position, end)
            yield number, wire, value, position
            continue
        size, position = _size(data, position, end, wire)
        if size > end - position:
            raise BadOnnxError("a field is longer than its message")
        yield number, wire, position, position + size
        position += size


def _size(data: mmap.mmap, position: int, end: int, wire: int) -> tuple[int, int]:
    if wire == 2:
        return _varint(data, position, end)
    if wire in (1, 5):
        return (8 if wire == 1 else 4), position
    raise BadOnnxError(f"wire type {wire}")


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise BadOnnxError("a number is cut off")
