"""What a cell means: text, numbers and missing values of arrow columns, the same for every file, stream and table.

A value that is none of its kind is *odd*: it is told apart from a missing one, and what to do with it is the caller's choice.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from ocad.errors import DataError

NULLS = ("", "NA", "N/A", "#N/A", "n/a", "<NA>", "NaN", "nan", "-nan", "-NaN", "NULL", "null", "None")
"""How a missing number or time is spelled; in text only the empty cell is missing."""
NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,9})?$|^[+-]?(?:[Ii]nf|INF|[Ii]nfinity)$"
"""The spellings of a number, the decimal sign being a point."""
_NUMBER = re.compile(NUMBER, re.ASCII)
_LONGEST = 400
"""Characters of a number; float64 needs fewer, and a longer one is damage."""


def plain(column: pa.ChunkedArray | pa.Array, name: str) -> pa.Array:
    """`column` in one piece, without dictionary, as `string` where it is text of any width, or bytes that are UTF-8.

    Raises `DataError` naming the column for bytes that are no text.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type) and not types.is_string(column.type):
        try:
            if types.is_fixed_size_binary(column.type):
                column = column.cast(pa.binary())
            column = column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(f"column `{name}` holds bytes that are not UTF-8", "write it as text") from None
    return column


def is_text(kind: pa.DataType) -> bool:
    """Whether `plain` makes text of it."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
        types.is_binary_view,
        types.is_fixed_size_binary,
    )
    return any(check(kind) for check in checks)


def numbers_of(column: pa.Array, decimal: str = ".") -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """`column` as float64, NaN where it is missing, and which values are odd: text that spells no number.

    Raises `ArrowInvalid` or `ArrowNotImplementedError` for a type that holds no numbers at all.
    """
    if not types.is_string(column.type):
        values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return values, np.zeros(len(column), bool)
    text = pc.utf8_trim_whitespace(column)
    missing = is_missing(text)
    if decimal != ".":
        text = pc.replace_substring(text, decimal, ".")
    short = pc.less_equal(pc.binary_length(text), _LONGEST)
    fits = pc.and_(pc.match_substring_regex(text, NUMBER), short).fill_null(False)
    fits = pc.and_(fits, pc.invert(missing))
    # arrow knows neither a leading plus, nor a point without digits on both sides
    spelled = pc.replace_substring_regex(pc.utf8_ltrim(text, characters="+"), r"^(-?)\.", r"\10.")
    spelled = pc.replace_substring_regex(spelled, r"\.([eE]|$)", r"\1")
    values = pc.if_else(fits, spelled, None).cast(pa.float64()).to_numpy(zero_copy_only=False)
    odd = pc.invert(pc.or_(fits, missing)).to_numpy(zero_copy_only=False)
    return values, odd


def is_missing(text: pa.Array) -> pa.Array:
    """Whether each cell, without space around it, is a missing number or time."""
    return pc.or_kleene(pc.is_null(text), pc.is_in(text, value_set=pa.array(NULLS)))


def flags_as_digits(column: pa.Array) -> pa.Array:
    """Text with `true` and `false` in any case as `1` and `0`, all else as it is."""
    column = pc.replace_substring_regex(column, r"(?i)^\s*true\s*$", "1")
    return pc.replace_substring_regex(column, r"(?i)^\s*false\s*$", "0")


def number_of(value: object, decimal: str = ".") -> float:
    """One value as `numbers_of` reads a column of them; NaN where it is missing. Raises `ValueError` for an odd one."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(value)
    if isinstance(value, str):
        text = value.strip()
        if text in NULLS:
            return math.nan
        text = text.replace(decimal, ".")
        if len(text) > _LONGEST or not _NUMBER.match(text):
            raise ValueError(value)
        return float(text)
    try:
        return float(value)
    except OverflowError:
        raise ValueError(value) from None


def text_of(value: object) -> str:
    """An endpoint, or another name, as text: `007` stays, the number 0 is `0`, 7.0 is `7`, a missing value is "".

    Raises `ValueError` for text that is not Unicode (half a surrogate pair).
    """
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < 2**53:
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8")
    text = str(value)
    text.encode("utf-8")
    return text


def texts_of(column: pa.Array, name: str) -> NDArray[Any]:
    """`text_of` each value of a column, as an array of `str`; raises `DataError` for one of lists or mappings."""
    if types.is_nested(column.type):
        raise DataError(f"column `{name}` holds {column.type}, which names nothing", "choose a column of text")
    encoded = column.dictionary_encode(null_encoding="encode")
    names = np.array([text_of(value) for value in encoded.dictionary.to_pylist()], dtype=object)
    places: NDArray[Any] = encoded.indices.to_numpy(zero_copy_only=False)
    return names[places] if len(names) else np.zeros(0, dtype=object)
