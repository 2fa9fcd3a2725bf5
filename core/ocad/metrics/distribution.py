"""The distribution of predicted probabilities: a model that predicts the base rate for all, or far from it, shows here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ocad.config import GateSettings
from ocad.metrics.rows import check_labels, check_probabilities

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
LARGEST_MEAN_ERROR = 0.005
LEAST_DEVIATION = 0.05
"""Predictions spread at least this much, or half the base rate where that is less."""


def preds_stats(probability: ArrayLike, label: ArrayLike) -> dict[str, Any]:
    """Rows, base rate, mean, standard deviation and quantiles of `probability` `(n,)`: what `preds_stats.json` holds."""
    positive = check_labels(label)
    values = check_probabilities(probability, positive.size)
    quantiles = np.quantile(values, QUANTILES)
    return {
        "rows": int(values.size),
        "base_rate": float(positive.mean()),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "quantiles": {f"{share:g}": float(value) for share, value in zip(QUANTILES, quantiles, strict=True)},
    }


def distribution_metrics(stats: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that `distribution_gates` judge, from `preds_stats`.

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


def distribution_gates(mean_error: float = LARGEST_MEAN_ERROR, std_ratio: float = 1.0) -> tuple[GateSettings, ...]:
    """The gates of every click-through model; a data set's configuration may write others in their place."""
    return (
        GateSettings(
            name="predicted mean near the base rate", metric="prediction_mean_error", op="<=", threshold=mean_error
        ),
        GateSettings(name="predictions spread", metric="prediction_std_ratio", op=">=", threshold=std_ratio),
    )


def write_preds_stats(path: Path, stats: Mapping[str, Any]) -> Path:
    """Writes `preds_stats.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stats, indent=2) + "\n", encoding="utf-8")
    return path
