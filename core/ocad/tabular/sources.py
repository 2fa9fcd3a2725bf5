"""Click logs as streams of arrow tables, whatever their format; nothing is ever held whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from pyarrow import types

from ocad.catalogue import CLICK_SUFFIXES, DataSource, Kind
from ocad.cells import is_text, plain
from ocad.errors import DataError, nearest
from ocad.tables import BATCH_ROWS, CsvTable, Dialect, column_names, is_parquet, unreadable
from ocad.tabular.columns import column_of, try_categories
from ocad.tabular.kinds import KindFit, kind_of, type_of
from ocad.tabular.libsvm import LibsvmFile
from ocad.tabular.simulate import ensure_simulated
from ocad.tabular.spec import Features, Join
from ocad.tabular.yzx import YzxFile

logger = logging.getLogger("ocad.data")


class Reader(Protocol):
    """One file of rows."""

    schema: pa.Schema
    rows: int | None
    """None: not known before the end."""

    @property
    def bad_lines(self) -> int:
        """Lines that the last pass left out because they do not parse."""
        ...

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows in the file's order with these columns of `schema`, a batch at a time; may be asked again."""
        ...


class Log:
    """A file of a click log with the columns that `features.joins` adds; a log of the click world is written when absent.

    The cells of a CSV file are text in its tables; its `schema` says what they stand for, by all rows, or by `kinds` where
    training has decided.
    """

    def __init__(
        self,
        source: DataSource,
        path: Path,
        features: Features,
        max_bad_lines: int = 0,
        kinds: Mapping[str, Kind] | None = None,
    ) -> None:
        self.source, self.path = source, path
        ensure_simulated(source)
        self._reader = open_file(source, path, max_bad_lines or source.max_bad_lines, kinds or {})
        self._joined = [_JoinedFile(source, join, self._reader.schema, kinds or {}) for join in features.joins]
        schema = self._reader.schema
        for joined in self._joined:
            schema = pa.schema([*schema, *joined.fields(schema)])
        self.schema: pa.Schema = schema

    @property
    def rows(self) -> int | None:
        """How many, where the file says so."""
        return self._reader.rows

    def count_rows(self) -> int:
        """How many, read through where the file does not say."""
        return self.rows if self.rows is not None else sum(map(len, self.tables(self.schema.names[:1])))

    @property
    def bad_lines(self) -> int:
        """Lines that the last pass left out because they do not parse."""
        return self._reader.bad_lines

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows in order, with `columns`, in batches of some 100,000; raises `DataError` for an unknown column."""
        for column in columns:
            if column not in self.schema.names:
                raise DataError(f"`{self.path}` has no column `{column}`", nearest(column, self.schema.names))
        keys = [joined.key for joined in self._joined]
        own = [name for name in self._reader.schema.names if name in {*columns, *keys}]
        for table in self._reader.tables(own):
            whole = table
            for joined in self._joined:
                whole = joined.added_to(whole, columns)
            yield whole.select(list(columns))
        for joined in self._joined:
            joined.tell_unmatched()


def open_file(source: DataSource, path: Path, limit: int, kinds: Mapping[str, Kind]) -> Reader:
    """The reader of one file, by its name; raises `DataError` for one that is not there or empty."""
    if not path.is_file():
        raise DataError(f"data `{source.name}` is not here: there is no file `{path}`", "check the path")
    if path.stat().st_size == 0:
        raise DataError(f"data `{source.name}` is empty: `{path}` has 0 bytes", "write it again")
    name = path.name.lower()
    if name.removesuffix(".gz").endswith((".yzx", ".yzx.txt")):
        return _Whole(YzxFile(path, limit))
    if name.endswith(CLICK_SUFFIXES):
        return _Whole(LibsvmFile(path, limit, kinds))
    if is_parquet(path):
        return _Parquet(path)
    return _Csv(path, source.dialect, limit, kinds)


class _Parquet:
    bad_lines = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        column_names(path)  # raises for two columns of one name
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                self.schema = file.schema_arrow
                self.rows: int | None = file.metadata.num_rows
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(path, error) from None

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        try:
            with pyarrow.parquet.ParquetFile(self._path, pre_buffer=False) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
                    table = pa.Table.from_batches([batch])
                    yield pa.table({name: _simple(table.column(name), name) for name in table.column_names})
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(self._path, error) from None


def _simple(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray | pa.Array:
    """Text views as text: arrow has few functions for them."""
    return plain(column, name) if is_text(column.type) and not types.is_dictionary(column.type) else column


class _Csv:
    """Every cell as text, numbers with a decimal point; `schema` has a type for each column from all rows, or by `kinds`."""

    def __init__(self, path: Path, dialect: Dialect, limit: int, kinds: Mapping[str, Kind]) -> None:
        self._table = CsvTable(path, dialect, limit)
        self._decimal = self._table.dialect.decimal or "."
        self.rows: int | None = None
        if kinds:
            found = {name: type_of(kinds.get(name, "text")) for name in self._table.names}
        else:
            fits = {name: KindFit(self._decimal) for name in self._table.names}
            for table in self._table.batches(self._table.names):
                for name, fit in fits.items():
                    fit.add(plain(table.column(name), name))
            found = {name: fit.type for name, fit in fits.items()}
        self.schema = pa.schema(found)

    @property
    def bad_lines(self) -> int:
        return self._table.bad

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        numbers = [name for name in columns if self._decimal != "." and not is_text(self.schema.field(name).type)]
        for table in self._table.batches(columns):
            cells = {name: table.column(name) for name in columns}
            yield pa.table(cells | {name: pc.replace_substring(cells[name], self._decimal, ".") for name in numbers})


class _Whole:
    """A reader of a format whose lines are always parsed whole."""

    def __init__(self, file: YzxFile | LibsvmFile) -> None:
        self._file = file
        self.schema, self.rows = file.schema, file.rows

    @property
    def bad_lines(self) -> int:
        return self._file.check.bad

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        for table in self._file.tables():
            yield table.select(list(columns))


class _JoinedFile:
    """A small file whose columns are added by key; a key that it does not have gives missing values."""

    def __init__(self, source: DataSource, join: Join, schema: pa.Schema, kinds: Mapping[str, Kind]) -> None:
        if join.file not in source.files:
            raise DataError(f"data `{source.name}` has no file `{join.file}` to join", nearest(join.file, source.files))
        path = source.files[join.file]
        reader = open_file(source, path, 0, kinds)
        self.key, self._path = join.on, path
        wanted = join.columns or [name for name in reader.schema.names if name != join.on]
        for column, names in ((join.on, schema.names), *((name, reader.schema.names) for name in (join.on, *wanted))):
            if column not in names:
                raise DataError(
                    f"`features.joins` names the column `{column}`, which is not there", nearest(column, names)
                )
        self._schema = reader.schema
        self._kind = _key_kind(schema.field(join.on).type, reader.schema.field(join.on).type)
        tables = list(reader.tables([join.on, *wanted]))
        if not tables:
            raise DataError(f"the file `{join.file}` of data `{source.name}` has no rows", "write it again")
        self._table = pa.concat_tables(tables).combine_chunks()
        self._keys, _ = try_categories(column_of(self._table, join.on), join.on, self._kind)
        self._table = self._table.select(list(wanted))
        self._rows = self._matched = 0

    def fields(self, schema: pa.Schema) -> list[pa.Field]:
        """The columns that it adds; one that `schema` has already stays the log's own."""
        return [self._schema.field(name) for name in self._table.column_names if name not in schema.names]

    def added_to(self, table: pa.Table, columns: Sequence[str]) -> pa.Table:
        """`table` with those of the added columns that are asked for."""
        keys, _ = try_categories(column_of(table, self.key), self.key, self._kind)
        place = pc.index_in(keys, value_set=self._keys)
        place = pc.if_else(keys.is_null(), None, place)
        self._rows += len(table)
        self._matched += len(place) - place.null_count
        for name in self._table.column_names:
            if name in columns and name not in table.column_names:
                table = table.append_column(name, self._table.column(name).take(place))
        return table

    def tell_unmatched(self) -> None:
        """Warns where not one row of the log had a key of the file."""
        if self._rows and not self._matched:
            logger.warning("`%s`: no row of the log has a `%s` that stands in it", self._path, self.key)


def _key_kind(left: pa.DataType, right: pa.DataType) -> Kind:
    """How keys are compared: as whole numbers where both files have such, else as text."""
    both = {kind_of(left), kind_of(right)}
    return "whole" if both <= {"whole", "number", "flag"} else "text"
