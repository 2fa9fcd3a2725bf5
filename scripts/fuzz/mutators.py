"""Damage: the same for the same seed. Bytes of any kind, JSON that stays nearly JSON, protobuf and lines of text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Mutator = Callable[[random.Random, bytes], bytes]

WORDS = (
    *("0", "-0", "-1", "1e400", "1e-400", "1.0", "18446744073709551615", "18446744073709551616", "9007199254740993"),
    *(
        "1" * 400,
        "-" + "9" * 5000,
        "NaN",
        "Infinity",
        "true",
        "null",
        '""',
        "[]",
        "{}",
        "[[[[]]]]",
        "[" * 200,
        '{"a":' * 130,
    ),
    *(
        '"\\ud800"',
        '"\\u0000"',
        '"\\u001b[31m"',
        '"../x"',
        '"a/b"',
        '"model.onnx"',
        '"1.0.0"',
        '"x\\n"',
        '"' + "y" * 300 + '"',
    ),
)
"""What may stand where a value stood, as it is written."""
TAGS = (
    b"\x00",
    b"\x80\x80\x80\x80\x10",
    b"\xff" * 9 + b"\x01",
    b"\xff" * 10,
    b"\x3a\xff\xff\xff\xff\x0f",
    b"\x6a\x00",
    b"\x70\x01",
    b"\xf8\xff\xff\xff\x8f\x01",
    b"\x6a\x08\x0a\x08location",
    b"\x07",
    b"\x0b",
)
CELLS = (
    b",",
    b";",
    b"\t",
    b"\n",
    b"\r\n",
    b"\r",
    b'"',
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"1" * 5000,
    b"1e999999999",
    b"-",
    b"99999999999999999999:1",
    b"0:1",
    b"qid:7",
    b"#",
    b" ",
    b"nan",
    b"NA",
    b"\xe2\x80\xa8",
    b"2026-01-01T00:00:00Z",
    b"9999-12-31",
    b"now",
    b"\x1b[31m",
    b"sep=;",
    b"8:x\t",
    b"\t99999999999",
)


def bytes_of(chance: random.Random, data: bytes) -> bytes:
    """A bit turned, a run overwritten, doubled, left out, or all after some place."""
    work, place = bytearray(data), chance.randrange(len(data) + 1)
    end = min(len(work), place + chance.choice((1, 2, 8, 64, 512)))
    match chance.randrange(5):
        case 0 if place < len(work):
            work[place] ^= 1 << chance.randrange(8)
        case 1:
            work[place:end] = chance.randbytes(end - place)
        case 2:
            work[place:place] = work[place:end]
        case 3:
            del work[place:end]
        case _:
            del work[place:]
    return bytes(work)


def json_of(chance: random.Random, data: bytes) -> bytes:
    """A value in place of another, a field left out, doubled, renamed or new."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return bytes_of(chance, data)
    marks: dict[str, str] = {}
    holders = [one for one in _holders(document) if one]
    if not holders:
        return bytes_of(chance, data)
    holder = chance.choice(holders)
    key: Any = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    mark, word = f"mark-{chance.randrange(10**9)}", chance.choice(WORDS)
    match chance.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[f"{key}-again"] = holder[key]
            marks[json.dumps(f"{key}-again")] = json.dumps(key)
        case 2 if isinstance(holder, dict):
            holder[mark] = holder.pop(key)
            marks[json.dumps(mark)] = chance.choice((json.dumps(key.upper()), '"format"', '"\\ud83d"', '""'))
        case _:
            holder[key] = mark
            marks[json.dumps(mark)] = word
    text = json.dumps(document, indent=chance.choice((None, 1)))
    for before, after in marks.items():
        text = text.replace(before, after, 1)
    return text.encode("utf-8", "surrogatepass")


def _holders(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict | list) else []), *(found for one in inner for found in _holders(one))]


def tokens_of(tokens: tuple[bytes, ...]) -> Mutator:
    """One of `tokens` put in, or over what stands there."""

    def put(chance: random.Random, data: bytes) -> bytes:
        place, token = chance.randrange(len(data) + 1), chance.choice(tokens)
        return data[:place] + token + data[place + chance.choice((0, len(token))) :]

    return put


def damaged(chance: random.Random, data: bytes, mutators: tuple[Mutator, ...]) -> bytes:
    """`data` after one to four of `mutators`."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(mutators)(chance, data)
    return data
