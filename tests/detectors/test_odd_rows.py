"""Rows of a stranger's file that no detector may stumble over: links of unlike metrics, of few rows, and absurd values."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from tests.detectors.feeding import by_point
from tests.detectors.test_promises import MAKERS

from ocad.detection.detector import SeriesDetector
from ocad.detection.season import Season
from ocad.detection.units import ALARM

METRICS = ("udp_echo", "load")
every = pytest.mark.parametrize("name", MAKERS)


def links(rows: int, seed: int, measured_every: dict[str, int]) -> pd.DataFrame:
    """A row a minute of each link; `load` is measured in one of so many rows, in none for 0."""
    generator = np.random.default_rng(seed)
    place = np.arange(rows)
    parts = [
        pd.DataFrame(
            {
                "timestamp": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(place, unit="min"),
                "endpoint": endpoint,
                "udp_echo": 300 * np.exp(generator.normal(0, 0.05, rows)),
                "load": np.where(step and place % max(step, 1) == 0, generator.normal(5, 1, rows), np.nan),
            }
        )
        for endpoint, step in measured_every.items()
    ]
    return pd.concat(parts, ignore_index=True)


def learned(name: str, fitted: pd.DataFrame, held_out: pd.DataFrame) -> SeriesDetector:
    detector = MAKERS[name](METRICS)
    detector.fit(fitted)
    detector.calibrate(held_out)
    return detector


@every
@pytest.mark.parametrize("step", [0, 3, 5, 20])
def test_what_a_link_never_or_rarely_measures_is_not_lost(name: str, step: int) -> None:
    kinds = {"a": 1, "b": step}
    detector = learned(name, links(1_500, 1, kinds), links(800, 2, kinds))
    frame = links(600, 3, kinds)
    assert (detector.score(frame) >= ALARM).mean() < 0.02
    dead = frame.copy()
    dead.loc[dead.index[-30:], list(METRICS)] = np.nan
    detector.forget()
    assert detector.score(dead)[-30:-25].max() >= ALARM


@pytest.mark.parametrize("name", ["rule_based", "changepoint", "isolation_forest", "subspace"])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 9, 15])
def test_links_of_few_fitted_rows_take_the_noise_of_all(name: str, rows: int) -> None:
    many = {f"e{number}": 1 for number in range(100)}
    detector = learned(name, links(rows, 1, many), links(5, 2, many))
    frame = links(40, 3, many)
    assert (detector.score(frame) >= ALARM).mean() < 0.02
    hit = frame.copy()
    hit.loc[hit.groupby("endpoint").cumcount() >= 30, "udp_echo"] *= 20
    detector.forget()
    found = pd.Series(detector.score(hit)).groupby(hit["endpoint"]).max()
    if name in ("rule_based", "changepoint") and rows > 1:
        assert (found >= ALARM).mean() > 0.95


@every
def test_absurd_values_leave_all_numbers_finite(name: str) -> None:
    def frame(rows: int, seed: int) -> pd.DataFrame:
        found = links(rows, seed, {"a": 1})
        found["load"] = np.random.default_rng(seed).choice([1.7e308, -1.7e308], rows)
        found.loc[::97, "udp_echo"] = 1e308
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        detector = learned(name, frame(1_500, 1), frame(600, 2))
        test = frame(300, 3)
        scores = detector.score(test)
    assert np.isfinite(scores).all()
    json.dumps([detector.to_json(), detector.state()], allow_nan=False)
    detector.forget()
    assert by_point(detector, test) == pytest.approx(scores, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("night", [(), (2, 3), (2, 3, 4, 23)])
def test_a_link_that_rests_at_night_has_a_rhythm_without_a_warning(night: tuple[int, ...]) -> None:
    minute = np.arange(4 * 1440)
    hour = minute // 60 % 24
    kept = ~np.isin(hour, night)
    values = 10.0 * np.sin(hour / 24 * 2 * np.pi) + np.random.default_rng(1).normal(0, 1, len(minute))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        season = Season.fit(minute[kept] * 60_000_000, values[kept])
    assert season is not None
    assert np.isfinite(season.knots).all()
