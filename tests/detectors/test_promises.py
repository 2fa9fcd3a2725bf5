"""What every detector promises of its scale: held by properties, over all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detectors.feeding import by_point

from ocad.detection.detector import SeriesDetector
from ocad.detection.ensemble import watched
from ocad.detection.hold import default_hold
from ocad.detection.rule import AlarmRule
from ocad.detection.units import ALARM, SENSITIVITIES
from ocad_changepoint.config import CusumSettings
from ocad_changepoint.detector import ChangepointDetector
from ocad_isolation_forest.detector import IsolationForestDetector
from ocad_residual.detector import ResidualDetector
from ocad_rule_based.config import RuleSettings
from ocad_rule_based.detector import RuleDetector
from ocad_subspace.build import build_detector
from ocad_subspace.config import SubspaceConfig

METRICS = ("udp_echo", "ecpri", "lbm")
MAKERS: dict[str, Callable[[tuple[str, ...]], SeriesDetector]] = {
    "rule_based": lambda metrics: RuleDetector(metrics, RuleSettings()),
    "changepoint": lambda metrics: ChangepointDetector(metrics, CusumSettings()),
    "residual": lambda metrics: ResidualDetector(metrics, {}),
    "isolation_forest": IsolationForestDetector,
    "subspace": lambda metrics: build_detector(SubspaceConfig(), metrics),
}
ROWS, AT = 1_200, 300
every = pytest.mark.parametrize("name", MAKERS)


def quiet(rows: int, seed: int, metrics: tuple[str, ...] = METRICS, lost: float = 0.002) -> pd.DataFrame:
    """A row a minute of two links of unlike size: log-normal delays, and few lost rows."""
    generator = np.random.default_rng(seed)
    parts = []
    for endpoint, base in (("a", 300.0), ("b", 20_000.0)):
        times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="min")
        columns: dict[str, object] = {"timestamp": times, "endpoint": endpoint}
        for metric in metrics:
            value = base * np.exp(generator.normal(0, 0.05, rows))
            value[generator.random(rows) < lost] = np.nan
            columns[metric] = value
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


@cache
def trained(name: str, contaminated: bool = False) -> SeriesDetector:
    detector = MAKERS[name](METRICS)
    fitted, held_out = quiet(3_000, 1), quiet(1_500, 2)
    if contaminated:
        fitted, held_out = (hit(frame, 10) for frame in (fitted, held_out))
    detector.fit(fitted)
    detector.calibrate(held_out)
    return detector


def hit(frame: pd.DataFrame, every_rows: int) -> pd.DataFrame:
    """A tenth of the rows of each link in incidents of thirty rows, all metrics half as large again."""
    place = frame.groupby("endpoint").cumcount()
    inside = (place % (30 * every_rows)) >= 30 * (every_rows - 1)
    return frame.assign(**{metric: frame[metric] * np.where(inside, 1.5, 1.0) for metric in METRICS})


def scores(name: str, frame: pd.DataFrame) -> np.ndarray:
    detector = trained(name)
    detector.forget()
    return detector.score(frame)


@every
def test_normal_rows_are_hardly_ever_alarms(name: str) -> None:
    alarms = default_hold().run(scores(name, quiet(3_000, 3)))
    assert alarms.mean() < 0.003


@every
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(1, 20), small=st.floats(8, 40), factor=st.floats(1.0, 50.0))
def test_more_extreme_is_never_scored_lower(name: str, seed: int, rows: int, small: float, factor: float) -> None:
    frame = quiet(400, seed)
    place = frame.columns.get_loc("ecpri")
    assert isinstance(place, int)
    highest = []
    for size in (small, small * factor):
        changed = frame.copy()
        changed.iloc[AT : AT + rows, place] = 300.0 * np.exp(0.05 * size)
        highest.append(scores(name, changed)[AT : AT + rows].max())
    assert highest[1] >= highest[0] * (1 - 1e-6)


@every
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_dead_link_alarms_within_five_rows_and_for_as_long_as_it_is_dead(name: str, seed: int) -> None:
    frame = quiet(500, seed)
    frame.loc[AT : AT + 99, list(METRICS)] = np.nan
    found = scores(name, frame)
    assert found[AT : AT + 5].max() >= ALARM
    assert found[AT + 5 : AT + 100].min() >= ALARM
    assert found[AT + 99] > found[AT + 50] > found[AT + 10]


@every
def test_a_metric_that_is_lost_alone_alarms_as_well(name: str) -> None:
    frame = quiet(500, 4)
    frame.loc[AT : AT + 9, "lbm"] = np.nan
    assert scores(name, frame)[AT : AT + 5].max() >= ALARM


@every
def test_a_fifth_of_the_rows_lost_alarms_within_thirty_rows(name: str) -> None:
    found = []
    for seed in range(20):
        frame = quiet(400, seed)
        lost = np.random.default_rng(seed).random(60) < 0.2
        frame.loc[AT + np.flatnonzero(lost), list(METRICS)] = np.nan
        found.append(scores(name, frame)[AT : AT + 30].max() >= ALARM)
    assert np.mean(found) >= 0.9


@every
def test_incidents_in_the_training_rows_cost_little_recall(name: str) -> None:
    test = hit(quiet(3_000, 5), 10)
    inside = (test.groupby("endpoint").cumcount() % 300 >= 270).to_numpy()
    starts = np.flatnonzero(inside & ~np.concatenate([[False], inside[:-1]]))
    recall = []
    for contaminated in (False, True):
        detector = trained(name, contaminated)
        detector.forget()
        found = detector.score(test)
        recall.append(np.mean([found[start : start + 30].max() >= ALARM for start in starts]))
    assert recall[1] >= 0.9 * recall[0]
    assert recall[0] > (0.9 if name in ("rule_based", "changepoint") else 0.5)


@every
@pytest.mark.parametrize("column", [0.0, 7.5])
def test_a_constant_column_changes_the_others_little(name: str, column: float) -> None:
    frame = quiet(600, 6)
    frame.loc[AT : AT + 29, "udp_echo"] *= 3.0
    highest = []
    for metrics in (METRICS, (*METRICS, "other")):
        detector = MAKERS[name](metrics)
        detector.fit(quiet(2_000, 1).assign(other=column))
        detector.calibrate(quiet(1_000, 2).assign(other=column))
        highest.append(detector.score(frame.assign(other=column))[AT : AT + 30].max())
    assert highest[1] >= ALARM
    assert highest[1] > 0.6 * highest[0]


@every
def test_a_mostly_zero_column_beside_a_delay_hides_nothing(name: str) -> None:
    generator = np.random.default_rng(7)
    detector = MAKERS[name](("udp_echo", "errors"))

    def errors(rows: int) -> np.ndarray:
        return np.where(generator.random(rows) < 0.02, generator.exponential(5.0, rows), 0.0)

    detector.fit(quiet(2_000, 1).assign(errors=errors(4_000)))
    detector.calibrate(quiet(1_000, 2).assign(errors=errors(2_000)))
    frame = quiet(600, 8).assign(errors=errors(1_200))
    frame.loc[AT : AT + 29, "udp_echo"] *= 10.0
    assert detector.score(frame)[AT : AT + 30].max() >= ALARM


@every
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 999), size=st.floats(3, 30), low=st.floats(0.3, 1.0))
def test_a_lower_level_never_loses_an_incident(name: str, seed: int, size: float, low: float) -> None:
    frame = quiet(500, seed)
    frame.loc[AT : AT + 14, list(METRICS)] *= np.exp(0.05 * size)
    found = []
    for level in (ALARM, ALARM * low):
        detector = trained(name)
        detector.forget()
        found.append(watched(name, detector, {}, AlarmRule.plain().at(level)).detect(frame))
    assert (found[1].alarms | ~found[0].alarms).all()
    for incident in found[0].incidents:
        assert any(
            one.endpoint == incident.endpoint
            and one.start_us <= incident.start_us
            and (one.end_us is None or (incident.end_us is not None and one.end_us >= incident.end_us))
            for one in found[1].incidents
        )


@every
def test_short_histories_work(name: str) -> None:
    detector = MAKERS[name](METRICS)
    detector.fit(quiet(50, 1, lost=0.0))
    detector.calibrate(quiet(50, 2, lost=0.0))
    frame = quiet(200, 3, lost=0.0)
    frame.loc[100:109, list(METRICS)] = np.nan
    assert detector.score(frame)[100:107].max() >= ALARM


@every
def test_rows_at_a_third_of_the_rate_are_told_and_still_alarm(name: str) -> None:
    """A sampling step that is longer than the fitted one is no gap before every row."""
    frame = quiet(400, 9)
    number = frame.groupby("endpoint").cumcount()
    frame["timestamp"] = frame["timestamp"].iloc[0] + pd.to_timedelta(number * 3.1, unit="min")
    frame.loc[AT : AT + 19, list(METRICS)] *= 3.0
    found = scores(name, frame)
    assert found[AT : AT + 20].max() >= ALARM
    detector = trained(name)
    detector.forget()
    if name != "isolation_forest":
        assert by_point(detector, frame[:400]) == pytest.approx(found[:400], rel=1e-9, abs=1e-9)


def test_sensitivities_are_in_order() -> None:
    assert SENSITIVITIES["low"] > SENSITIVITIES["normal"] == ALARM > SENSITIVITIES["high"]
