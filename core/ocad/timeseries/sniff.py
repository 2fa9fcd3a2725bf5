"""What a table of measurements seems to be: which column is the time, the link, the label, a metric, and how it is written.

A proposal for a person to correct; nothing is read by it unasked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from pyarrow import types

from ocad.cells import is_text, numbers_of
from ocad.errors import DataError
from ocad.tables import Dialect, column_names, plain_columns, unusual
from ocad.times import Clock
from ocad.units import factor_to, measures, unit_in

FORMATS = (
    None,
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d-%m-%Y %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%Y%m%d%H%M%S",
)
"""Tried in this order; the first that reads every time is proposed. None is ISO 8601."""
_UNITS = (("s", 1e8, 1e11), ("ms", 1e11, 1e14), ("us", 1e14, 1e17), ("ns", 1e17, 1e19))
"""The unit of a count since 1970 by its size: seconds until the year 5138, the others from 1973."""
_TIME = re.compile(r"time|date|datum|zeit|fecha|hora|^ts$|^t$|^when$", re.I)
_ENDPOINT = re.compile(r"endpoint|link|probe|host|device|site|node|interface|target|machine|cell", re.I)
_LABEL = re.compile(r"^(label|anomaly|is_anomaly|change_point|incident)$", re.I)
_METRICS = (
    ("udp_echo", re.compile(r"rtt|round.?trip|ping|latency|echo", re.I)),
    ("ecpri", re.compile(r"one.?way|owd|ecpri|delay", re.I)),
    ("lbm", re.compile(r"loopback|lbm", re.I)),
    ("ccm", re.compile(r"loss|lost|ccm", re.I)),
)


def sniff(path: Path, dialect: Dialect | None = None) -> dict[str, Any]:
    """The catalogue entry that fits the file at `path`; raises `DataError` for one without times or numbers."""
    dialect = dialect or Dialect()
    names = column_names(path, dialect)
    columns = plain_columns(path, names, dialect)
    rows = len(columns[names[0]])
    if not rows:
        raise DataError(f"`{path}` has no rows", "write it again")
    entry: dict[str, Any] = {"path": str(path.resolve()), **unusual(path, dialect)}
    decimal = entry.get("decimal", ".")
    entry |= _time(path, columns, decimal)
    numeric = [name for name, column in columns.items() if _is_numeric(column, decimal)]
    taken = {entry["timestamp"]}
    label = next((name for name in names if _LABEL.search(name) and name not in taken), None)
    link = next((name for name in names if _ENDPOINT.search(name) and name not in {*taken, label}), None)
    text = [name for name in names if is_text(columns[name].type) and name not in {*numeric, *taken, label}]
    endpoint = link or next((name for name in text if len(columns[name].unique()) <= max(1, rows // 2)), None)
    entry |= {"endpoint": endpoint} if endpoint else {}
    entry |= {"label": label} if label else {}
    metrics = [name for name in numeric if name not in {*taken, endpoint, label}]
    if not metrics:
        raise DataError(
            f"`{path}` has no column of numbers beside its times", "check that it is a table of measurements"
        )
    return {**entry, "columns": _metrics(metrics)}


def dump_entry(entry: Mapping[str, Any]) -> str:
    """The entry as YAML for `configs/data/NAME.yaml`."""
    return yaml.safe_dump(dict(entry), sort_keys=False, allow_unicode=True)


def _time(path: Path, columns: Mapping[str, pa.Array], decimal: str) -> dict[str, str]:
    """The first column, those that are named like a time before others, whose every value is one, and how it is written."""
    for name in sorted(columns, key=lambda name: not _TIME.search(name)):
        column = columns[name]
        if (types.is_timestamp(column.type) or types.is_date(column.type)) and not column.null_count:
            return {"timestamp": name}
        if unit := _unit(column, decimal) if _TIME.search(name) else None:
            return {"timestamp": name, "time_unit": unit}
        for pattern in FORMATS if types.is_string(column.type) else ():
            if not Clock(format=pattern).try_column(column)[1]:
                return {"timestamp": name} | ({"time_format": pattern} if pattern else {})
    raise DataError(f"`{path}` has no column of times", "name it with `--time`, and its `--time-format`")


def _unit(column: pa.Array, decimal: str) -> str | None:
    if not _is_numeric(column, decimal):
        return None
    values, _ = numbers_of(column, decimal)
    return next((unit for unit, low, high in _UNITS if np.all((values >= low) & (values < high))), None)


def _is_numeric(column: pa.Array, decimal: str) -> bool:
    kind = column.type
    if not (types.is_string(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        return False
    values, odd = numbers_of(column, decimal)
    return not odd.any() and not bool(np.isnan(values).all())


def _metrics(names: list[str]) -> dict[str, Any]:
    """Metric → column: a canonical metric for the first column that is named like it, else the column's own name."""
    found: dict[str, Any] = {}
    for name in names:
        unit = unit_in(name)
        metric = next((metric for metric, named in _METRICS if named.search(name) and metric not in found), None)
        if metric is None or not measures(metric, unit):
            found[name] = {"name": name, "unit": unit} if unit else name
        else:
            factor = factor_to(metric, unit)
            found[metric] = {"name": name, "factor": factor} if factor != 1 else name
    return found
