"""Scalings, baselines and skill against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocad.timeseries.baselines import autoregression, exponential_average, fit_baselines, naive_last
from ocad.timeseries.plots import liveliest, plot_forecast, plot_loss, plot_residuals, residual_band
from ocad.timeseries.scaling import fit_scaling
from ocad.timeseries.significance import bootstrap_skill
from ocad.timeseries.windows import Windows, make_windows


def windows_of(value: NDArray[np.float64], length: int = 10) -> Windows:
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(len(value)), unit="s")
    return make_windows(pd.DataFrame({"timestamp": time, "endpoint": "", "value": value}), "value", length)


def autoregressive(rows: int, first: float, second: float, level: float) -> NDArray[np.float64]:
    noise = np.random.default_rng(5).normal(size=rows)
    value = np.zeros(rows)
    for index in range(2, rows):
        value[index] = first * value[index - 1] + second * value[index - 2] + noise[index]
    return value + level


def test_scalings_are_their_closed_forms() -> None:
    values = np.random.default_rng(1).normal(50, 4, 100_000)
    standard, robust, log = (fit_scaling(kind, values) for kind in ("standard", "robust", "log"))
    assert standard.apply(values).std() == pytest.approx(1)
    assert (robust.center, robust.scale) == pytest.approx((50, 4), rel=0.02)
    ends = log.center + log.scale * np.array([-6.0, 0.0, 1.0, 1e6])
    assert log.apply(ends) == pytest.approx([-np.log(7), 0, np.log(2), np.log(1e6 + 1)])
    assert (robust.center, robust.scale) == (log.center, log.scale)


def test_a_quartile_range_of_zero_falls_back_to_the_deviation() -> None:
    values = np.array([5.0] * 99 + [25.0])
    assert fit_scaling("robust", values).scale == pytest.approx(values.std())


def test_naive_repeats_the_newest_value() -> None:
    windows = windows_of(autoregressive(200, 0.5, 0.0, 9.0))
    assert np.array_equal(naive_last(windows).predict(windows.sequence), windows.sequence[:, -1])


def test_autoregression_finds_the_process() -> None:
    windows = windows_of(autoregressive(60_000, 0.6, -0.3, 1_000.0))
    fitted = autoregression(windows)
    assert fitted.name == "ar10"
    assert fitted.weights[-2:] == pytest.approx([-0.3, 0.6], abs=0.02)
    assert fitted.weights[:-2] == pytest.approx(np.zeros(8), abs=0.02)
    residual = fitted.predict(windows.sequence) - windows.target
    assert residual.mean() == pytest.approx(0, abs=1e-6)
    assert residual @ (windows.sequence - 1_000) == pytest.approx(np.zeros(10), abs=1e-3)


def test_exponential_average_weighs_by_age_and_finds_its_alpha() -> None:
    generator = np.random.default_rng(2)
    sequence = generator.normal(size=(4_000, 10))
    alpha = float(np.linspace(0.02, 1.0, 50)[14])
    weights = (1 - alpha) ** np.arange(10)[::-1]
    target = sequence @ (weights / weights.sum()) + generator.normal(scale=0.01, size=4_000)
    windows = Windows(sequence, target, np.zeros(4_000, dtype="datetime64[us]"), np.full(4_000, ""))
    assert exponential_average(windows).weights == pytest.approx(weights / weights.sum())


def test_every_baseline_follows_a_change_of_unit() -> None:
    value = autoregressive(3_000, 0.7, 0.1, 40.0)
    small, large = windows_of(value), windows_of(value * 1_000)
    for one, other in zip(fit_baselines(small), fit_baselines(large), strict=True):
        assert other.predict(large.sequence) == pytest.approx(one.predict(small.sequence) * 1_000)


@given(st.floats(0.1, 3.0))
def test_skill_of_proportional_errors_is_exact(factor: float) -> None:
    baseline = np.random.default_rng(3).exponential(size=400)
    skill = bootstrap_skill(baseline * factor, baseline, seed=1, resamples=50)
    assert (skill.value, skill.low, skill.high) == pytest.approx((1 - factor,) * 3)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for trial in range(200):
        shared = np.repeat(generator.exponential(size=40), 25)
        errors, baseline = (shared * generator.exponential(size=1_000) * factor for factor in (0.8, 1.0))
        skill = bootstrap_skill(errors, baseline, seed=trial, resamples=300)
        covered += skill.low <= 0.2 <= skill.high
    assert 0.88 <= covered / 200 <= 0.99


def test_skill_is_seeded_and_finite_for_a_perfect_baseline() -> None:
    errors = np.random.default_rng(6).exponential(size=300)
    assert bootstrap_skill(errors, errors[::-1].copy(), seed=3) == bootstrap_skill(errors, errors[::-1].copy(), seed=3)
    worse = bootstrap_skill(errors, np.zeros(300), seed=3)
    assert np.isfinite([worse.value, worse.low, worse.high]).all()
    assert bootstrap_skill(np.zeros(300), np.zeros(300), seed=3).value == 0


def test_the_band_holds_ninety_percent_at_every_level() -> None:
    generator = np.random.default_rng(7)
    forecast = generator.uniform(1, 100, 20_000)
    residuals = generator.normal(size=20_000) * forecast
    low, high = residual_band(forecast, residuals, forecast)
    inside = (low <= forecast + residuals) & (forecast + residuals <= high)
    for part in (forecast < 20, forecast > 80):
        assert inside[part].mean() == pytest.approx(0.9, abs=0.01)
    assert (high - low)[forecast > 80].mean() > 3 * (high - low)[forecast < 20].mean()


def test_the_liveliest_rows_are_where_the_series_moves() -> None:
    value = np.concatenate([np.zeros(500), np.random.default_rng(8).normal(size=100), np.zeros(500)])
    assert abs(liveliest(value, 100).start - 500) <= 1
    assert liveliest(value[:50], 100) == slice(0, 50)


def test_plots_are_images(tmp_path: Path) -> None:
    value = autoregressive(100, 0.5, 0.0, 200.0)
    time = np.arange(100).astype("datetime64[s]").astype("datetime64[us]")
    time[50:] += np.timedelta64(1, "h")
    history = [{"epoch": float(epoch), "train_loss": 1 / epoch, "val_loss": 2 / epoch} for epoch in (1, 2, 3)]
    paths = [
        plot_loss(tmp_path / "plots" / "loss.png", history),
        plot_forecast(tmp_path / "plots" / "forecast.png", time, value, value, (value - 1, value + 1), "rtt (µs)"),
        plot_residuals(tmp_path / "plots" / "residuals.png", value - value.mean(), "µs"),
    ]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
