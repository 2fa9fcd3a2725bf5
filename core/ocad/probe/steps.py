"""The rows of a recording: what the probes of each link measured in every step, labelled with what was done to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.probe.schedule import Schedule

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("udp_echo", "ecpri", "lbm", "ccm")
LEAST_OVERLAP = 0.05
"""A step carries an incident's label when the incident covers at least this share of it."""


def step_rows(schedule: Schedule, folder: Path, incidents: Sequence[Mapping[str, Any]], epoch: int) -> pd.DataFrame:
    """One row per link and step, from the probes' files `ENDPOINT.METRIC.jsonl` in `folder`.

    `timestamp` (UTC, the step's begin), `endpoint`, what was measured in the step for each metric (float32; the geometric
    mean of the delays, which are skewed, the mean of `ccm`; NaN where every probe of the step was lost), `label` (1 where
    an incident covers a part of the step) and `kind` ("" outside). `incidents` are those carried out, `epoch` is second 0
    in Unix nanoseconds.
    """
    import pandas as pd

    step = schedule.probing.step_s
    steps = int(schedule.duration_s // step)
    begins = epoch // 1000 + (np.arange(steps) * step * 1e6).astype(np.int64)
    parts = []
    for link in schedule.links:
        part = pd.DataFrame(
            {"timestamp": pd.to_datetime(begins, unit="us", utc=True).as_unit("us"), "endpoint": link.endpoint}
        )
        for metric in METRICS:
            part[metric] = _means(folder / f"{link.endpoint}.{metric}.jsonl", metric, epoch, step, steps)
        kind = _kinds([one for one in incidents if one["endpoint"] == link.endpoint], step, steps)
        part["label"] = (kind != "").astype(np.int8)
        part["kind"] = kind
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def measured_sizes(rows: pd.DataFrame, incidents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each incident with what it measured: for every metric its mean in the incident minus the link's normal median.

    In units of the link's robust noise, 1.4826 · MAD of the normal rows (of `ccm`, which mostly stands still: in shares);
    `size_sigmas` is the largest of the three delays' and None when every reply was lost.
    """
    sized = []
    for incident in incidents:
        link = rows[rows["endpoint"] == incident["endpoint"]]
        seconds = (link["timestamp"] - rows["timestamp"].iloc[0]).dt.total_seconds().to_numpy()
        normal = link[link["label"] == 0]
        inside = link[(seconds + 1 > incident["start_s"]) & (seconds < incident["end_s"])]
        sigmas = {}
        for metric in ("udp_echo", "ecpri", "lbm"):
            values = normal[metric].dropna().astype("float64")
            noise = 1.4826 * float((values - values.median()).abs().median())
            mean = inside[metric].astype("float64").mean()
            sigmas[metric] = None if np.isnan(mean) else round((float(mean) - float(values.median())) / noise, 2)
        known = [value for value in sigmas.values() if value is not None]
        missed = round(float(inside["ccm"].mean() - normal["ccm"].mean()), 4)
        sized.append({**incident, "sigmas": sigmas, "ccm": missed, "size_sigmas": max(known) if known else None})
    return sized


def last_seconds(path: Path, epoch: int) -> float:
    """When the last measurement of the probe's file was begun, in seconds since `epoch` (Unix nanoseconds)."""
    return float(_read(path, epoch, last=True)["seconds"].iloc[-1])


def _read(path: Path, epoch: int, last: bool = False) -> pd.DataFrame:
    """The probe's file, or its `last` row, with the seconds since `epoch`; a last line that is not whole is left out."""
    import pandas as pd

    text = path.read_text(encoding="utf-8")
    text = text[: text.rfind("}") + 1]
    measured = pd.read_json(StringIO(text.rpartition("\n")[2] if last else text), lines=True, dtype=False)
    times = pd.to_datetime(measured["timestamp"], utc=True, format="ISO8601").dt.tz_localize(None)
    return measured.assign(seconds=(times.to_numpy("datetime64[us]").astype(np.int64) - epoch // 1000) / 1e6)


def _means(path: Path, metric: str, epoch: int, step: float, steps: int) -> NDArray[np.float32]:
    """The (geometric) mean of the measured values of each step, NaN where there is none."""
    measured = _read(path, epoch)
    values = measured[metric].to_numpy(np.float64)
    index = np.floor(measured["seconds"].to_numpy() / step).astype(np.int64)
    kept = (index >= 0) & (index < steps) & (values >= 0 if metric == "ccm" else values > 0)
    count = np.bincount(index[kept], minlength=steps)
    weights = values[kept] if metric == "ccm" else np.log(values[kept])
    total = np.bincount(index[kept], weights=weights, minlength=steps)
    with np.errstate(invalid="ignore"):
        means = total / count
    return (means if metric == "ccm" else np.exp(means)).astype(np.float32)


def _kinds(incidents: Sequence[Mapping[str, Any]], step: float, steps: int) -> NDArray[np.object_]:
    kind = np.full(steps, "", dtype=object)
    begins = np.arange(steps) * step
    for incident in incidents:
        covered = np.minimum(begins + step, incident["end_s"]) - np.maximum(begins, incident["start_s"])
        kind[covered >= LEAST_OVERLAP * step] = incident["kind"]
    return kind
