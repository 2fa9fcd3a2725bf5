"""A seeded series to check plugins with: two endpoints, a daily-like rhythm, a gap, lost replies and labelled spikes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 2_400
"""Rows of each endpoint, one a second."""
_GAP = slice(700, 760)
_LOST = slice(300, 304)
SPIKES = (2_250, 2_300, 2_350)
"""Rows of each endpoint whose value is raised by 30 standard deviations of the noise; `label` is 1 there."""
INCIDENTS = (
    (1_050, 1, "spike"),
    (1_150, 40, "shift"),
    (1_300, 12, "loss"),
    (1_420, 1, "spike"),
    (1_600, 1, "spike"),
    (1_750, 40, "shift"),
    (1_950, 12, "loss"),
    *((row, 1, "spike") for row in SPIKES),
)
"""First row, rows and kind of what happens to each endpoint in the series for detectors; the first four for tuning."""


def write_series(path: Path, metric: str = "udp_echo", seed: int = 7) -> Path:
    """Writes the series as parquet with columns `timestamp`, `endpoint`, `metric` (µs) and `label`; returns `path`."""
    generator = np.random.default_rng(seed)
    frames = [_endpoint(name, base, metric, generator) for name, base in (("cell-a", 400.0), ("cell-b", 650.0))]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames, ignore_index=True).to_parquet(path, index=False)
    return path


def write_incidents(path: Path, metric: str = "udp_echo", seed: int = 7) -> Path:
    """Writes a series as `write_series` does, with `INCIDENTS` in it and their `kind` beside the label; returns `path`."""
    generator = np.random.default_rng(seed)
    frames = [_endpoint(name, base, metric, generator) for name, base in (("cell-a", 400.0), ("cell-b", 650.0))]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat([_add_incidents(frame, metric) for frame in frames], ignore_index=True).to_parquet(path, index=False)
    return path


def _add_incidents(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Adds all but the spikes that are there already: lost replies, or 300 µs, which is 30 deviations of the noise."""
    frame = frame.assign(kind=np.where(frame["label"] == 1, "spike", ""))
    for first, rows, kind in INCIDENTS:
        if first not in SPIKES:
            places = slice(first, first + rows - 1)
            frame.loc[places, metric] = np.nan if kind == "loss" else frame.loc[places, metric] + 300.0
            frame.loc[places, ["label", "kind"]] = (1, kind)
    return frame


def _endpoint(name: str, base: float, metric: str, generator: np.random.Generator) -> pd.DataFrame:
    step = np.arange(ROWS)
    noise = np.zeros(ROWS)
    shock = generator.normal(0.0, 8.0, ROWS)
    for i in range(1, ROWS):
        noise[i] = 0.6 * noise[i - 1] + shock[i]
    value = base + 60.0 * np.sin(2 * np.pi * step / 400) + noise
    label = np.zeros(ROWS, dtype=np.int8)
    for spike in SPIKES:
        value[spike] += 30 * noise.std()
        label[spike] = 1
    value[_LOST] = np.nan
    frame = pd.DataFrame(
        {
            "timestamp": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(step, unit="s"),
            "endpoint": name,
            metric: value,
            "label": label,
        }
    )
    return frame.drop(index=range(_GAP.start, _GAP.stop))
