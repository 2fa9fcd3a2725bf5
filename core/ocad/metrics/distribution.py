"""The distribution of predicted probabilities: a model that predicts the base rate for all, or far from it, shows here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ocad.config import GateSettings
from ocad.metrics.chance import ece_allowance, mean_allowance
from ocad.metrics.probability import Bins, ece
from ocad.metrics.rows import check_labels, check_probabilities, check_weights

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
LEAST_DEVIATION = 0.05
"""Predictions spread at least this much, or half the base rate where that is less."""


def preds_stats(probability: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> dict[str, Any]:
    """Rows, base rate, mean, standard deviation and quantiles of `probability` `(n,)`: what `preds_stats.json` holds.

    The base rate, the mean and the standard deviation count each row by its `weight`.
    """
    positive = check_labels(label)
    values = check_probabilities(probability, positive.size)
    weights = check_weights(weight, positive.size)
    mean = float(np.average(values, weights=weights))
    quantiles = np.quantile(values, QUANTILES)
    return {
        "rows": int(values.size),
        "base_rate": float(np.average(positive.astype(np.float64), weights=weights)),
        "mean": mean,
        "std": float(np.sqrt(np.average((values - mean) ** 2, weights=weights))),
        "quantiles": {f"{share:g}": float(value) for share, value in zip(QUANTILES, quantiles, strict=True)},
    }


def distribution_metrics(stats: Mapping[str, Any]) -> dict[str, float]:
    """`prediction_mean`, `prediction_std`, `prediction_mean_error` and `prediction_std_ratio`, from `preds_stats`.

    `prediction_mean_error` is |mean - base rate|; `prediction_std_ratio` is the standard deviation divided by
    min(0.05, half the base rate), so that 1 is just enough.
    """
    least = min(LEAST_DEVIATION, stats["base_rate"] / 2)
    return {
        "prediction_mean": stats["mean"],
        "prediction_std": stats["std"],
        "prediction_mean_error": abs(stats["mean"] - stats["base_rate"]),
        # without a click there is nothing to be spread for
        "prediction_std_ratio": stats["std"] / least if least > 0 else 1.0,
    }


def calibration_metrics(
    probability: ArrayLike, label: ArrayLike, calibrated_on: float = math.inf, weight: ArrayLike | None = None
) -> dict[str, float]:
    """`prediction_mean_ratio` and `ece_ratio`: the errors divided by what chance explains in so many rows; 1 is just allowed.

    `ece_ratio` is the larger one of the two kinds of bins. `calibrated_on` counts the rows that the calibrator was fitted on.
    """
    stats = preds_stats(probability, label, weight)
    base_rate, error = stats["base_rate"], abs(stats["mean"] - stats["base_rate"])
    kinds: tuple[Bins, ...] = ("width", "mass")
    return {
        "prediction_mean_ratio": error / mean_allowance(probability, base_rate, calibrated_on, weight),
        "ece_ratio": max(
            ece(label, probability, mass=kind, weight=weight)
            / ece_allowance(probability, base_rate, calibrated_on, kind, weight)
            for kind in kinds
        ),
    }


def distribution_gates() -> tuple[GateSettings, ...]:
    """The gates of every click-through model; a data set's configuration may write others in their place."""
    return (
        GateSettings(name="predicted mean near the base rate", metric="prediction_mean_ratio", op="<=", threshold=1.0),
        GateSettings(name="predictions spread", metric="prediction_std_ratio", op=">=", threshold=1.0),
        GateSettings(
            name="log loss not worse than the base rate's", metric="normalized_entropy", op="<=", threshold=1.0
        ),
        GateSettings(name="calibrated as far as the rows can show", metric="ece_ratio", op="<=", threshold=1.0),
    )


def write_preds_stats(path: Path, stats: Mapping[str, Any]) -> Path:
    """Writes `preds_stats.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stats, indent=2) + "\n", encoding="utf-8")
    return path
