"""A small detector whose batch and streaming forms are both easy to read, and frames to score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ocad.detection.detector import Series, SeriesDetector


class Distance(SeriesDetector):
    """Raw score: distance from the row before, in hundredths of the fitted median; 0 after a break and for a missing value."""

    in_noise_units = True

    def __init__(self, metrics: Sequence[str], scale: float = 1.0) -> None:
        super().__init__(metrics)
        self.scale = scale

    def fit_series(self, series: Sequence[Series]) -> None:
        self.scale = float(np.nanmedian(np.concatenate([part.values[:, 0] for part in series])))

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        track = self.track(endpoint)
        broken = self.breaks(endpoint, times)
        before = np.concatenate([[track.get("value", 0.0)], np.nan_to_num(values[:-1, 0])])
        raw = np.where(broken, 0.0, 100 * np.abs(values[:, 0] - before) / self.scale)
        track["value"] = float(np.nan_to_num(values[-1, 0]))
        return np.where(np.isnan(values[:, 0]), 0.0, raw)

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        track = self.track(endpoint)
        value, before = values[0], track.get("value", 0.0)
        track["value"] = 0.0 if math.isnan(value) else value
        if math.isnan(value):
            return 0.0
        return 0.0 if self.is_break(endpoint, time_us) else 100 * abs(value - before) / self.scale

    def parameters(self) -> dict[str, Any]:
        return {"scale": self.scale}

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        return cls(metrics, float(parameters["scale"]))


def make_frame(rows: int = 600, endpoints: Sequence[str] = ("a", "b"), seed: int = 3) -> pd.DataFrame:
    """Seconds of a noisy level around 100 with gaps and NaN, sorted by endpoint and time."""
    generator = np.random.default_rng(seed)
    parts = []
    for endpoint in endpoints:
        value = 100 + generator.normal(0, 5, rows)
        value[generator.random(rows) < 0.02] = np.nan
        steps = np.where(generator.random(rows) < 0.01, 20, 1)
        times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.cumsum(steps), unit="s")
        parts.append(pd.DataFrame({"timestamp": times, "endpoint": endpoint, "udp_echo": value}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def distance() -> Distance:
    """A fitted and calibrated detector of endpoints `a` and `b`."""
    detector = Distance(["udp_echo"])
    detector.fit(make_frame())
    detector.calibrate(make_frame(seed=4))
    return detector
