"""A change-point detector that counts values above the level only."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import pytest

from ocad.detection.units import ALARM
from ocad_changepoint.config import CusumSettings
from ocad_changepoint.detector import ChangepointDetector


def a_frame() -> pd.DataFrame:
    """300 normal rows, a fall, normal rows, a rise, lost rows; a row a second."""
    values = np.random.default_rng(4).normal(100, 1, 500)
    values[320:340] -= 8
    values[400:420] += 8
    values[460:466] = np.nan
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(500), unit="s")
    return pd.DataFrame({"timestamp": times, "endpoint": "a", "udp_echo": values})


def a_detector(direction: Literal["both", "up"]) -> ChangepointDetector:
    detector = ChangepointDetector(["udp_echo"], CusumSettings(direction=direction, block=10, memory=10, floor=0.0))
    detector.fit(a_frame()[:200])
    return detector


def test_upwards_leaves_falls_out_and_keeps_rises() -> None:
    both, up = (a_detector(direction).raw(a_frame()[200:].reset_index(drop=True)) for direction in ("both", "up"))
    fall, rise = slice(120, 140), slice(200, 220)
    assert both[fall].max() > ALARM > up[fall].max()
    assert up[rise].max() > ALARM


@pytest.mark.parametrize("direction", ["both", "up"])
def test_row_by_row_is_the_same(direction: Literal["both", "up"]) -> None:
    rows = a_frame()[200:].reset_index(drop=True)
    detector = a_detector(direction)
    detector.calibrate(rows[:100])
    detector.forget()
    batch = detector.score(rows)
    detector.forget()
    times = rows["timestamp"].dt.as_unit("us").astype("int64").tolist()
    points = [
        detector.score_point("a", time, [value]) for time, value in zip(times, rows["udp_echo"].tolist(), strict=True)
    ]
    np.testing.assert_allclose(points, batch, atol=1e-9)
