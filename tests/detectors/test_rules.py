"""The rules: each says what its threshold says, and streaming equals batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detectors.feeding import METRICS, in_pieces, make_links

from ocad.config import load_config
from ocad.detection.units import ALARM
from ocad.errors import ConfigError
from ocad_rule_based.config import RuleConfig, RuleSettings
from ocad_rule_based.detector import LIMIT, RuleDetector

HOUR, DAY = 3_600_000_000, 86_400_000_000


def make_rules(metrics: tuple[str, ...] = METRICS, **rules: Any) -> RuleDetector:
    """Fitted and calibrated on two links."""
    detector = RuleDetector(metrics, RuleSettings.model_validate(rules))
    detector.fit(make_links(1_000))
    detector.calibrate(make_links(1_000, seed=2))
    return detector


def alone(values: list[float], **rules: Any) -> list[float]:
    """Raw scores of seconds of one metric around 100, of which 1 is a robust deviation and a usual difference."""
    level = {"log": False, **rules.pop("level", {})}
    detector = RuleDetector(["udp_echo"], RuleSettings.model_validate({"level": level, **rules}))
    usual = 100 + np.tile([-2.0, -1.0, 0.0, 1.0, 2.0], 30) / 1.4826
    detector.fit(seconds(usual.tolist()))
    assert detector.endpoints["a"].sigma == pytest.approx([1.0])
    assert detector.endpoints["a"].level == pytest.approx([100.0])
    return [float(score) for score in detector.raw(seconds(values))]


def seconds(values: list[float], endpoint: str = "a") -> pd.DataFrame:
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(len(values)), unit="s")
    return pd.DataFrame({"timestamp": times, "endpoint": endpoint, "udp_echo": values})


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 600), max_size=6), st.integers(0, 2**16), st.sampled_from([0.0, 0.01, 0.4]), st.booleans()
)
def test_streaming_equals_batch(cuts: list[int], seed: int, lost: float, limits: bool) -> None:
    detector = make_rules(limits={"udp_echo": {"low": 180.0, "high": 215.0}} if limits else {})
    frame = make_links(200, ("a", "b", "never seen"), seed, lost)
    assert np.allclose(in_pieces(detector, frame, cuts), detector.score(frame), rtol=1e-9, atol=1e-9)


QUIET = {"sigmas": 1e9, "lasting": 1e9}


def test_a_level_counts_in_robust_deviations() -> None:
    assert alone([100.0, 106.0, 112.0]) == pytest.approx([0.0, 6.0, 12.0])
    assert alone([100.0, 106.0, 112.0], level={"sigmas": 4.0}) == pytest.approx([0.0, 12.0, 24.0])


def test_smaller_deviations_count_where_they_repeat() -> None:
    raw = alone([104.0, 100.0, 104.0, 104.0, 100.0], level={"sigmas": 1e9, "lasting": 4.0, "k": 3, "n": 5})
    assert raw == pytest.approx([0.0, 0.0, 0.0, ALARM, 0.0], abs=1e-6)


def test_a_jump_counts_from_the_last_measured_value_and_not_over_a_gap() -> None:
    values = [100.0, 110.0, float("nan"), 90.0, 90.0]
    usual = np.median(np.abs(np.diff(np.tile([-2.0, -1.0, 0.0, 1.0, 2.0], 30) / 1.4826))) * 1.4826 * 8
    rules = {"level": QUIET, "loss": {"share": 1.0, "window": 1000}, "jump": {"sigmas": 8.0}}
    raw = alone(values, **rules)
    assert [raw[1], raw[3], raw[4]] == pytest.approx([ALARM * 10 / usual, ALARM * 20 / usual, 0.008], rel=1e-3)
    settings = RuleSettings.model_validate({**rules, "level": {"log": False, **QUIET}})
    detector = RuleDetector(["udp_echo"], settings)
    detector.fit(seconds((100 + np.tile([-1.0, 0.0, 1.0], 60)).tolist()))
    frame = seconds(values)
    frame.loc[3:, "timestamp"] += pd.Timedelta(seconds=10)
    assert detector.raw(frame)[3] < 0.1


def test_losses_count_as_their_share_of_the_window_until_a_gap() -> None:
    nan = float("nan")
    raw = alone([100.0, nan, nan, nan, 100.0, 100.0, 100.0, 100.0], level=QUIET, loss={"window": 4, "share": 0.5})
    assert raw == pytest.approx([0.0, 4.0, 8.0, 12.0, 12.0, 8.0, 4.0, 0.0], abs=1e-6)


def test_missed_continuity_checks_count_as_a_share_and_not_against_a_median() -> None:
    detector = make_rules(missed={"ccm": 0.5}, level=QUIET)
    frame = make_links(4, ("a",), lost=0.0)
    frame["ccm"] = [0.0, 0.25, 0.5, 1.0]
    assert detector.raw(frame) == pytest.approx([0.0, 4.0, 8.0, 16.0], abs=1e-6)


@pytest.mark.parametrize("log", [False, True])
def test_a_limit_holds_at_once_whatever_is_usual(log: bool) -> None:
    raw = alone([100.0, 101.0, 100.5, 99.0], limits={"udp_echo": {"high": 100.9, "low": 99.5}})
    assert [score >= LIMIT for score in raw] == [False, True, False, True]
    detector = RuleDetector(
        ["udp_echo"], RuleSettings.model_validate({"limits": {"udp_echo": {"high": 1_000.0}}, "level": {"log": log}})
    )
    detector.fit(seconds((900 + np.tile([-300.0, 0.0, 300.0], 60)).tolist()))
    assert [bool(score >= LIMIT) for score in detector.raw(seconds([999.0, 1_001.0, 1_000.0]))] == [False, True, True]


def by_the_hour(days: int) -> pd.DataFrame:
    """A value a minute: 100 with a deviation of 1, but 200 from 12 to 13 o'clock."""
    times = pd.date_range("2026-01-01", periods=days * 1440, freq="min", tz="UTC")
    value = 100 + np.random.default_rng(1).normal(0, 1, len(times)) + 100 * (times.hour == 12)
    return pd.DataFrame({"timestamp": times, "endpoint": "a", "udp_echo": value})


def test_the_rhythm_of_the_day_is_taken_off_once_days_foretell_each_other() -> None:
    noon = (
        by_the_hour(1)
        .iloc[12 * 60 - 30 : 12 * 60 + 30]
        .assign(timestamp=pd.date_range("2026-02-01 11:30", periods=60, freq="min", tz="UTC"))
    )
    for days, usual in ((1, False), (4, True)):
        detector = RuleDetector(["udp_echo"], RuleSettings())
        detector.fit(by_the_hour(days))
        assert (detector.endpoints["a"].season[0] is not None) == usual
        again = RuleDetector.from_json(json.loads(json.dumps(detector.to_json())))
        assert again.raw(noon) == pytest.approx(detector.raw(noon))


def test_an_endpoint_never_seen_uses_what_all_say() -> None:
    detector = RuleDetector(["udp_echo"], RuleSettings())
    few, many = seconds([500.0, 501.0] * 10, "few"), seconds([100.0, 101.0] * 200, "many")
    detector.fit(pd.concat([few, many], ignore_index=True))
    assert set(detector.endpoints) == {"few", "many"}
    raw = detector.raw(seconds([5_000.0] * 40, "new"))
    assert raw.max() < ALARM


def test_a_constant_metric_and_one_without_values_are_scored() -> None:
    frame = make_links(300).assign(ecpri=5.0, lbm=np.nan)
    detector = RuleDetector(METRICS, RuleSettings())
    detector.fit(frame)
    detector.calibrate(frame.iloc[:300])
    assert np.isfinite(detector.score(make_links(100, ("a", "b")))).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rules.missed={ccm: 0}", "must be above 0"),
        ("rules.limits={udp_echo: {low: 5, high: 5}}", "`low` must be below `high`"),
        ("rules.levle={}", "did you mean `level`"),
        ("split.train=0.9", "their sum must be below 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(RuleConfig, None, [override])
