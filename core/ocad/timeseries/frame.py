"""A frame: one row per endpoint and time step, its metrics in canonical units, with a count of all that was odd.

Whatever a frame cannot stand (infinite values, text where numbers belong, no rows) is a `DataError` that names column and
row; whatever can be put right (order, duplicates, times without a zone) is put right, counted, and never silent.
Row numbers in messages start at 0 and count the rows of the file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from ocad.catalogue import DataSource, column_names
from ocad.cells import flags_as_digits, numbers_of, plain
from ocad.errors import DataError, UsageError, nearest, shown
from ocad.tables import CsvTable, is_parquet, read_columns
from ocad.times import Clock
from ocad.timeseries.rows import read_endpoints, read_numbers, read_times
from ocad.timeseries.windows import segment_rows

logger = logging.getLogger("ocad.data")


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """What reading met; all but `rows` are zero for tidy data."""

    rows: int
    """Rows of the frame, after duplicates are gone."""
    endpoints: int
    duplicates: int
    """Rows left out because their endpoint and time stood in an earlier row, which is kept."""
    unsorted: int
    """Rows that came earlier in time than the row before them of the same endpoint."""
    gaps: int
    """Steps longer than three times the endpoint's median step."""
    zoneless: int
    """Times without a zone, read as UTC, or in the source's `time_zone`."""
    skipped_hour: int
    """Times that the source's `time_zone` leaves out when summer time begins, read as if that hour were there."""
    doubled_hour: int
    """Times that it has twice when summer time ends: the first is meant until an endpoint's times go back."""
    unlabelled: int
    """Rows whose label is empty, read as 0."""
    missing: Mapping[str, int]
    """NaN by metric: lost or missing measurements."""

    def as_dict(self) -> dict[str, Any]:
        """The counts by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Frame:
    """`data`: `timestamp` (UTC, µs), `endpoint` ("" when there is none), a float64 column per metric, `label` (int8) if any.

    Sorted by endpoint and time, numbered from 0.
    """

    data: pd.DataFrame
    counts: FrameCounts
    metrics: tuple[str, ...]


def read_frame(
    source: DataSource, metrics: Sequence[str] | None = None, *, varying: bool = True, lost: bool = False
) -> Frame:
    """The rows of `source` with `metrics` (None: all it has).

    A metric asked for by name must have values (unless `lost` is True: all of them may be lost), and two different ones
    unless `varying` is False: a constant series cannot be standardised. Raises `UsageError` for an unknown metric,
    `DataError` for data that cannot be used.
    """
    columns = _metric_columns(source, metrics)
    table, numbers = _read_table(source, columns)
    decimal = _decimal(source)
    clock = source.clock()
    endpoints = _endpoints(source, table)
    data = pd.DataFrame({"timestamp": _times(source, table, endpoints, numbers, clock), "endpoint": endpoints})
    for metric, (name, factor) in columns.items():
        data[metric] = read_numbers(table.column(name), name, numbers, decimal) * factor
    unlabelled = _add_label(source, table, data, numbers)
    for metric in () if lost else metrics or ():
        _require_values(source, data[metric], metric, varying)
    data, unsorted, duplicates = _in_order(data)
    count = int(data["endpoint"].nunique())
    counts = FrameCounts(
        rows=len(data),
        endpoints=count,
        duplicates=duplicates,
        unsorted=unsorted,
        gaps=int(segment_rows(data)[-1]) - count,
        zoneless=clock.zoneless,
        skipped_hour=clock.skipped,
        doubled_hour=clock.doubled,
        unlabelled=unlabelled,
        missing={metric: int(data[metric].isna().sum()) for metric in columns},
    )
    _tell(source, counts)
    return Frame(data, counts, tuple(columns))


def _metric_columns(source: DataSource, metrics: Sequence[str] | None) -> dict[str, tuple[str, float]]:
    """Metric → (column, factor) for those asked for, in their order."""
    if source.kind != "timeseries":
        raise UsageError(f"data `{source.name}` is a table of clicks, not a time series", "see `ocad data list`")
    if source.path.is_file() and source.path.stat().st_size == 0:
        raise DataError(f"data `{source.name}` is empty: `{source.path}` has 0 bytes", "write it again")
    if reason := source.missing():
        raise DataError(f"data `{source.name}` is not here: {reason}", "check the path, or set `OCAD_SHARED_DATA`")
    known = {metric: (column.name, column.factor) for metric, column in source.columns.items()}
    if not known:
        other = {source.timestamp, source.endpoint, source.label, *source.where}
        names = [name for name in column_names(source) if name not in other]
        known = {name: (name, 1.0) for name in (names if metrics else _numeric(source, names))}
    for metric in metrics or ():
        if metric not in known:
            raise UsageError(f"data `{source.name}` has no metric `{metric}`", nearest(metric, known))
    if not known:
        raise DataError(f"data `{source.name}` has no numeric column", "check that it is a table of measurements")
    return {metric: known[metric] for metric in metrics or known}


def _numeric(source: DataSource, names: list[str]) -> list[str]:
    """The columns that hold numbers; the others are named, so that none is left out without a word."""
    table = read_columns(source.path, names, source.dialect, source.max_bad_lines)
    kept: list[str] = []
    left: list[str] = []
    for name in names:
        reason = _why_no_metric(plain(table.column(name), name), _decimal(source))
        (left if reason else kept).append(f"`{name}` ({reason})" if reason else name)
    if left:
        logger.warning("data `%s`: columns that are no metric: %s", source.name, ", ".join(left))
    return kept


def _why_no_metric(column: pa.Array, decimal: str) -> str | None:
    if types.is_boolean(column.type):
        return "true or false"
    if types.is_string(column.type):
        values, odd = numbers_of(column, decimal)
        if odd.any() and not np.isnan(values[~odd]).all():
            place = int(odd.argmax())
            return f"`{shown(column[place].as_py())}` in row {place} is no number"
        return "text" if odd.any() else "empty" if np.isnan(values).all() and len(values) else None
    if types.is_null(column.type):
        return "empty"
    numeric = types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type)
    return None if numeric else str(column.type)


def _decimal(source: DataSource) -> str:
    """The decimal sign of its text; found in a CSV file that does not say."""
    if source.decimal or is_parquet(source.path):
        return source.decimal or "."
    return CsvTable(source.path, source.dialect).dialect.decimal or "."


def _read_table(source: DataSource, columns: Mapping[str, tuple[str, float]]) -> tuple[pa.Table, NDArray[np.int64]]:
    """The needed columns of the rows that `where` keeps, and the rows' numbers in the file."""
    parts = (source.timestamp, source.endpoint, source.label, *source.where)
    needed = list(dict.fromkeys([part for part in parts if part] + [name for name, _ in columns.values()]))
    present = column_names(source)
    for name in needed:
        if name not in present:
            raise DataError(f"data `{source.name}` has no column `{name}`", nearest(name, present))
    table = read_columns(source.path, needed, source.dialect, source.max_bad_lines)
    if not len(table):
        raise DataError(f"data `{source.name}` has no rows", "write it again")
    numbers = np.arange(len(table))
    for name in source.where:
        texts = read_endpoints(table.column(name), name)
        kept = [text for text in set(texts.tolist()) if source.keeps(name, text)]
        chosen = np.isin(texts.astype(str), kept) if kept else np.zeros(len(texts), bool)
        table, numbers = table.filter(pa.array(chosen)), numbers[chosen]
        if not len(table):
            wanted = source.where[name]
            patterns = ", ".join(f"`{pattern}`" for pattern in ([wanted] if isinstance(wanted, str) else wanted))
            whole = source.name.partition(":")[0]
            hint = f"see `ocad data show {whole}`"
            raise DataError(f"no row of data `{source.name}` has a `{name}` like {patterns}", hint)
    return table, numbers


def _times(
    source: DataSource, table: pa.Table, endpoints: NDArray[Any], numbers: NDArray[np.int64], clock: Clock
) -> pd.Series[pd.Timestamp]:
    """The times in UTC."""
    if source.timestamp is None:
        row = pd.Series(np.arange(len(table))).groupby(endpoints).cumcount()
        moments = (row * source.step_s * 1e6).astype("int64").to_numpy()
    else:
        moments = read_times(table.column(source.timestamp), source.timestamp, clock, endpoints, numbers)
    return pd.Series(pd.to_datetime(moments, unit="us", utc=True)).dt.as_unit("us")


def _endpoints(source: DataSource, table: pa.Table) -> NDArray[Any]:
    if source.endpoint is None:
        return np.full(len(table), "", dtype=object)
    return read_endpoints(table.column(source.endpoint), source.endpoint)


def _add_label(source: DataSource, table: pa.Table, data: pd.DataFrame, numbers: NDArray[np.int64]) -> int:
    """Adds `label` where the source has one; returns how many were empty."""
    if source.label is None:
        return 0
    column = plain(table.column(source.label), source.label)
    if types.is_string(column.type):  # `True` and `False` are a label, as they are of type boolean
        column = flags_as_digits(column)
    labels = read_numbers(column, source.label, numbers)
    wrong = (labels != 0) & (labels != 1) & ~np.isnan(labels)
    if wrong.any():
        place = int(wrong.argmax())
        raise DataError(f"label `{source.label}` is {labels[place]:g} in row {numbers[place]}", "a label is 0 or 1")
    data["label"] = np.nan_to_num(labels).astype("int8")
    return int(np.isnan(labels).sum())


def _require_values(source: DataSource, values: pd.Series[float], metric: str, varying: bool) -> None:
    present = values.dropna()
    if present.empty:
        raise DataError(f"metric `{metric}` of data `{source.name}` has no values: every row is NaN", "choose another")
    if varying and present.nunique() == 1:
        level = f"{present.iloc[0]:g}"
        hint = "a constant series cannot be standardised; choose another"
        raise DataError(f"metric `{metric}` of data `{source.name}` is {level} in every row", hint)


def _in_order(data: pd.DataFrame) -> tuple[pd.DataFrame, int, int]:
    """Sorted by endpoint and time without duplicates, and the counts of unsorted and duplicate rows."""
    step = data.groupby("endpoint", sort=False)["timestamp"].diff()
    unsorted = int((step < pd.Timedelta(0)).sum())
    data = data.sort_values(["endpoint", "timestamp"], ignore_index=True)  # by two columns: stable
    repeated = data.duplicated(["endpoint", "timestamp"])
    return data[~repeated].reset_index(drop=True), unsorted, int(repeated.sum())


def _tell(source: DataSource, counts: FrameCounts) -> None:
    """One warning for each thing that was put right."""
    told = {
        f"{counts.zoneless} times without a zone, read as UTC": 0 if source.time_zone else counts.zoneless,
        f"{counts.skipped_hour} times that `{source.time_zone}` leaves out, read as if that hour were there": (
            counts.skipped_hour
        ),
        f"{counts.doubled_hour} times that `{source.time_zone}` has twice, read as the first until times go back": (
            counts.doubled_hour
        ),
        f"{counts.unsorted} rows out of order, sorted": counts.unsorted,
        f"{counts.duplicates} rows repeat an earlier time, left out": counts.duplicates,
    }
    for words, count in told.items():
        if count:
            logger.warning("data `%s`: %s", source.name, words)
