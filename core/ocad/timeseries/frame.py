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
from pandas.api import types

from ocad.catalogue import DataSource, column_names, unreadable
from ocad.errors import DataError, UsageError, nearest
from ocad.timeseries.windows import segment_rows

logger = logging.getLogger("ocad.data")

ZONE = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"


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
    """Times without a zone, read as UTC."""
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
    table = _read_table(source, columns)
    times, zoneless = _times(source, table)
    data = pd.DataFrame({"timestamp": times, "endpoint": _endpoints(source, table)}, index=table.index)
    for metric, (name, factor) in columns.items():
        data[metric] = _numbers(table[name], name) * factor
    unlabelled = _add_label(source, table, data)
    for metric in () if lost else metrics or ():
        _require_values(source, data[metric], metric, varying)
    data, unsorted, duplicates = _in_order(data)
    endpoints = int(data["endpoint"].nunique())
    counts = FrameCounts(
        rows=len(data),
        endpoints=endpoints,
        duplicates=duplicates,
        unsorted=unsorted,
        gaps=int(segment_rows(data)[-1]) - endpoints,
        zoneless=zoneless,
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
        names = [name for name in column_names(source.path) if name not in other]
        known = {name: (name, 1.0) for name in (names if metrics else _numeric(source, names))}
    for metric in metrics or ():
        if metric not in known:
            raise UsageError(f"data `{source.name}` has no metric `{metric}`", nearest(metric, known))
    if not known:
        raise DataError(f"data `{source.name}` has no numeric column", "check that it is a table of measurements")
    return {metric: known[metric] for metric in metrics or known}


def _numeric(source: DataSource, names: list[str]) -> list[str]:
    table = _load(source, names)
    return [name for name in names if types.is_numeric_dtype(table[name])]


def _load(source: DataSource, names: list[str]) -> pd.DataFrame:
    """The columns `names` of the file."""
    try:
        if source.path.suffix == ".parquet":
            return pd.read_parquet(source.path, columns=names)
        return pd.read_csv(source.path, usecols=names)
    except (OSError, ValueError) as error:
        raise unreadable(source.path, error) from None


def _read_table(source: DataSource, columns: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """The needed columns of the rows that `where` keeps, indexed by the row's number in the file."""
    parts = (source.timestamp, source.endpoint, source.label, *source.where)
    needed = list(dict.fromkeys([part for part in parts if part] + [name for name, _ in columns.values()]))
    present = column_names(source.path)
    for name in needed:
        if name not in present:
            raise DataError(f"data `{source.name}` has no column `{name}`", nearest(name, present))
    table = _load(source, needed)
    if table.empty:
        raise DataError(f"data `{source.name}` has no rows", "write it again")
    for name in source.where:
        kept = {value for value in table[name].unique() if source.keeps(name, value)}
        table = table[table[name].isin(kept)]
        if table.empty:
            wanted = source.where[name]
            patterns = ", ".join(f"`{pattern}`" for pattern in ([wanted] if isinstance(wanted, str) else wanted))
            whole = source.name.partition(":")[0]
            hint = f"see `ocad data show {whole}`"
            raise DataError(f"no row of data `{source.name}` has a `{name}` like {patterns}", hint)
    return table


def _times(source: DataSource, table: pd.DataFrame) -> tuple[pd.Series[pd.Timestamp], int]:
    """The times in UTC, and how many of them had no zone."""
    if source.timestamp is None:
        row = (
            table.groupby(source.endpoint).cumcount() if source.endpoint else pd.Series(range(len(table)), table.index)
        )
        return pd.to_datetime((row * source.step_s * 1e6).astype("int64"), unit="us", utc=True).dt.as_unit("us"), 0
    column = table[source.timestamp]
    if column.isna().any():
        raise DataError(f"column `{source.timestamp}` has no time in row {_first(column.isna())}", "remove the row")
    if types.is_numeric_dtype(column):
        if source.time_unit is None:
            hint = "give its `time_unit` in `configs/data/`, or write times as ISO 8601"
            raise DataError(f"column `{source.timestamp}` holds numbers, not times", hint)
        return pd.to_datetime(column, unit=source.time_unit, utc=True).dt.as_unit("us"), 0
    if types.is_datetime64_any_dtype(column):
        naive = getattr(column.dt, "tz", None) is None
        return pd.to_datetime(column, utc=True).dt.as_unit("us"), len(column) if naive else 0
    return _parsed_times(source.timestamp, column.astype(str))


def _parsed_times(name: str, texts: pd.Series[str]) -> tuple[pd.Series[pd.Timestamp], int]:
    times = pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce")
    if times.isna().any():
        row = _first(times.isna())
        raise DataError(f"column `{name}` holds `{texts[row]}` in row {row}, not a time", "write times as ISO 8601")
    return times.dt.as_unit("us"), int((~texts.str.contains(ZONE)).sum())


def _endpoints(source: DataSource, table: pd.DataFrame) -> pd.Series[str]:
    if source.endpoint is None:
        return pd.Series("", index=table.index, dtype=object)
    return table[source.endpoint].astype(object).where(table[source.endpoint].notna(), "").map(str)


def _numbers(column: pd.Series[Any], name: str) -> pd.Series[float]:
    """`column` as float64; raises `DataError` naming the first value that is no finite number."""
    numbers = pd.to_numeric(column, errors="coerce") if not types.is_numeric_dtype(column) else column
    text = numbers.isna() & column.notna()
    if text.any() or not types.is_numeric_dtype(numbers):
        row = _first(text)
        raise DataError(f"column `{name}` holds `{column[row]}` in row {row}, not a number", "choose a numeric column")
    values = numbers.astype("float64")
    infinite = pd.Series(np.isinf(values.to_numpy()), index=values.index)
    if infinite.any():
        raise DataError(f"column `{name}` is infinite in row {_first(infinite)}", "write a missing value as NaN")
    return values


def _add_label(source: DataSource, table: pd.DataFrame, data: pd.DataFrame) -> int:
    """Adds `label` where the source has one; returns how many were empty."""
    if source.label is None:
        return 0
    labels = _numbers(table[source.label], source.label)
    wrong = ~labels.isin((0, 1)) & labels.notna()
    if wrong.any():
        row = _first(wrong)
        raise DataError(f"label `{source.label}` is {labels[row]:g} in row {row}", "a label is 0 or 1")
    data["label"] = labels.fillna(0).astype("int8")
    return int(labels.isna().sum())


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
    if counts.zoneless:
        logger.warning("data `%s`: %d times without a zone, read as UTC", source.name, counts.zoneless)
    if counts.unsorted:
        logger.warning("data `%s`: %d rows out of order, sorted", source.name, counts.unsorted)
    if counts.duplicates:
        logger.warning("data `%s`: %d rows repeat an earlier time, left out", source.name, counts.duplicates)


def _first(mask: pd.Series[Any]) -> int:
    """The number of the first row where `mask` holds."""
    return int(mask.index[int(mask.to_numpy().argmax())])
