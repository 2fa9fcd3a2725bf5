"""Labels from people: a list of incidents, each with its link and times, put on the rows of a series."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ocad.catalogue import DataSource
from ocad.cells import texts_of
from ocad.errors import DataError, nearest
from ocad.tables import column_names, plain_columns
from ocad.times import NO_TIME, Clock, TimeError

LINK, START, END, KIND = "link", "from", "to", "kind"
DEFAULT_KIND = "incident"


@dataclass(frozen=True, slots=True)
class ListedIncident:
    """One line of the list: its number (from 1, the header not counted), link, times in µs (both included), and kind."""

    line: int
    link: str
    start_us: int
    end_us: int
    kind: str = DEFAULT_KIND


@dataclass(frozen=True, slots=True)
class Labelled:
    """`data` with `label` and `kind`; for each incident how many rows it holds."""

    data: pd.DataFrame
    rows: tuple[int, ...]


def read_incidents(path: Path, clock: Clock) -> list[ListedIncident]:
    """The list in a CSV or parquet file with the columns `link`, `from`, `to` and perhaps `kind`.

    Its times are ISO 8601, or in the format of `clock`.
    Raises `DataError` naming line and column of what cannot be used: a time that is none, an end before its start.
    """
    if not path.is_file():
        raise DataError(f"there is no file `{path}`", "check the path given to `--incidents`")
    names = column_names(path)
    for name in (LINK, START, END):
        if name not in names:
            raise DataError(f"the list `{path}` has no column `{name}`", nearest(name, names))
    columns = plain_columns(path, [name for name in (LINK, START, END, KIND) if name in names])
    links = texts_of(columns[LINK], LINK)
    kinds = texts_of(columns[KIND], KIND) if KIND in columns else np.full(len(links), "")
    clocks = (replace(clock, format=None), clock) if clock.format else (clock,)
    incidents = []
    for place, (link, kind) in enumerate(zip(links, kinds, strict=True)):
        line = place + 1
        times = []
        for name in (START, END):
            value = columns[name][place].as_py()
            try:
                times.append(_moment(value, f"{name} {line}", clocks))
            except TimeError:
                message = f"`{name}` of incident {line} in `{path}` is `{value}`, not a time"
                raise DataError(message, "write times as ISO 8601, or give `--time-format`") from None
        start, end = times
        if end < start:
            raise DataError(f"incident {line} in `{path}` ends before it begins", f"exchange `{START}` and `{END}`")
        incidents.append(ListedIncident(line, link, start, end, kind or DEFAULT_KIND))
    if not incidents:
        raise DataError(f"the list `{path}` has no incident", "write one a line")
    return incidents


def _moment(value: object, row: str, clocks: Sequence[Clock]) -> int:
    """The time in µs as the first of `clocks` that can reads it; raises `TimeError` where none can."""
    for clock in clocks:
        with suppress(TimeError):
            return clock.read(value, row)
    raise TimeError(NO_TIME)


def put_labels(source: DataSource, data: pd.DataFrame, incidents: list[ListedIncident]) -> Labelled:
    """The rows of a frame with `label` (1 inside incidents) and `kind` ("" outside); an earlier label is replaced.

    Raises `DataError` for a link that the data does not have, and for an incident outside the times of its link or
    between two of its rows.
    """
    times = data["timestamp"].to_numpy("datetime64[us]").astype(np.int64)
    endpoints = data["endpoint"].to_numpy()
    first = {name: int(np.searchsorted(endpoints, name)) for name in dict.fromkeys(endpoints.tolist())}
    label, kinds = np.zeros(len(data), np.int8), np.full(len(data), "", dtype=object)
    counts = []
    for incident in incidents:
        name = f"incident {incident.line}"
        if incident.link not in first:
            raise DataError(f"{name} names the link `{incident.link}`, which data `{source.name}` does not have",
                            nearest(incident.link, first))  # fmt: skip
        begin, stop = first[incident.link], int(np.searchsorted(endpoints, incident.link, side="right"))
        mine = times[begin:stop]
        low = begin + int(np.searchsorted(mine, incident.start_us, side="left"))
        high = begin + int(np.searchsorted(mine, incident.end_us, side="right"))
        if low == high:
            outside = incident.end_us < mine[0] or incident.start_us > mine[-1]
            span = " to ".join(pd.Timestamp(int(moment), unit="us").isoformat() + "Z" for moment in (mine[0], mine[-1]))
            where = f"lies outside the times of `{incident.link}` ({span})" if outside else "lies between two rows"
            hint = "check its times, and their `--time-zone`" if outside else "widen it to hold a row"
            raise DataError(f"{name} {where}", hint)
        label[low:high], kinds[low:high] = 1, incident.kind
        counts.append(high - low)
    return Labelled(data.drop(columns=["label"], errors="ignore").assign(label=label, kind=kinds), tuple(counts))
