"""Arrow columns in the three forms that features need: categories, float32 numbers, seconds since 1970.

Row numbers in messages start at 0 and count the rows of the file; `rows` holds those of the column's rows, or the first's.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from ocad.errors import DataError, nearest

Rows = int | NDArray[np.int64]
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def row_number(rows: Rows, mask: NDArray[np.bool_]) -> int:
    """The number in its file of the first row where `mask` holds."""
    place = int(mask.argmax())
    return rows + place if isinstance(rows, int) else int(rows[place])


def as_table(rows: pa.Table | pd.DataFrame) -> pa.Table:
    """`rows` as an arrow table; NaN in a frame is a missing value."""
    return pa.Table.from_pandas(rows, preserve_index=False) if isinstance(rows, pd.DataFrame) else rows


def column_of(table: pa.Table, name: str) -> pa.Array:
    """One contiguous column without dictionary encoding; raises `DataError` naming the nearest when it is absent."""
    if name not in table.column_names:
        raise DataError(f"the rows have no column `{name}`", nearest(name, table.column_names))
    column = table.column(name)
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def categories(column: pa.Array, name: str) -> pa.Array:
    """`column` as int64 or text, the empty text and NaN missing; raises `DataError` for fractions, times and lists."""
    if types.is_null(column.type):
        return column.cast(pa.string())
    if types.is_string(column.type) or types.is_large_string(column.type):
        column = column.cast(pa.string()) if types.is_large_string(column.type) else column
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    if types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(
            f"column `{name}` is neither text nor whole numbers ({column.type})",
            "list it under `numeric`, or leave it out",
        ) from None


def numbers(column: pa.Array, name: str, rows: Rows = 0) -> NDArray[np.float32]:
    """`column` as float32, the precision that served graphs take; missing is NaN. `DataError` for text and infinity."""
    try:
        values = column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"column `{name}` does not hold numbers ({column.type})", "list it elsewhere") from None
    array: NDArray[np.float64] = values.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if np.isinf(single).any():
        raise DataError(
            f"column `{name}` is infinite in row {row_number(rows, np.isinf(single))}", "write a missing value as NaN"
        )
    return single


def seconds(column: pa.Array, name: str, unit: str, rows: Rows = 0) -> NDArray[np.int64]:
    """`column` as whole seconds since 1970 (UTC): times, ISO 8601 text, or numbers in `unit`. `DataError` when missing."""
    if types.is_string(column.type) or types.is_large_string(column.type):
        parsed = pd.to_datetime(column.to_pandas(), utc=True, format="ISO8601", errors="coerce")
        wrong = (parsed.isna() & pc.is_valid(column).to_pandas()).to_numpy()
        if wrong.any():
            text = column[int(wrong.argmax())].as_py()
            row = row_number(rows, wrong)
            raise DataError(f"column `{name}` holds `{text}` in row {row}, not a time", "write times as ISO 8601")
        column = pa.array(parsed.dt.as_unit("us").dt.tz_localize(None))
    if types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if types.is_timestamp(column.type):
        unit = column.type.unit
        column = column.cast(pa.int64())
    numeric = types.is_integer(column.type) or types.is_floating(column.type)
    if not numeric:
        raise DataError(f"column `{name}` does not hold times ({column.type})", "write times as ISO 8601")
    missing = pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False)
    if missing.any():
        raise DataError(f"column `{name}` has no time in row {row_number(rows, missing)}", "remove the row")
    values = column.to_numpy(zero_copy_only=False)
    whole: NDArray[np.int64] = np.floor_divide(values, UNITS[unit]).astype(np.int64)
    return whole
