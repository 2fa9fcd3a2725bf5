"""From a frame to windows on disk: `ocad_prepare_data`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from ocad.contexts import PreparedData
from ocad.errors import UsageError
from ocad.timeseries.frame import read_frame
from ocad.timeseries.windows import Windows, split_windows

if TYPE_CHECKING:
    from ocad.contexts import RunContext
    from ocad_tcn.config import TcnConfig


def prepare(context: RunContext) -> PreparedData:
    """Windows of the context's metric as `train`, `validation` and `test` parquet files, statistics from `train` alone."""
    metric, settings = metric_of(context), cast("TcnConfig", context.config).windows
    frame = read_frame(context.data, [metric])
    rows = frame.data
    if not settings.incidents and "label" in rows:
        rows = rows.assign(**{metric: rows[metric].where(rows["label"] == 0)})
    windows = split_windows(rows, metric, settings.length, settings.shares, settings.gap)
    paths = {part: context.run / "data" / f"{part}.parquet" for part in windows}
    for part, made in windows.items():
        made.write(paths[part])
    series = windows["train"].target
    return PreparedData(
        name=context.data.name,
        fingerprint=fingerprint(windows),
        splits=paths,
        rows={part: len(made) for part, made in windows.items()},
        statistics={"mean": float(series.mean()), "deviation": float(series.std()), "counts": frame.counts.as_dict()},
    )


def metric_of(context: RunContext) -> str:
    """The metric that the run is for; raises `UsageError` when none was given."""
    if context.metric is None:
        raise UsageError("the plugin `tcn` forecasts one metric", "give it with `--metric NAME`")
    return context.metric


def fingerprint(windows: Mapping[str, Windows]) -> str:
    """sha256 over the values, times and endpoints of all parts."""
    digest = hashlib.sha256()
    for part, made in windows.items():
        digest.update(f"{part} {len(made)}\n".encode())
        for array in (made.sequence, made.target, made.timestamp.astype(np.int64)):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update("\n".join(map(str, made.endpoint)).encode())
    return digest.hexdigest()
