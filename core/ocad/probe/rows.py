"""Where a measurement's rows go: JSON lines while they are measured, or a table (parquet, CSV) at its end."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from array import array
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from ocad.errors import DataError, UsageError
from ocad.probe.measurement import Row

if TYPE_CHECKING:
    import pandas as pd

STANDARD_OUTPUT = "-"
SUFFIXES = (".parquet", ".csv", ".jsonl")


class Sink(Protocol):
    """Takes rows as they become known."""

    def add(self, row: Row) -> None:
        """Takes the next row; raises `DataError` when it cannot be written."""

    def close(self) -> None:
        """Writes what is left to write."""


class JsonLines:
    """One JSON object a line, each written at once: a measurement that is cut off keeps its rows."""

    def __init__(self, stream: IO[str], name: str, metric: str, endpoint: str | None) -> None:
        self._stream, self._name, self._metric, self._endpoint = stream, name, metric, endpoint

    def add(self, row: Row) -> None:
        """See `Sink.add`."""
        value = None if math.isnan(row.value) else round(row.value, 6)
        time = datetime.fromtimestamp(row.time_us // 1_000_000, UTC).replace(microsecond=row.time_us % 1_000_000)
        named = {} if self._endpoint is None else {"endpoint": self._endpoint}
        line = {"timestamp": time.isoformat(timespec="microseconds"), **named, self._metric: value}
        try:
            self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._stream.flush()
        except BrokenPipeError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # else Python's own last flush fails too
            raise DataError(f"cannot write `{self._name}` ({error.strerror})", "check the reader") from None
        except OSError as error:
            raise _cannot_write(self._name, error) from None

    def close(self) -> None:
        """See `Sink.close`."""
        if self._stream is not sys.stdout:
            with contextlib.suppress(OSError):  # rows that could not be written were reported by `add`
                self._stream.close()


class Table:
    """Keeps the rows and writes them as parquet or CSV in the end; the file appears whole or not at all."""

    def __init__(self, path: Path, metric: str, endpoint: str | None) -> None:
        self._path, self._metric, self._endpoint = path, metric, endpoint
        self._sequences, self._times, self._values = array("q"), array("q"), array("d")

    def add(self, row: Row) -> None:
        """See `Sink.add`."""
        self._sequences.append(row.sequence)
        self._times.append(row.time_us)
        self._values.append(row.value)

    def frame(self) -> pd.DataFrame:
        """`timestamp` (UTC), `endpoint` when it has a name, the metric (NaN when lost) and the row's number `seq`."""
        import numpy as np
        import pandas as pd

        times = pd.to_datetime(np.array(self._times, dtype=np.int64), unit="us", utc=True).as_unit("us")
        named = {} if self._endpoint is None else {"endpoint": self._endpoint}
        values, sequences = np.array(self._values), np.array(self._sequences, dtype=np.int64)
        return pd.DataFrame({"timestamp": times, **named, self._metric: values, "seq": sequences})

    def close(self) -> None:
        """See `Sink.close`."""
        write_rows(self.frame(), self._path)


def check_output(out: str) -> None:
    """Raises `UsageError` when `out` is no format that can be written, or its folder does not exist."""
    path = Path(out)
    if out != STANDARD_OUTPUT and path.suffix not in SUFFIXES:
        raise UsageError(f"cannot tell the format of `{out}`", "end its name in `.parquet`, `.csv` or `.jsonl`")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder `{path.parent}` to write to", "create it first")


def open_sink(out: str, metric: str, endpoint: str | None) -> Sink:
    """The sink for `out`: `-` (JSON lines on stdout) or a file by its suffix, which begins anew.

    Raises `DataError` when the file cannot be written.
    """
    if out == STANDARD_OUTPUT:
        return JsonLines(sys.stdout, "stdout", metric, endpoint)
    path = Path(out)
    if path.suffix != ".jsonl":
        return Table(path, metric, endpoint)
    try:
        return JsonLines(path.open("w", encoding="utf-8"), out, metric, endpoint)
    except OSError as error:
        raise _cannot_write(out, error) from None


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Writes `rows` as parquet or CSV by the suffix of `path`, which appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        if path.suffix == ".csv":
            rows.to_csv(unfinished, index=False)
        else:
            rows.to_parquet(unfinished, index=False, compression="zstd")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise _cannot_write(str(path), error) from None


def _cannot_write(name: str, error: OSError) -> DataError:
    return DataError(f"cannot write `{name}` ({error.strerror})", "check the folder and the free space")
