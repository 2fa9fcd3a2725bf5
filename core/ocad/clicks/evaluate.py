"""The measure of a click-through model on the test part: `ocad_evaluate`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ocad.calibration.calibrators import sigmoid
from ocad.clicks.predictor import ClickPredictor, predict_clicks
from ocad.contexts import Evaluation
from ocad.metrics.clicks import click_metrics
from ocad.metrics.distribution import calibration_metrics, distribution_metrics, preds_stats, write_preds_stats
from ocad.metrics.plots import plot_clicks
from ocad.tabular.dataset import Clicks, load_clicks

if TYPE_CHECKING:
    from ocad.clicks.config import ClickConfig
    from ocad.clicks.training import TrainedClicks
    from ocad.contexts import PreparedData, RunContext, Trained


def evaluate(context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
    """Metrics of the test part, with `val_` of the validation part and with `raw_` before calibration; all plots.

    Validation is measured with the model that it was held out from; a stored version is measured on the test part alone.
    Writes `preds_stats.json`. Where the true probability is known, `truth_error` is the mean |p - p_true| (`raw_truth_error`
    before calibration).
    """
    metrics: dict[str, float] = {}
    calibrated_on = math.inf
    if trained.model is not None and "validation" in data.splits:
        validation = load_clicks(data.splits["validation"])
        probability, logit = predict_clicks(cast("TrainedClicks", trained.model).held_out, validation)
        metrics |= measure(context, validation, probability, sigmoid(logit), "val_")
        calibrated_on = len(validation)
    elif context.version is not None and context.version.manifest.data is not None:
        calibrated_on = context.version.manifest.data.splits.get("validation", math.inf)
    clicks = load_clicks(data.splits["test"])
    probability, logit = predict_clicks(cast("ClickPredictor", trained.predictor), clicks)
    raw = sigmoid(logit)
    metrics |= measure(context, clicks, probability, raw, "")
    stats = preds_stats(probability, clicks.label, clicks.weight)
    write_preds_stats(context.run / "preds_stats.json", stats)
    metrics |= distribution_metrics(stats)
    metrics |= calibration_metrics(probability, clicks.label, calibrated_on, clicks.weight)
    plots = plot_clicks(context.run / "plots", clicks.label, probability, raw, trained.history)
    return Evaluation(metrics, {"training": list(trained.history)} if trained.history else {}, plots)


def measure(
    context: RunContext, clicks: Clicks, probability: NDArray[np.float64], raw: NDArray[np.float64], prefix: str
) -> dict[str, float]:
    """The metrics of one part under `prefix`."""
    value = cast("ClickConfig", context.config).click_value
    metrics = click_metrics(
        clicks.label,
        probability,
        raw,
        group=clicks.group,
        weight=clicks.weight,
        price=clicks.price,
        value=value,
        prefix=prefix,
    )
    if clicks.truth is not None:
        metrics[f"{prefix}truth_error"] = float(np.abs(probability - clicks.truth).mean())
        metrics[f"{prefix}raw_truth_error"] = float(np.abs(raw - clicks.truth).mean())
    return metrics
