"""Columns in the three forms that features need: categories, float32 numbers, seconds since 1970.

Each has two readings: one that refuses an odd value, for the rows that a model is fitted on, and one that tells which values
are odd (`try_…`), for the rows that it is asked about. Row numbers in messages start at 0 and count the rows of the file;
`rows` holds those of the column's rows, or the first's.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from ocad.catalogue import Kind
from ocad.cells import NUMBER, flags_as_digits, is_missing, is_text, numbers_of, plain, text_of
from ocad.errors import DataError, nearest, shown
from ocad.times import Clock, column_error

Rows = int | NDArray[np.int64]
Odd = NDArray[np.bool_]


def row_number(rows: Rows, mask: NDArray[np.bool_]) -> int:
    """The number in its file of the first row where `mask` holds."""
    place = int(mask.argmax())
    return rows + place if isinstance(rows, int) else int(rows[place])


def as_table(rows: pa.Table | pd.DataFrame) -> pa.Table:
    """`rows` as an arrow table; NaN in a frame is a missing value, a named index a column, a mixed column text."""
    if not isinstance(rows, pd.DataFrame):
        return rows
    try:
        return pa.Table.from_pandas(rows)
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        texts = rows.copy()
        for name, kind in rows.dtypes.items():
            if isinstance(kind, np.dtype) and kind.kind == "O":
                values = zip(rows[name], rows[name].isna(), strict=True)
                texts[name] = pd.Series([None if missing else text_of(value) for value, missing in values], rows.index)
        return pa.Table.from_pandas(texts)


def column_of(table: pa.Table, name: str) -> pa.Array:
    """One contiguous column as `cells.plain` makes it; raises `DataError` naming the nearest when it is absent."""
    if name not in table.column_names:
        raise DataError(f"the rows have no column `{name}`", nearest(name, table.column_names))
    return plain(table.column(name), name)


def try_categories(column: pa.Array, name: str, kind: Kind) -> tuple[pa.Array, Odd]:
    """`column` as text, or as int64 where `kind` is `whole` or `flag`, and which values are odd (they are null)."""
    if kind not in ("whole", "flag"):
        return _texts(column, name), np.zeros(len(column), bool)
    if types.is_string(column.type):
        return _spelled_integers(column, flags=kind == "flag")
    return _integers(column, name)


def categories(column: pa.Array, name: str, kind: Kind, rows: Rows = 0) -> pa.Array:
    """As `try_categories`; raises `DataError` for the first odd value."""
    values, odd = try_categories(column, name, kind)
    if odd.any():
        value = column[int(odd.argmax())].as_py()
        if isinstance(value, float) or (
            isinstance(value, str) and pc.match_substring_regex(pa.array([value]), NUMBER)[0].as_py()
        ):
            raise DataError(
                f"column `{name}` is neither text nor whole numbers ({_type_name(column)})",
                "list it under `numeric`, or leave it out",
            )
        raise DataError(
            f"column `{name}` holds `{shown(value)}` in row {row_number(rows, odd)}, not a whole number",
            "list it under `features.text`",
        )
    return values


def try_numbers(column: pa.Array, name: str) -> tuple[NDArray[np.float32], Odd]:
    """`column` as float32, the precision that served graphs take, missing and odd values NaN, and which are odd.

    Infinity is odd. Raises `DataError` for a type that holds no numbers, and for text none of which is a number.
    """
    try:
        wide, odd = numbers_of(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _no_numbers(column, name) from None
    present = odd | ~np.isnan(wide)
    if odd.sum() > 1 and odd[present].all():
        raise _no_numbers(column, name)
    with np.errstate(over="ignore"):
        single = wide.astype(np.float32)
    infinite = np.isinf(single)
    single[infinite] = np.nan
    return single, odd | infinite


def numbers(column: pa.Array, name: str, rows: Rows = 0) -> NDArray[np.float32]:
    """As `try_numbers`; raises `DataError` for the first odd value."""
    values, odd = try_numbers(column, name)
    if odd.any():
        value = column[int(odd.argmax())].as_py()
        row = row_number(rows, odd)
        wide = numbers_of(column.slice(int(odd.argmax()), 1))[0][0]
        if np.isinf(wide) or np.isfinite(wide):
            raise DataError(f"column `{name}` is infinite in row {row}", "write a missing value as NaN")
        raise DataError(f"column `{name}` holds `{shown(value)}` in row {row}, not a number", "correct it")
    return values


def try_seconds(column: pa.Array, name: str, clock: Clock) -> tuple[NDArray[np.int64], dict[int, str]]:
    """`column` as whole seconds since 1970 (UTC), and by place the reason (`times`) why a value is none.

    Raises `DataError` for a type that holds no times.
    """
    if types.is_nested(column.type) or types.is_boolean(column.type) or types.is_null(column.type):
        raise DataError(f"column `{name}` does not hold times ({column.type})", "write times as ISO 8601")
    moments, reasons = clock.try_column(column)
    seconds: NDArray[np.int64] = np.floor_divide(moments, 1_000_000)
    return seconds, reasons


def seconds(column: pa.Array, name: str, clock: Clock, rows: Rows = 0) -> NDArray[np.int64]:
    """As `try_seconds`; raises `DataError` for the first value that is no time."""
    values, reasons = try_seconds(column, name, clock)
    if reasons:
        place = min(reasons)
        row = rows + place if isinstance(rows, int) else int(rows[place])
        raise column_error(name, row, column[place].as_py(), reasons[place], clock)
    return values


def _texts(column: pa.Array, name: str) -> pa.Array:
    """Text, the empty one missing; other types are written as text, whole numbers without a fraction."""
    if types.is_boolean(column.type):
        return pc.if_else(column, "True", "False")
    if types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        column = pc.if_else(pc.is_nan(column), None, column)
        if not len(values) or np.all((values == np.floor(values)) | np.isnan(values)):
            column = column.cast(pa.int64(), safe=False)
    if types.is_nested(column.type):
        raise DataError(f"column `{name}` holds {column.type}", "no feature is made of that; leave it out")
    text = column if types.is_string(column.type) else column.cast(pa.string())
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _spelled_integers(column: pa.Array, flags: bool) -> tuple[pa.Array, Odd]:
    """Whole numbers that are written as text: `7`, `+7`, `007`, `7.0`; with `flags` also `True` and `False`, as 1 and 0."""
    if flags:
        column = flags_as_digits(column)
    text = pc.utf8_trim_whitespace(column)
    missing = is_missing(text)
    short = pc.match_substring_regex(text, r"^[+-]?\d{1,18}$").fill_null(False)
    values = pc.if_else(short, pc.utf8_ltrim(text, characters="+"), None).cast(pa.int64())
    rest = pc.invert(pc.or_(short, missing)).to_numpy(zero_copy_only=False)
    if not rest.any():
        return values, rest
    kept = values.to_pylist()
    odd = np.zeros(len(column), bool)
    for place in np.flatnonzero(rest).tolist():
        kept[place] = _integer(text[place].as_py())
        odd[place] = kept[place] is None
    return pa.array(kept, pa.int64()), odd


def _integer(text: str) -> int | None:
    """A longer whole number, or one with a fraction of zero; None for others and for those beyond 64 bits."""
    if len(text) > 40:
        return None
    try:
        value = int(text) if text.lstrip("+-").isdecimal() else None
        number = float(text) if value is None else 0.0
    except ValueError:
        return None
    if value is None:
        value = int(number) if number.is_integer() else None
    return value if value is not None and -(1 << 63) < value < 1 << 63 else None


def _integers(column: pa.Array, name: str) -> tuple[pa.Array, Odd]:
    """Typed values as int64; fractions, infinity and what 64 bits do not hold are odd."""
    if types.is_null(column.type):
        return column.cast(pa.int64()), np.zeros(len(column), bool)
    if types.is_floating(column.type) or types.is_decimal(column.type):
        wide = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        fits = (wide == np.floor(wide)) & (np.abs(wide) < 2.0**63)
        return pa.array(np.where(fits, wide, 0).astype(np.int64), mask=~fits), ~fits & ~np.isnan(wide)
    if types.is_uint64(column.type):
        fits = np.asarray(pc.less(column, pa.scalar(1 << 63, pa.uint64())).fill_null(True))
        return pc.if_else(pa.array(fits), column, None).cast(pa.int64()), ~fits
    try:
        return column.cast(pa.int64()), np.zeros(len(column), bool)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"column `{name}` does not hold whole numbers ({column.type})", "leave it out") from None


def _no_numbers(column: pa.Array, name: str) -> DataError:
    return DataError(f"column `{name}` does not hold numbers ({column.type})", "list it elsewhere")


def _type_name(column: pa.Array) -> str:
    return "double" if is_text(column.type) else str(column.type)
