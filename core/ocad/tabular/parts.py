"""One split on its way to disk: its labels checked, its rows encoded, its file in row groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pyarrow.types
from numpy.typing import NDArray

from ocad.catalogue import Kind
from ocad.cells import NULLS, numbers_of
from ocad.errors import DataError
from ocad.tabular import dataset
from ocad.tabular.columns import column_of, numbers, row_number
from ocad.tabular.encoder import Encoder
from ocad.tabular.spec import Features, Label
from ocad.tabular.splits import group_codes

ROW_GROUP_ROWS = 1 << 17


def labels(table: pa.Table, label: Label, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """0 or 1 for each row; raises `DataError` naming the row for a missing label or one that is neither."""
    name = str(label.column)
    column = column_of(table, name)
    if pyarrow.types.is_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    missing = pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False)
    if missing.any():
        raise DataError(f"label `{name}` is missing in row {row_number(rows, missing)}", "remove the row")
    if label.positive is not None:
        if pyarrow.types.is_boolean(column.type):
            return _flags(pc.equal(column.cast(pa.string()), label.positive.lower()))
        return _flags(pc.equal(column.cast(pa.string()), label.positive))
    if pyarrow.types.is_string(column.type):
        column = _spelled_label(column, name, rows)
    values = numbers(column, name, rows)
    if label.at_least is not None:
        return (values >= label.at_least).astype(np.float32)
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        row, value = row_number(rows, wrong), values[wrong.argmax()]
        raise DataError(f"label `{name}` is {value:g} in row {row}, not 0 or 1", "set `label.at_least`")
    return values


def _spelled_label(column: pa.Array, name: str, rows: NDArray[np.int64]) -> pa.Array:
    """Numbers and `true` or `false` written as text; raises `DataError` for the first other word."""
    words = pc.replace_substring_regex(column, r"(?i)^\s*true\s*$", "1")
    words = pc.replace_substring_regex(words, r"(?i)^\s*false\s*$", "0")
    values, odd = numbers_of(words)
    wrong = odd | np.isnan(values)
    if wrong.any():
        value, row = column[int(wrong.argmax())].as_py(), row_number(rows, wrong)
        if value in NULLS:
            raise DataError(f"label `{name}` is missing in row {row}", "remove the row")
        raise DataError(f"label `{name}` is `{value}` in row {row}, not 0 or 1", "name the click as `label.positive`")
    return pa.array(values)


def _flags(values: pa.Array) -> NDArray[np.float32]:
    flags: NDArray[np.float32] = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return flags


class PartWriter:
    """One split on its way to disk, in row groups of `ROW_GROUP_ROWS`."""

    def __init__(self, path: Path, features: Features) -> None:
        self.path, self.features = path, features
        self.rows = self.clicks = 0
        self.unseen: dict[str, int] = {}
        self.odd: dict[str, int] = {}
        """Values by column that are no numbers or times."""
        self._pending: list[pa.Table] = []
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def add(
        self, encoder: Encoder, table: pa.Table, label: NDArray[np.float32], rows: NDArray[np.int64], *, strict: bool
    ) -> None:
        """Encodes and keeps rows; `rows` are their numbers in the file. `strict` refuses odd numbers and times."""
        before, odd_before = dict(encoder.unseen), dict(encoder.odd)
        encoded = encoder.transform(table, rows, strict=strict)
        for name, count in encoder.unseen.items():
            self.unseen[name] = self.unseen.get(name, 0) + count - before[name]
        for name, count in encoder.odd.items():
            self.odd[name] = self.odd.get(name, 0) + count - odd_before.get(name, 0)
        columns: dict[str, NDArray[Any]] = {
            f"{dataset.ID_PREFIX}{field.name}": encoded.ids[:, i].astype(np.int32)
            for i, field in enumerate(encoder.fields)
        }
        columns |= {f"{dataset.NUMBER_PREFIX}{name}": encoded.numerics[:, i] for i, name in enumerate(encoder.numerics)}
        columns[dataset.LABEL] = label
        columns |= self._extras(table, rows, encoder.kinds)
        self.rows += len(label)
        self.clicks += int(label.sum())
        self._pending.append(pa.table(columns))
        if sum(map(len, self._pending)) >= ROW_GROUP_ROWS:
            self._flush()

    def require_both_classes(self, part: str, source: str, label: str) -> None:
        """Raises `DataError` for a part without rows, or whose label is the same in all of them."""
        if not self.rows:
            raise DataError(
                f"data `{source}` has no {part} rows", f"raise `split.{part}`, or give `data.{part}` a file"
            )
        if self.clicks in (0, self.rows):
            value = int(self.clicks > 0)
            raise DataError(
                f"label `{label}` is {value} in every {part} row", "both 0 and 1 are needed; give more rows"
            )

    def close(self) -> None:
        """Writes what is left."""
        self._flush()
        if self._writer:
            self._writer.close()

    def _extras(self, table: pa.Table, rows: NDArray[np.int64], kinds: Mapping[str, Kind]) -> dict[str, NDArray[Any]]:
        extras: dict[str, NDArray[Any]] = {}
        if name := self.features.group:
            extras[dataset.GROUP] = group_codes(column_of(table, name), name, kinds[name]).astype(np.int64)
        roles = {
            dataset.WEIGHT: self.features.weight,
            dataset.PRICE: self.features.price,
            dataset.TRUTH: self.features.truth,
        }
        for role, name in roles.items():
            if name:
                values = numbers(column_of(table, name), name, rows)
                wrong = ~(values >= 0)  # NaN included
                if wrong.any():
                    row = row_number(rows, wrong)
                    raise DataError(f"{role} `{name}` is missing or negative in row {row}", "correct it")
                extras[role] = values
        return extras

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending)
        self._pending = []
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table, row_group_size=len(table))
