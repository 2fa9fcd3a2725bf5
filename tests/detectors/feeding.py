"""Frames of a link with four metrics, and a detector fed with them in any way."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ocad.detection.detector import SeriesDetector

METRICS = ("udp_echo", "ecpri", "lbm", "ccm")


def make_links(rows: int, endpoints: Sequence[str] = ("a", "b"), seed: int = 1, lost: float = 0.01) -> pd.DataFrame:
    """A row a second with gaps: three delays around 200 µs, and the share of missed continuity checks."""
    generator = np.random.default_rng(seed)
    parts = []
    for endpoint in endpoints:
        steps = np.where(generator.random(rows) < 0.005, 20, 1)
        times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.cumsum(steps), unit="s")
        columns: dict[str, object] = {"timestamp": times, "endpoint": endpoint}
        for metric in METRICS[:3]:
            value = generator.normal(200.0, 10.0, rows)
            value[generator.random(rows) < lost] = np.nan
            columns[metric] = value
        columns["ccm"] = np.where(generator.random(rows) < 0.01, 0.25, 0.0)
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def by_point(detector: SeriesDetector, frame: pd.DataFrame) -> list[float]:
    """The score of each row of `frame`, given one at a time."""
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    values = frame[list(detector.metrics)].to_numpy(np.float64).tolist()
    return [detector.score_point(*row) for row in zip(frame["endpoint"], times, values, strict=True)]


def in_pieces(detector: SeriesDetector, frame: pd.DataFrame, cuts: Sequence[int]) -> list[float]:
    """The scores of the pieces of `frame` between `cuts`, whole and row by row in turn, each by a detector read from JSON."""
    stored, state = json.dumps(detector.to_json(), allow_nan=False), "{}"
    scores: list[float] = []
    for number, places in enumerate(np.split(np.arange(len(frame)), sorted(cuts))):
        fresh = type(detector).from_json(json.loads(stored))
        fresh.restore(json.loads(state))
        piece = frame.iloc[places]
        scores += by_point(fresh, piece) if number % 2 else fresh.score(piece).tolist()
        state = json.dumps(fresh.state(), allow_nan=False)
    return scores
