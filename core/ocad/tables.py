"""Tables on disk as people have them: parquet, and CSV of any separator, decimal sign, encoding and compression.

A CSV cell is text until something else says what it means: nothing here guesses a type. What is not told (`Dialect`) is
found in the file itself, and said where it is unusual.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from ocad.errors import DataError, shown

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.csv

logger = logging.getLogger("ocad.data")

PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz", ".tsv", ".tsv.gz")
SUFFIXES = (*PARQUET, *CSV)
SEPARATORS = (",", ";", "\t", "|")
BATCH_ROWS = 1 << 17
CSV_BLOCK_BYTES = 16 << 20
_SAMPLE_ROWS = 200


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written; None: found out from the file."""

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None


def is_parquet(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith(PARQUET)


def is_table(path: Path) -> bool:
    """Whether the name is that of a parquet or CSV file."""
    return path.name.lower().endswith(SUFFIXES)


def column_names(path: Path, dialect: Dialect | None = None) -> list[str]:
    """The columns of a parquet or CSV file, an index that pandas kept among them; raises `DataError` when it has none."""
    if not is_parquet(path):
        return CsvTable(path, dialect or Dialect()).names
    import pyarrow as pa
    import pyarrow.parquet

    try:
        return _unique(path, list(pyarrow.parquet.read_schema(path).names))
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None


def read_columns(
    path: Path, names: Sequence[str], dialect: Dialect | None = None, limit: int | None = None
) -> pa.Table:
    """These columns of the whole file; those of a CSV are text, without up to `limit` rows (see `CsvTable`).

    Raises `DataError` for a file that is no table.
    """
    import pyarrow as pa
    import pyarrow.parquet

    if not is_parquet(path):
        table = CsvTable(path, dialect or Dialect(), limit)
        parts = list(table.batches(names))
        return pa.concat_tables(parts) if parts else pa.table({name: pa.array([], pa.string()) for name in names})
    try:
        return pyarrow.parquet.read_table(path, columns=list(names), partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None


def plain_columns(path: Path, names: Sequence[str], dialect: Dialect | None = None) -> dict[str, pa.Array]:
    """These columns of the whole file, each in one piece, as `cells.plain` makes them."""
    from ocad.cells import plain

    table = read_columns(path, names, dialect)
    return {name: plain(table.column(name), name) for name in names}


def unusual(path: Path, dialect: Dialect) -> dict[str, str]:
    """What of the way in which a table is written is not as usual (`,`, `.`, UTF-8), by the field of `Dialect`."""
    if is_parquet(path):
        return {}
    found = CsvTable(path, dialect).dialect
    usual = {"separator": ",", "decimal": ".", "encoding": "utf-8"}
    return {name: value for name, plain_value in usual.items() if (value := getattr(found, name)) != plain_value}


class CsvTable:
    """One CSV file as tables of text, a block at a time.

    `limit` rows with another number of cells than the header may be left out, None where nobody can allow any; `bad` counts
    those of the last pass.
    """

    def __init__(self, path: Path, dialect: Dialect, limit: int | None = 0) -> None:
        self.path, self.limit = path, limit
        self.bad = 0
        self.first_bad: int | None = None
        try:
            state = path.stat()
            encoding = dialect.encoding or _encoding_of(path.resolve(), state.st_size, state.st_mtime_ns)
            self._skip, header, sample, separator = _head(path, encoding, dialect.separator)
        except (OSError, UnicodeError, LookupError, csv.Error, EOFError, zlib.error) as error:
            raise unreadable(path, error) from None
        decimal = dialect.decimal or ("," if separator != "," and _has_decimal_commas(sample) else ".")
        self.dialect = replace(dialect, separator=separator, decimal=decimal, encoding=encoding)
        if not any(header):
            raise DataError(f"cannot read `{path}` (it has no header)", "write the columns' names in its first line")
        self.names = _unique(path, [name or f"column {place}" for place, name in enumerate(header, 1)])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows in order with these columns, every cell as text; may be asked again.

        Raises `DataError` naming the first row that is too many to be left out.
        """
        import pyarrow as pa

        self.bad, self.first_bad = 0, None
        with self._stream(columns) as stream:
            try:
                for batch in stream:
                    yield pa.Table.from_batches([batch])
            except (pa.ArrowInvalid, UnicodeError, EOFError, OSError) as error:
                raise self._refused() or unreadable(self.path, error) from None
        if self.bad:
            _tell_bad(self.path, self.bad, self.first_bad)

    def _stream(self, columns: Sequence[str]) -> pyarrow.csv.CSVStreamingReader:
        import pyarrow as pa
        import pyarrow.csv

        self._refusal: DataError | None = None
        read = pyarrow.csv.ReadOptions(
            block_size=CSV_BLOCK_BYTES,
            use_threads=False,
            column_names=self.names,
            skip_rows_after_names=self._skip,
            encoding="utf8" if self.dialect.encoding == "utf-8" else self.dialect.encoding,
        )
        parse = pyarrow.csv.ParseOptions(
            delimiter=self.dialect.separator, newlines_in_values=True, invalid_row_handler=self._judge
        )
        convert = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(self.names, pa.string()),
            include_columns=list(columns),
            strings_can_be_null=False,
        )
        try:
            return pyarrow.csv.open_csv(self.path, read_options=read, parse_options=parse, convert_options=convert)
        except (OSError, pa.ArrowInvalid, UnicodeError) as error:
            raise self._refused() or unreadable(self.path, error) from None

    def _judge(self, row: Any) -> str:
        """What pyarrow is to do with a row of another number of cells."""
        self.first_bad = self.first_bad or row.number
        self.bad += 1
        if self.bad <= (self.limit or 0):
            return "skip"
        count = f" and only {self.limit} may be left out" if self.limit else ""
        self._refusal = DataError(
            f"row {row.number} of `{self.path}` has {row.actual_columns} cells where the header has "
            f"{row.expected_columns}{count}: `{shown(row.text)}`",
            "correct it" + ("" if self.limit is None else ", or allow more with `--max-bad-lines`"),
        )
        return "error"

    def _refused(self) -> DataError | None:
        return self._refusal


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed where its name ends in `.gz`."""
    if path.name.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def open_text(path: Path, encoding: str) -> IO[str]:
    """The file as text, decompressed where its name ends in `.gz`; a byte order mark is no part of it."""
    return io.TextIOWrapper(open_bytes(path), "utf-8-sig" if encoding == "utf-8" else encoding, newline="")


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that is there and is no table."""
    reason = " ".join(str(error).split()).rstrip(".")
    hint = (
        "name the file's `encoding`" if isinstance(error, UnicodeError) else "check that it is a parquet or CSV table"
    )
    return DataError(f"cannot read `{path}` ({reason})", hint)


@lru_cache(maxsize=64)
def _tell_bad(path: Path, count: int, first: int | None) -> None:
    """Once, however often the file is passed through."""
    said = "`%s`: %d rows have another number of cells than the header, left out; the first is row %d"
    logger.warning(said, path, count, first)


@lru_cache(maxsize=64)
def _encoding_of(path: Path, _size: int, _changed: int) -> str:
    """UTF-8, UTF-16, UTF-32, or Windows' Western European where the file is not UTF-8, which is said.

    Raises `DataError` for UTF-8 with damage: such a file has valid characters of several bytes as well.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    several = False
    with open_bytes(path) as file:
        start = file.read(4)
        if wide := _wide_encoding(start):
            return wide
        block, line = start + file.read(1 << 20), 1
        while block:
            try:
                text = decoder.decode(block)
                several = several or len(text) < len(block)
            except UnicodeDecodeError as error:
                line += block[: error.start].count(b"\n")
                several = several or len(block[: error.start].decode("utf-8", "ignore")) < error.start
                if several:
                    hint = "correct it, or name the file's `encoding`"
                    raise DataError(f"line {line} of `{path}` is not UTF-8, as the lines before are", hint) from None
                logger.warning("`%s` is not UTF-8: read as `cp1252` (name its `encoding` if it is another)", path)
                return "cp1252"
            line += block.count(b"\n")
            block = file.read(1 << 20)
    return "utf-8"


def _wide_encoding(start: bytes) -> str | None:
    """UTF-32 or UTF-16 by its mark, or by the zeros that Latin letters have in it; None where the first bytes show neither."""
    if start in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    zeros = "".join("x" if byte else "0" for byte in start)
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be", "x000": "utf-32-le", "000x": "utf-32-be"}.get(zeros)


def _head(path: Path, encoding: str, separator: str | None) -> tuple[int, list[str], list[list[str]], str]:
    """How many rows stand before the data, the header, the first rows of data, and the separator."""
    with open_text(path, encoding) as file:
        lines = list(islice(file, _SAMPLE_ROWS))
    skip = next((place for place, line in enumerate(lines) if line.strip()), 0)
    first = lines[skip].strip() if lines else ""
    if first.lower().startswith("sep=") and len(first) == 5:  # Excel's own mark
        separator, skip = separator or first[4], skip + 1
    rest = lines[skip:]
    found = separator or max(SEPARATORS, key=lambda mark: _columns(rest, mark))
    rows = [row for row in csv.reader(rest, delimiter=found) if row]
    return skip + 1, [name.strip() for name in rows[0]] if rows else [], rows[1:], found


def _columns(lines: list[str], mark: str) -> tuple[bool, int]:
    """Whether `mark` parts the lines into several columns, as many in each, and how many: what the best one has most of."""
    try:
        widths = [len(row) for row in csv.reader(lines, delimiter=mark) if row]
    except csv.Error:
        return False, 0
    widths = widths[:-1] if len(widths) == _SAMPLE_ROWS else widths  # the last may be cut inside quotes
    return (len(set(widths)) == 1 and widths[0] > 1, widths[0]) if widths else (False, 0)


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    """Whether cells such as `1,5` stand in the sample, and none such as `1.5`."""
    cells = [cell.strip().lstrip("+-") for row in rows for cell in row]
    parts = [cell.split(",") for cell in cells if "," in cell]
    commas = any(len(part) == 2 and part[0].isdigit() and part[1].isdigit() for part in parts)
    points = any(cell.count(".") == 1 and cell.replace(".", "").isdigit() for cell in cells)
    return commas and not points


def _unique(path: Path, names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"`{path}` has two columns named `{twice}`", "rename one of them")
    return names
