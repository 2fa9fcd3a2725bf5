"""JSON as FORMAT.md reads it: I-JSON (RFC 7493), small, shallow, finite; anything else is `bad-json` or `oversized-json`."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from ocad_registry.errors import Corrupt

METADATA_LIMIT = 4 * 1024 * 1024
"""The most bytes of a `metadata.json`."""
DOCUMENT_LIMIT = 64 * 1024
"""The most bytes of any other document: `registry.json`, `metadata.sha256`, an alias entry."""
DEPTH_LIMIT = 127
_INTEGERS = range(-(2**63), 2**64)
"""What other parsers keep as integers, too."""
_LONGEST_INTEGER = 20


class _BadJsonError(ValueError):
    """A document that is JSON to some parsers, but not here."""


def parse(data: bytes, where: str) -> dict[str, Any]:
    """The object in `data`; raises `Corrupt` (`bad-json`) naming `where`."""
    try:
        text = data.decode("utf-8")
        value = _DECODER.decode(text)
        _check_depth(text, value)
        if "\\u" in text:
            _check_surrogates(value)
    except (ValueError, RecursionError) as error:
        cause = "nested too deeply" if isinstance(error, RecursionError) else _cause(error)
        raise Corrupt("bad-json", f"{where} is no strict JSON ({cause})") from None
    if not isinstance(value, dict):
        raise Corrupt("bad-json", f"{where} holds no JSON object")
    return value


def dump(value: dict[str, Any]) -> bytes:
    """`value` as the bytes to store; raises `ValueError` for non-finite numbers and what JSON cannot hold."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def _cause(error: ValueError) -> str:
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    return str(error).lower() if isinstance(error, _BadJsonError | json.JSONDecodeError) else "bad number"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _BadJsonError("a name occurs twice in one object")
    return document


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise _BadJsonError(f"number `{literal[:32]}` is out of range")
    return number


def _integer(literal: str) -> int | float:
    """`-0` and what needs more than 64 bits are doubles, as they are to other parsers."""
    if literal == "-0" or len(literal) > _LONGEST_INTEGER or int(literal) not in _INTEGERS:
        return _finite(literal)
    return int(literal)


def _constant(literal: str) -> NoReturn:
    raise _BadJsonError(f"`{literal}` is no JSON number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_integer, parse_constant=_constant
)


def _check_depth(text: str, value: Any) -> None:
    if text.count("[") + text.count("{") <= DEPTH_LIMIT:
        return
    level, depth = [value], 0
    while level:
        depth += any(isinstance(item, dict | list) for item in level)
        if depth > DEPTH_LIMIT:
            raise _BadJsonError(f"nested deeper than {DEPTH_LIMIT} levels")
        level = [child for item in level for child in _children(item)]


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _BadJsonError("a lone surrogate") from None
