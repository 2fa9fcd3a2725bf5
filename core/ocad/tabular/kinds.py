"""The kind of a column: decided once, at training, from all rows; kept in the encoder and applied whenever rows are read.

Text that is told by a file's type stays text. The cells of a CSV file are whole numbers where all of them are (`007` and
numbers beyond 64 bits are not), else numbers, flags (`True`, `False`), times in ISO 8601, else text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from ocad.catalogue import PANDAS_INDEX, Kind
from ocad.cells import NUMBER, is_missing, is_text
from ocad.errors import DataError
from ocad.tabular.spec import TIMES

if TYPE_CHECKING:
    from ocad.tabular.spec import Features

WHOLE = r"^-?(?:0|[1-9]\d{0,17})$"
NO_NUMBER = r"^[+-]?(?:0\d+|\d{19,})$"
"""Digits that are no number to reckon with: a code, or an id beyond 64 bits."""
FLAG = r"^(?:True|False|true|false|TRUE|FALSE)$"
TIME = (
    r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s*(?:Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?)?$"
)  # fmt: skip
_PATTERNS: tuple[tuple[Kind, str], ...] = (("whole", WHOLE), ("number", NUMBER), ("flag", FLAG), ("time", TIME))
_TYPES: Mapping[Kind, pa.DataType] = {
    "whole": pa.int64(),
    "number": pa.float64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("us", "UTC"),
    "text": pa.string(),
}


class KindFit:
    """Finds the kind of a column of text from all its cells."""

    def __init__(self, decimal: str = ".") -> None:
        self._decimal = decimal
        self._open = list(_PATTERNS)
        self._seen = self._spelled_null = False

    def add(self, column: pa.Array) -> None:
        """Takes in a batch of cells."""
        if not self._open and self._seen:
            return
        text = pc.utf8_trim_whitespace(column)
        null = is_missing(text)
        self._spelled_null = self._spelled_null or bool(pc.any(pc.and_(null, pc.not_equal(text, ""))).as_py())
        text = text.filter(pc.invert(null))
        if not len(text):
            return
        self._seen = True
        while self._open and not _all_match(text, self._open[0], self._decimal):
            self._open.pop(0)

    @property
    def type(self) -> pa.DataType:
        """The arrow type that the cells stand for; `null` where all of them are empty."""
        if not self._seen:
            return pa.string() if self._spelled_null else pa.null()
        return _TYPES[self._open[0][0] if self._open else "text"]


def _all_match(text: pa.Array, kind: tuple[Kind, str], decimal: str) -> bool:
    if decimal != "." and kind[0] == "number":
        text = pc.replace_substring(text, decimal, ".")
    if kind[0] == "number" and pc.any(pc.match_substring_regex(text, NO_NUMBER)).as_py():
        return False
    return bool(pc.all(pc.match_substring_regex(text, kind[1])).as_py())


def type_of(kind: Kind) -> pa.DataType:
    """The arrow type of a kind's values."""
    return _TYPES[kind]


def kind_of(kind: pa.DataType) -> Kind | None:
    """The kind that a type has by itself; None for one without any, as lists. Ids of 64 bits without a sign are text."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    if is_text(kind) or types.is_uint64(kind) or types.is_null(kind) or types.is_time(kind):
        return "text"
    if types.is_boolean(kind):
        return "flag"
    if types.is_integer(kind):
        return "whole"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    return "time" if types.is_timestamp(kind) or types.is_date(kind) else None


def why_unused(field: pa.Field) -> str | None:
    """Why `auto` makes no feature of a column; None where it does."""
    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    if field.name == PANDAS_INDEX:
        return "an index without a name"
    if types.is_null(kind):
        return "empty"
    if types.is_time(kind):
        return "times of day; list it under `features.categorical`"
    if kind_of(kind) == "time":
        return TIMES
    if kind_of(kind) is None:
        return f"{kind}, which no feature is made of"
    return None


def fitted_kinds(
    features: Features, schema: pa.Schema, columns: Iterable[str], stated: Mapping[str, Kind]
) -> dict[str, Kind]:
    """The kind of each of `columns`: as stated, as its use demands, as `schema` has it.

    Columns that share a vocabulary have the same one. Raises `DataError` for a type that nothing is made of.
    """
    used: dict[str, Kind] = {item.column: "number" for item in features.numeric}
    used |= {item.column: "time" for item in features.temporal}
    categorical = {item.column: item for item in features.categorical}
    kinds: dict[str, Kind] = {}
    for name in columns:
        own = kind_of(schema.field(name).type)
        if own is None:
            raise DataError(
                f"column `{name}` holds {schema.field(name).type}", "no feature is made of that; leave it out"
            )
        kinds[name] = "text" if name in features.text else stated.get(name) or used.get(name) or own
    if features.group in kinds and kinds[features.group] == "number":
        kinds[features.group] = "whole"
    for name, item in categorical.items():
        if item.separator or (kinds[name] == "time" and name not in used):
            kinds[name] = "text"
        elif kinds[name] == "number":
            kinds[name] = "whole"
    for name, item in categorical.items():
        if item.share and kinds[name] != kinds[item.share]:
            kinds[name] = kinds[item.share] = "text"
    return kinds
