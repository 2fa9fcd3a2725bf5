"""Click logs as streams of arrow tables, whatever their format; nothing is ever held whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ocad.catalogue import CLICK_SUFFIXES, DataSource, unreadable
from ocad.errors import DataError, nearest
from ocad.tabular.libsvm import LibsvmFile
from ocad.tabular.simulate import ensure_simulated
from ocad.tabular.spec import Features, Join
from ocad.tabular.text import LineCheck
from ocad.tabular.yzx import YzxFile

BATCH_ROWS = 1 << 17
CSV_BLOCK_BYTES = 16 << 20


class Reader(Protocol):
    """One file of rows."""

    schema: pa.Schema
    rows: int | None
    """None: not known before the end."""

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows in the file's order with these columns of `schema`, a batch at a time; may be asked again."""
        ...


class Log:
    """A file of a click log with the columns that `features.joins` adds; a log of the click world is written when absent."""

    def __init__(self, source: DataSource, path: Path, features: Features, max_bad_lines: int = 0) -> None:
        self.source, self.path = source, path
        ensure_simulated(source)
        self._reader, self.check = _open(source, path, features, max_bad_lines)
        self._joined = [_JoinedFile(source, join, self._reader.schema) for join in features.joins]
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
        return self.check.bad if self.check else 0

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


def _open(source: DataSource, path: Path, features: Features, limit: int) -> tuple[Reader, LineCheck | None]:
    if not path.is_file():
        raise DataError(f"data `{source.name}` is not here: there is no file `{path}`", "check the path")
    if path.stat().st_size == 0:
        raise DataError(f"data `{source.name}` is empty: `{path}` has 0 bytes", "write it again")
    if path.suffix == ".yzx" or path.name.endswith(".yzx.txt"):
        yzx = YzxFile(path, limit)
        return _Whole(yzx), yzx.check
    if path.name.endswith(CLICK_SUFFIXES):
        libsvm = LibsvmFile(path, limit)
        return _Whole(libsvm), libsvm.check
    if path.suffix == ".csv":
        return _Csv(path, [item.column for item in features.numeric]), None
    return _Parquet(path), None


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path = path
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
                    yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(self._path, error) from None


class _Csv:
    """Types come from the file's first block, except that the columns in `numbers` are float64."""

    def __init__(self, path: Path, numbers: Sequence[str]) -> None:
        self._path, self._types = path, dict.fromkeys(numbers, pa.float64())
        self.rows: int | None = None
        with self._stream(None) as stream:
            self.schema = stream.schema

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        with self._stream(columns) as stream:
            try:
                for batch in stream:
                    yield pa.Table.from_batches([batch])
            except pa.ArrowInvalid as error:
                raise unreadable(self._path, error) from None

    def _stream(self, columns: Sequence[str] | None) -> pyarrow.csv.CSVStreamingReader:
        read = pyarrow.csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False)
        convert = pyarrow.csv.ConvertOptions(
            column_types=self._types, include_columns=list(columns) if columns else None
        )
        try:
            return pyarrow.csv.open_csv(self._path, read_options=read, convert_options=convert)
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(self._path, error) from None


class _Whole:
    """A reader of a format whose lines are always parsed whole."""

    def __init__(self, file: YzxFile | LibsvmFile) -> None:
        self._file = file
        self.schema, self.rows = file.schema, file.rows

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        for table in self._file.tables():
            yield table.select(list(columns))


class _JoinedFile:
    """A small file whose columns are added by key; a key that it does not have gives missing values."""

    def __init__(self, source: DataSource, join: Join, schema: pa.Schema) -> None:
        if join.file not in source.files:
            raise DataError(f"data `{source.name}` has no file `{join.file}` to join", nearest(join.file, source.files))
        path = source.files[join.file]
        reader, _ = _open(source, path, Features(), 0)
        self.key = join.on
        wanted = join.columns or [name for name in reader.schema.names if name != join.on]
        for column, names in ((join.on, schema.names), *((name, reader.schema.names) for name in (join.on, *wanted))):
            if column not in names:
                raise DataError(
                    f"`features.joins` names the column `{column}`, which is not there", nearest(column, names)
                )
        self._table = pa.concat_tables(reader.tables([join.on, *wanted])).combine_chunks()
        self._keys = self._table.column(join.on).cast(schema.field(join.on).type).combine_chunks()
        self._table = self._table.select(list(wanted))

    def fields(self, schema: pa.Schema) -> list[pa.Field]:
        """The columns that it adds; one that `schema` has already stays the log's own."""
        return [field for field in self._table.schema if field.name not in schema.names]

    def added_to(self, table: pa.Table, columns: Sequence[str]) -> pa.Table:
        """`table` with those of the added columns that are asked for."""
        place = pc.index_in(table.column(self.key), value_set=self._keys).combine_chunks()
        for name in self._table.column_names:
            if name in columns and name not in table.column_names:
                table = table.append_column(name, self._table.column(name).take(place))
        return table
