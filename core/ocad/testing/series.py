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


def write_series(path: Path, metric: str = "udp_echo", seed: int = 7) -> Path:
    """Writes the series as parquet with columns `timestamp`, `endpoint`, `metric` (µs) and `label`; returns `path`."""
    generator = np.random.default_rng(seed)
    frames = [_endpoint(name, base, metric, generator) for name, base in (("cell-a", 400.0), ("cell-b", 650.0))]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames, ignore_index=True).to_parquet(path, index=False)
    return path


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
