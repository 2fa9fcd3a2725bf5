"""Three metrics of two links: two that move together and one of its own, with gaps and losses."""

from __future__ import annotations

import numpy as np
import pandas as pd

METRICS = ("udp_echo", "lbm", "ccm")


def make_frame(
    rows: int = 600, endpoints: tuple[str, ...] = ("a", "b"), seed: int = 3, start: str = "2026-01-01"
) -> pd.DataFrame:
    """A row each second; about 3 % lost, one gap of a minute a third of the way in each endpoint."""
    generator = np.random.default_rng(seed)
    parts = []
    for number, endpoint in enumerate(endpoints):
        common = generator.normal(size=rows)
        seconds = np.arange(rows) + np.where(np.arange(rows) > rows // 3, 60, 0)
        part = pd.DataFrame({"timestamp": pd.Timestamp(start, tz="UTC") + pd.to_timedelta(seconds, unit="s")})
        part["endpoint"] = endpoint
        part["udp_echo"] = 500 + 100 * number + 20 * common + 2 * generator.normal(size=rows)
        part["lbm"] = 300 + 10 * common + generator.normal(size=rows)
        part["ccm"] = generator.choice([0.0, 0.1, 0.2], rows, p=[0.9, 0.08, 0.02])
        part.loc[generator.random(rows) < 0.03, "lbm"] = np.nan
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def normal_frame(rows: int = 600, seed: int = 3, endpoints: tuple[str, ...] = ("a", "b")) -> pd.DataFrame:
    """The same without gaps."""
    frame = make_frame(rows, endpoints, seed)
    seconds = frame.groupby("endpoint").cumcount()
    return frame.assign(timestamp=pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(seconds, unit="s"))
