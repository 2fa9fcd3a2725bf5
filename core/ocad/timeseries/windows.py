"""Windows of a frame and its split in time: the last `length` values of one endpoint, and the value that follows them.

A window never crosses an endpoint, a gap (a step longer than three times the endpoint's median), a missing value, or
the border of a split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pyarrow import parquet

from ocad.errors import DataError

PARTS = ("train", "validation", "test")
GAP_FACTOR = 3.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Windows:
    """`sequence` `(n, length)` and the next value `target` `(n,)`, in the metric's unit, ordered by endpoint and time.

    `timestamp` and `endpoint` `(n,)` are those of the target.
    """

    sequence: Floats
    target: Floats
    timestamp: NDArray[np.datetime64]
    endpoint: NDArray[Any]

    def __len__(self) -> int:
        return len(self.target)

    def write(self, path: Path) -> None:
        """Writes the columns `timestamp`, `endpoint`, `sequence` (list of numbers) and `target` as parquet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        sequence = pa.FixedSizeListArray.from_arrays(self.sequence.ravel(), self.sequence.shape[1])
        columns = {
            "timestamp": pa.array(self.timestamp).cast(pa.timestamp("us", tz="UTC")),
            "endpoint": pa.array(self.endpoint, pa.string()),
            "sequence": sequence,
            "target": pa.array(self.target),
        }
        parquet.write_table(pa.table(columns), path)


def read_windows(path: Path) -> Windows:
    """The windows that `Windows.write` wrote to `path`."""
    table = parquet.read_table(path).combine_chunks()
    target = table["target"].to_numpy()
    sequence = pc.list_flatten(table["sequence"]).to_numpy().reshape(len(target), -1)
    time = table["timestamp"].cast(pa.timestamp("us")).to_numpy()
    return Windows(sequence, target, time, table["endpoint"].to_numpy())


def segment_rows(frame: pd.DataFrame) -> NDArray[np.int64]:
    """The number of the unbroken stretch that each row of `frame` (sorted by `endpoint`, `timestamp`) belongs to."""
    endpoint = frame["endpoint"].to_numpy()
    first = np.ones(len(frame), dtype=bool)
    first[1:] = endpoint[1:] != endpoint[:-1]
    step = frame["timestamp"].astype("int64").diff().to_numpy(np.float64, copy=True)
    step[first] = np.nan
    median = pd.Series(step).groupby(np.cumsum(first)).transform("median").to_numpy()
    return np.cumsum(first | (step > GAP_FACTOR * median)).astype(np.int64)


def split_rows(frame: pd.DataFrame, shares: tuple[float, float, float], gap: int) -> NDArray[np.int8]:
    """The part (0 train, 1 validation, 2 test) of each row, -1 in between: each endpoint in time order by `shares`.

    `gap` rows between two parts belong to neither, so that neighbouring rows never stand on both sides of a border.
    """
    place = frame.groupby("endpoint", sort=False).cumcount().to_numpy()
    size = frame.groupby("endpoint", sort=False)["endpoint"].transform("size").to_numpy()
    first, second = np.floor(size * shares[0]), np.floor(size * (shares[0] + shares[1]))
    part = np.full(len(frame), -1, dtype=np.int8)
    part[place < first] = 0
    part[(place >= first + gap) & (place < second)] = 1
    part[place >= second + gap] = 2
    return part


def make_windows(frame: pd.DataFrame, metric: str, length: int, rows: NDArray[np.bool_] | None = None) -> Windows:
    """Every window of `length` values of `metric` with its next value, from the rows where `rows` is true."""
    value = frame[metric].to_numpy(np.float64)
    usable = np.isfinite(value) if rows is None else np.isfinite(value) & rows
    # the running number of a row's segment, raised at every unusable row: equal at both ends = unbroken in between
    stretch = segment_rows(frame) + np.cumsum(~usable)
    starts = np.arange(max(0, len(frame) - length))
    starts = starts[usable[starts] & (stretch[starts] == stretch[starts + length])]
    sequence = sliding_window_view(value, length)[starts] if len(starts) else np.empty((0, length))
    time = frame["timestamp"].to_numpy("datetime64[us]")
    last = starts + length
    return Windows(sequence, value[last], time[last], frame["endpoint"].to_numpy()[last])


def split_windows(
    frame: pd.DataFrame, metric: str, length: int, shares: tuple[float, float, float], gap: int
) -> Mapping[str, Windows]:
    """The windows of each part of `PARTS`, none of them crossing a border.

    Raises `DataError` when the metric is all missing, constant in the training part, or too short for a window in
    each part.
    """
    value = frame[metric].to_numpy(np.float64)
    if not np.isfinite(value).any():
        raise DataError(
            f"the metric `{metric}` has no values: all {len(frame)} rows are missing", "give another metric"
        )
    part = split_rows(frame, shares, gap)
    windows = {name: make_windows(frame, metric, length, part == index) for index, name in enumerate(PARTS)}
    for name, made in windows.items():
        if len(made) == 0:
            message = (
                f"too few rows of `{metric}`: {len(frame)} rows leave no window of {length} + 1 in the {name} part"
            )
            raise DataError(message, "give a longer series, or one with fewer gaps and missing values")
    if np.ptp(windows["train"].target) == 0 and np.ptp(windows["train"].sequence) == 0:
        message = f"the metric `{metric}` is constant ({windows['train'].target[0]:g}) in the training part"
        raise DataError(message, "there is nothing to learn: give another metric or a longer series")
    return windows
