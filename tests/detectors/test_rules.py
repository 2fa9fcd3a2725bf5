"""The rules: each says what its threshold says, and streaming equals batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detectors.feeding import METRICS, in_pieces, make_links

from ocad.config import load_config
from ocad.errors import ConfigError
from ocad_rule_based.config import RuleConfig, RuleSettings
from ocad_rule_based.detector import RuleDetector

HOUR, DAY = 3_600_000_000, 86_400_000_000


def make_rules(metrics: tuple[str, ...] = METRICS, **rules: Any) -> RuleDetector:
    """Fitted and calibrated on two links."""
    detector = RuleDetector(metrics, RuleSettings.model_validate(rules))
    detector.fit(make_links(1_000))
    detector.calibrate(make_links(1_000, seed=2))
    return detector


def alone(values: list[float], **rules: Any) -> list[float]:
    """Raw scores of seconds of one metric around 100, of which 1 is a robust deviation and a usual difference."""
    detector = RuleDetector(["udp_echo"], RuleSettings.model_validate(rules))
    usual = 100 + np.tile([-2.0, -1.0, 0.0, 1.0, 2.0], 60) / 1.4826
    detector.fit(seconds(usual.tolist()))
    assert detector.everywhere is not None
    assert detector.everywhere.sigma[0, 0] == pytest.approx(1.0)
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


def test_a_level_counts_in_robust_deviations() -> None:
    raw = alone([100.0, 106.0, 112.0], jump={"sigmas": 1e9})
    assert raw == pytest.approx([0.0, 1.0, 2.0])


def test_a_jump_counts_from_the_last_measured_value_and_not_over_a_gap() -> None:
    quiet = {"level": {"sigmas": 1e9}, "loss": {"share": 1.0, "window": 1000}}
    detector = RuleDetector(["udp_echo"], RuleSettings.model_validate(quiet))
    detector.fit(seconds(np.tile([100.0, 101.0], 50).tolist()))
    frame = seconds([100.0, 110.0, np.nan, 90.0, 90.0])
    usual = 1.4826 * 8
    assert detector.raw(frame)[[1, 3, 4]] == pytest.approx([10 / usual, 20 / usual, 0.0], abs=2e-3)
    detector.forget()
    frame.loc[3:, "timestamp"] += pd.Timedelta(seconds=10)
    assert detector.raw(frame)[3] == pytest.approx(0.0, abs=1e-6)


def test_losses_count_as_their_share_of_the_window_until_a_gap() -> None:
    rules = {"level": {"sigmas": 1e9}, "jump": {"sigmas": 1e9}, "loss": {"window": 4, "share": 0.5}}
    raw = alone([100.0, np.nan, np.nan, np.nan, 100.0, 100.0, 100.0, 100.0], **rules)
    assert raw == pytest.approx([0.0, 0.5, 1.0, 1.5, 1.5, 1.0, 0.5, 0.0], abs=1e-6)


def test_missed_continuity_checks_count_as_a_share_and_not_against_a_median() -> None:
    detector = make_rules(missed={"ccm": 0.5}, level={"sigmas": 1e9}, jump={"sigmas": 1e9})
    frame = make_links(4, ("a",), lost=0.0)
    frame["ccm"] = [0.0, 0.25, 0.5, 1.0]
    assert detector.raw(frame) == pytest.approx([0.0, 0.5, 1.0, 2.0], abs=1e-6)


def test_a_limit_holds_whatever_is_usual() -> None:
    raw = alone([100.0, 101.0, 100.5, 99.0], limits={"udp_echo": {"high": 100.9, "low": 99.5}}, jump={"sigmas": 1e9})
    assert [score > 1 for score in raw] == [False, True, False, True]


def by_the_hour(days: int) -> pd.DataFrame:
    """A value a minute: 100 with a deviation of 1, but 200 from 12 to 13 o'clock."""
    times = pd.date_range("2026-01-01", periods=days * 1440, freq="min", tz="UTC")
    value = 100 + np.random.default_rng(1).normal(0, 1, len(times)) + 100 * (times.hour == 12)
    return pd.DataFrame({"timestamp": times, "endpoint": "a", "udp_echo": value})


def test_an_hour_has_its_own_median_once_it_has_rows_of_enough_days() -> None:
    noon = (
        by_the_hour(1).iloc[[12 * 60 + 30]].assign(timestamp=pd.Timestamp("2026-02-01 12:30", tz="UTC"), udp_echo=200.0)
    )
    rules = RuleSettings.model_validate({"level": {"hour_rows": 150}})
    for days, usual in ((2, False), (4, True)):
        detector = RuleDetector(["udp_echo"], rules)
        detector.fit(by_the_hour(days))
        assert (detector.raw(noon)[0] < 1) == usual
        again = RuleDetector.from_parameters(["udp_echo"], detector.parameters())
        again.steps = detector.steps
        detector.forget()
        assert again.raw(noon) == pytest.approx(detector.raw(noon))


def test_an_endpoint_with_few_rows_uses_what_all_say() -> None:
    detector = RuleDetector(["udp_echo"], RuleSettings())
    few, many = seconds([500.0] * 20, "few"), seconds([100.0, 101.0] * 200, "many")
    detector.fit(pd.concat([few, many], ignore_index=True))
    assert set(detector.endpoints) == {"many"}


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
