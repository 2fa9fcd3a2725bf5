"""A seeded click log to check click-through plugins with: text, integers and numbers, a rare value, missing values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 8_000
DEVICES = ("phone", "tablet", "desktop")


def write_clicks(path: Path, rows: int = ROWS, seed: int = 7) -> Path:
    """Writes `user`, `item`, `device` (missing in places), `price` (NaN in places), `age` and `label`; returns `path`."""
    generator = np.random.default_rng(seed)
    user = generator.zipf(1.4, rows) % 40
    item = generator.integers(0, 60, rows)
    device = generator.integers(0, len(DEVICES), rows)
    price = generator.lognormal(1.0, 0.5, rows)
    age = generator.normal(40.0, 12.0, rows)
    taste = generator.normal(0.0, 0.8, (40, 4)), generator.normal(0.0, 0.8, (60, 4))
    logit = -0.8 + (taste[0][user] * taste[1][item]).sum(axis=1) + 0.6 * (device == 0) - 0.4 * (price - 3.0)
    label = generator.random(rows) < 1.0 / (1.0 + np.exp(-logit))
    names = np.asarray(DEVICES, object)[device]
    names[generator.random(rows) < 0.02] = None
    price[generator.random(rows) < 0.05] = np.nan
    columns = {
        "user": user.astype(np.int64),
        "item": [f"item-{number}" for number in item],
        "device": names,
        "price": price,
        "age": age,
        "label": label.astype(np.int8),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(path, index=False)
    return path
