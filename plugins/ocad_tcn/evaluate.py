"""The measure of a forecaster against the baselines on the same rows: `ocad_evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ocad.contexts import Evaluation
from ocad.timeseries.baselines import fit_baselines
from ocad.timeseries.plots import liveliest, plot_forecast, plot_loss, plot_residuals, residual_band
from ocad.timeseries.significance import bootstrap_skill
from ocad.timeseries.typical import Typical, chosen, fit_typical
from ocad.timeseries.windows import Windows, read_windows
from ocad_tcn.predictor import predict_windows
from ocad_tcn.prepare import BASELINES, metric_of

if TYPE_CHECKING:
    from pathlib import Path

    from ocad.contexts import PreparedData, RunContext, Trained

VALIDATION_LIMIT = 0.1
SHOWN_ROWS = 300
"""Rows of the test part in the plot of forecasts: as many as can be told apart, where the series moves most."""


def evaluate(context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
    """Metrics on the test part (`val_loss` on validation), the training curve, and three plots.

    `mse` and `val_loss` are mean squared errors of the standardised series; `mae_us` is in µs (`mae`, in the metric's
    unit, for other metrics); each stands for the baselines too (`naive_mse`, `ewma_mae_us`, …). `skill_vs_best_baseline`
    is 1 - mse / lowest baseline mse, with its 95 % interval in `…_low` and `…_high`; with `typical_` over typical rows alone,
    as `val_loss` is. A stored version on all rows of other data has the baselines fitted on those rows themselves, which is
    in their favour.
    """
    windows = {part: read_windows(path) for part, path in data.splits.items()}
    test = windows["test"]
    train, validation = windows.get("train", windows.get(BASELINES, test)), windows.get("validation", test)
    typical = fit_typical(train)
    forecast = {"test": predict_windows(trained.predictor, test.sequence)}
    forecast["validation"] = forecast["test"]
    deviation, unit = float(data.statistics["deviation"]), context.data.unit_of(metric_of(context))
    metrics: dict[str, float] = {}
    if "validation" in windows:
        steady = chosen(validation, typical.steady(validation))
        errors = predict_windows(trained.predictor, steady.sequence) - steady.target
        val_loss = float(np.mean((errors / deviation) ** 2))
        metrics = {"val_loss": val_loss, "val_loss_below_0_1": float(val_loss < VALIDATION_LIMIT)}
        forecast["validation"] = predict_windows(trained.predictor, validation.sequence)
    metrics |= compare(train, test, typical, forecast["test"], deviation, unit, context.seed)
    plots = draw(context, trained, test, forecast, validation.target - forecast["validation"])
    return Evaluation(metrics, {"loss": list(trained.history)} if trained.history else {}, plots)


def compare(
    train: Windows,
    test: Windows,
    typical: Typical,
    forecast: NDArray[np.float64],
    deviation: float,
    unit: str,
    seed: int,
) -> dict[str, float]:
    """The metrics on `test` of `forecast` `(n,)` and of every baseline, and the skill over the best of them and the naive."""
    suffix = "mae_us" if unit == "µs" else "mae"
    errors = {"": (forecast - test.target) / deviation}
    for baseline in fit_baselines(chosen(train, typical.within(train))):
        errors[f"{baseline.name}_"] = (baseline.predict(test.sequence) - test.target) / deviation
    metrics: dict[str, float] = {}
    for name, error in errors.items():
        metrics[f"{name}mse"] = float(np.mean(error**2))
        metrics[f"{name}{suffix}"] = float(np.mean(np.abs(error)) * deviation)
    rows = typical.steady(test)
    kept = {name: error[rows] if rows.any() else error for name, error in errors.items()}
    metrics["typical_share"] = float(rows.mean())
    for prefix, measured in (("", errors), ("typical_", kept)):
        squared = {name: error**2 for name, error in measured.items()}
        best = min((name for name in squared if name), key=lambda name: float(squared[name].mean()))
        for name, rival in (("best_baseline", best), ("naive", "naive_")):
            skill = bootstrap_skill(squared[""], squared[rival], seed=seed)
            key = f"{prefix}skill_vs_{name}"
            metrics |= {key: skill.value, f"{key}_low": skill.low, f"{key}_high": skill.high}
    return metrics


def draw(
    context: RunContext,
    trained: Trained,
    test: Windows,
    forecast: Mapping[str, NDArray[np.float64]],
    residuals: NDArray[np.float64],
) -> list[Path]:
    """The plots that the run has material for: a stored version has no training curve."""
    folder, metric = context.run / "plots", metric_of(context)
    unit = context.data.unit_of(metric)
    shown = liveliest(test.target, SHOWN_ROWS)
    time, truth, expected = test.timestamp[shown], test.target[shown], forecast["test"][shown]
    band = residual_band(forecast["validation"], residuals, expected)
    label = f"{metric} ({unit})" if unit else metric
    plots = [
        plot_forecast(folder / "forecast.png", time, truth, expected, band, label),
        plot_residuals(folder / "residuals.png", test.target - forecast["test"], unit),
    ]
    if trained.history:
        plots.append(plot_loss(folder / "loss.png", trained.history))
    return plots
