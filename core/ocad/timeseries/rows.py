"""The one reading of measurements: a row's endpoint, time and values, from a line of a stream or from a file's columns.

`RowReader.read` takes one row, `read_endpoints`, `read_times` and `read_numbers` the columns of a file; both give the same
answer for the same cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ocad.catalogue import DataSource
from ocad.cells import number_of, numbers_of, plain, text_of, texts_of
from ocad.errors import DataError, nearest, shown
from ocad.times import MISSING, NUMERIC, OUTSIDE, Clock, TimeError, column_error


@dataclass(slots=True)
class RowReader:
    """Reads rows that arrive one by one: mappings from a column's name to text, a number, a boolean or None."""

    metrics: Mapping[str, tuple[str, float]]
    """Metric → (column, factor), in the order of the answer."""
    timestamp: str = "timestamp"
    endpoint: str | None = "endpoint"
    """Its column; rows may leave it out."""
    decimal: str = "."
    clock: Clock = field(default_factory=Clock)

    @classmethod
    def of(cls, metrics: Sequence[str], source: DataSource | None = None) -> RowReader:
        """The reader of a stream with these metrics, whose columns map as those of `source` where one is given."""
        if source is None:
            return cls({metric: (metric, 1.0) for metric in metrics})
        columns = {metric: (column.name, column.factor) for metric, column in source.columns.items()}
        return cls(
            {metric: columns.get(metric, (metric, 1.0)) for metric in metrics},
            source.timestamp or "timestamp",
            source.endpoint or "endpoint",
            source.decimal or ".",
            source.clock(),
        )

    def read(self, row: Mapping[str, object]) -> tuple[str, int, list[float]]:
        """Endpoint ("" for none), time in µs since 1970 (UTC), and a value for each metric, NaN where it is missing.

        Raises `DataError` naming the column of what cannot be used.
        """
        named = row.get(self.endpoint) if self.endpoint else None
        try:
            if isinstance(named, list | dict):
                raise ValueError(named)
            endpoint = text_of(named)
        except ValueError:
            raise DataError(f"a row's `{self.endpoint}` is no text", "send it as Unicode") from None
        if row.get(self.timestamp) is None:
            raise DataError(f"a row has no `{self.timestamp}`", f"send its time as {self.clock.spelling}")
        try:
            moment = self.clock.read(row[self.timestamp], endpoint)
        except TimeError as error:
            raise self._no_time(error.reason) from None
        return endpoint, moment, [self._value(row, column) * factor for column, factor in self.metrics.values()]

    def _no_time(self, reason: str) -> DataError:
        what, how = f"a row's `{self.timestamp}`", f"send it as {self.clock.spelling}"
        if reason == MISSING:
            return DataError(f"{what} is missing", how)
        if reason == NUMERIC:
            return DataError(f"{what} is a number", f"say its unit, or {how}")
        if reason == OUTSIDE:
            return DataError(f"{what} lies outside the years 1900 to 2199", "correct the clock that wrote it")
        return DataError(f"{what} is no time", how)

    def _value(self, row: Mapping[str, object], column: str) -> float:
        if column not in row:
            known = [name for name in row if name not in (self.timestamp, self.endpoint)]
            raise DataError(f"a row has no `{column}`", nearest(column, known) + "; a lost measurement is null")
        try:
            value = number_of(row[column], self.decimal)
        except ValueError:
            raise DataError(f"a row's `{column}` is no number", "send a number, or null where it was lost") from None
        if math.isinf(value):
            raise DataError(f"a row's `{column}` is infinite", "send null where it was lost")
        return value


def read_times(
    column: pa.Array, name: str, clock: Clock, endpoints: NDArray[Any], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """All times of a file's column in µs; raises `DataError` naming column and row. `rows` are numbers in the file."""
    column = plain(column, name)
    try:
        return clock.read_column(column, endpoints.tolist())
    except TimeError as error:
        place = error.place
        raise column_error(name, int(rows[place]), column[place].as_py(), error.reason, clock) from None


def read_numbers(column: pa.Array, name: str, rows: NDArray[np.int64], decimal: str = ".") -> NDArray[np.float64]:
    """A file's column as float64, NaN where it is missing; raises `DataError` naming column and row of what is no number."""
    column = plain(column, name)
    try:
        values, odd = numbers_of(column, decimal)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        kind = f"holds `{column[0].as_py()}` in row {rows[0]}" if len(column) else f"is of type `{column.type}`"
        raise DataError(f"column `{name}` {kind}, not a number", "choose a numeric column") from None
    if odd.any():
        place = int(odd.argmax())
        value = shown(column[place].as_py())
        raise DataError(
            f"column `{name}` holds `{value}` in row {rows[place]}, not a number", "choose a numeric column"
        )
    infinite = np.isinf(values)
    if infinite.any():
        row = rows[int(infinite.argmax())]
        raise DataError(f"column `{name}` is infinite in row {row}", "write a missing value as NaN")
    return values


def read_endpoints(column: pa.Array, name: str) -> NDArray[Any]:
    """A file's column of endpoints as text, "" where it is missing; raises `DataError` for what is no text."""
    return texts_of(plain(column, name), name)
