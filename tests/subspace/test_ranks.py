"""Conformal ranks: uniform on exchangeable rows, exact in small cases, of bounded memory."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from ocad_subspace.config import RankSettings
from ocad_subspace.ranks import FEATURES, SEED_ROWS, USUAL, RankDetector


def make_frame(values: list[float] | np.ndarray, first: int = 0) -> pd.DataFrame:
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(len(values)) + first, unit="s")
    return pd.DataFrame({"timestamp": times, "endpoint": "a", "value": np.asarray(values, np.float64)})


def fitted(values: np.ndarray, smoothing: int = 1, memory: int = 10_000) -> RankDetector:
    detector = RankDetector(["value"], RankSettings(smoothing=smoothing, memory=memory))
    detector.fit(make_frame(values))
    return detector


def test_a_record_has_the_rank_of_a_record_in_level_and_change() -> None:
    detector = fitted(np.random.default_rng(1).random(100))
    raw = detector.raw(make_frame([0.5, 9.0], first=100))
    # the highest of 102 levels, in two directions, and the largest of 102 changes, in one
    assert raw[1] == pytest.approx(-math.log(2 / 102) - math.log(1 / 102) - USUAL)


def test_what_goes_on_becomes_normal() -> None:
    detector = fitted(np.random.default_rng(1).random(200), memory=300)
    raw = detector.raw(make_frame(np.random.default_rng(2).random(600) + 5.0, first=200))
    assert raw[0] == pytest.approx(-math.log(2 / 201) - USUAL)
    assert np.median(raw[:10]) > 1.5
    assert np.median(raw[300:]) < 0.3


def test_surprise_of_exchangeable_rows_is_that_of_uniform_p_values(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    detector = fitted(generator.normal(size=500))
    monkeypatch.setattr(detector, "_units", float)  # nats as they are
    raw = detector.raw(make_frame(generator.normal(size=4_000), first=500))
    # the sum of two -ln p: a gamma distribution of shape 2; level and change are not quite independent
    assert raw[10:].mean() == pytest.approx(USUAL, rel=0.1)


def test_several_metrics_count_as_one_that_is_as_improbable() -> None:
    """Of exchangeable rows as many are above a level, however many metrics there are."""
    generator = np.random.default_rng(6)
    shares = []
    for metrics in (["value"], ["value", "b", "c", "d"]):
        columns = {name: generator.normal(size=6_000) for name in metrics}
        frame = make_frame(columns["value"]).assign(**columns)
        detector = RankDetector(metrics, RankSettings(smoothing=1))
        detector.fit(frame[:500])
        raw = detector.raw(frame[500:])
        shares.append([float((raw[500:] > level).mean()) for level in (0.5, 2.0)])
    assert shares[1] == pytest.approx(shares[0], rel=0.25)


def test_the_state_never_outgrows_the_memory() -> None:
    detector = fitted(np.random.default_rng(1).random(3_000), memory=100)
    assert len(detector.seeds["a"]) == SEED_ROWS
    detector.raw(make_frame(np.random.default_rng(2).random(500), first=3_000))
    track = detector.state()["tracks"]["a"]
    assert [len(column) for column in track["recent"]] == [100] * FEATURES
    assert [sorted(column) for column in track["recent"]] == track["ordered"]


def test_losses_surprise_where_there_were_none() -> None:
    detector = fitted(np.random.default_rng(1).random(100), smoothing=10)
    raw = detector.raw(make_frame([0.5] * 5 + [math.nan] * 5, first=100))
    assert raw[5:].min() > raw[:5].max()
