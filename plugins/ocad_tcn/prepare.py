"""From a frame to windows on disk: `ocad_prepare_data`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from ocad.contexts import PreparedData
from ocad.errors import DataError, UsageError
from ocad.timeseries.frame import read_frame
from ocad.timeseries.typical import chosen, fit_typical
from ocad.timeseries.windows import Windows, make_windows, split_windows

if TYPE_CHECKING:
    import pandas as pd

    from ocad.contexts import RunContext
    from ocad_tcn.config import TcnConfig, WindowSettings


BASELINES = "baselines"
"""The split that baselines are fitted on where a stored version is measured on a part of its data."""


def prepare(context: RunContext) -> PreparedData:
    """Windows of the context's metric as `train`, `validation` and `test` parquet files.

    `mean` and `deviation` are of the typical rows of `train` alone. Of a version that is measured again: the windows of
    `context.part` as `test`, and the version's own statistics.
    """
    metric, settings = metric_of(context), cast("TcnConfig", context.config).windows
    frame = read_frame(context.data, [metric])
    rows = frame.data
    if not settings.incidents and "label" in rows:
        rows = rows.assign(**{metric: rows[metric].where(rows["label"] == 0)})
    windows: Mapping[str, Windows]
    if context.version is not None:
        windows = windows_again(rows, metric, settings, context.part)
        statistics = json.loads(context.version.file("preprocess").read_text(encoding="utf-8"))
        statistics = {name: float(statistics[name]) for name in ("mean", "deviation")}
    else:
        windows = split_windows(rows, metric, settings.length, settings.shares, settings.gap)
        statistics = typical_statistics(windows["train"])
    paths = {part: context.run / "data" / f"{part}.parquet" for part in windows}
    for part, made in windows.items():
        made.write(paths[part])
    return PreparedData(
        name=context.data.name,
        fingerprint=fingerprint(windows),
        splits=paths,
        rows={part: len(made) for part, made in windows.items()},
        statistics={**statistics, "counts": frame.counts.as_dict()},
    )


def typical_statistics(train: Windows) -> dict[str, float]:
    """Mean and standard deviation of the targets of typical training rows, in the metric's unit."""
    series = chosen(train, fit_typical(train).within(train)).target
    return {"mean": float(series.mean()), "deviation": float(series.std())}


def windows_again(rows: pd.DataFrame, metric: str, settings: WindowSettings, part: str) -> dict[str, Windows]:
    """The windows of one part as `test`, with the training part as `baselines`; or of `all` rows as `test` alone.

    Raises `DataError` where there are none.
    """
    if part != "all":
        parts = split_windows(rows, metric, settings.length, settings.shares, settings.gap)
        return {"test": parts[part], BASELINES: parts["train"]}
    windows = make_windows(rows, metric, settings.length)
    if len(windows) == 0:
        message = f"too few rows of `{metric}`: {len(rows)} rows leave no window of {settings.length} + 1"
        raise DataError(message, "give a longer series, or one with fewer gaps and missing values")
    return {"test": windows}


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
