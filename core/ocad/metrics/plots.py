"""Plots of a click-through model, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocad.figures import new_figure, write_figure
from ocad.metrics.probability import Reliability
from ocad.metrics.ranking import Thresholds
from ocad.metrics.rows import check_labels

PLAIN, MODEL = "0.25", "tab:orange"
CURVE_POINTS = 2000
"""Points of a curve that are drawn: more cannot be told apart, and millions take minutes."""


def plot_clicks(
    folder: Path,
    label: ArrayLike,
    probability: ArrayLike,
    raw_probability: ArrayLike | None = None,
    history: Sequence[Mapping[str, float]] = (),
) -> list[Path]:
    """All plots that there is material for: `roc`, `pr`, `reliability`, `distribution`, and from a history `loss`, `auc`."""
    thresholds = Thresholds.of(label, probability)
    written = [
        plot_roc(folder / "roc.png", thresholds),
        plot_precision_recall(folder / "pr.png", thresholds),
        plot_reliability(folder / "reliability.png", label, probability, raw_probability),
        plot_distribution(folder / "distribution.png", label, probability),
    ]
    for name, title in (("loss", "log loss"), ("auc", "AUC")):
        if any(f"val_{name}" in row for row in history):
            written.append(plot_history(folder / f"{name}.png", history, name, title))
    return written


def plot_roc(path: Path, thresholds: Thresholds) -> Path:
    """The ROC curve, with its area in the legend and the diagonal of a random score."""
    figure, axes = new_figure("false-positive rate", "true-positive rate", width=5, height=5)
    shown = _spread(len(thresholds.score))
    x, y = (np.append(0.0, values[shown]) for values in (thresholds.false_positive_rate, thresholds.recall))
    axes.plot(x, y, color=MODEL, label=f"AUC {thresholds.auc:.4f}")
    axes.plot([0, 1], [0, 1], color=PLAIN, linewidth=0.8, linestyle=":", label="random")
    axes.legend(frameon=False, loc="lower right")
    return write_figure(figure, path)


def plot_precision_recall(path: Path, thresholds: Thresholds) -> Path:
    """The precision-recall curve, with its average precision and the base rate, which a random score has everywhere."""
    figure, axes = new_figure("recall", "precision", width=5, height=5)
    shown = _spread(len(thresholds.score))
    label = f"average precision {thresholds.average_precision:.4f}"
    axes.step(thresholds.recall[shown], thresholds.precision[shown], color=MODEL, where="pre", label=label)
    base = float(thresholds.precision[-1])
    axes.axhline(base, color=PLAIN, linewidth=0.8, linestyle=":", label=f"base rate {base:.4f}")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False)
    return write_figure(figure, path)


def plot_reliability(
    path: Path, label: ArrayLike, probability: ArrayLike, raw_probability: ArrayLike | None = None
) -> Path:
    """Share of clicks against mean prediction in bins of equal mass, after and (where given) before calibration."""
    figure, axes = new_figure("mean predicted probability", "share of clicks", width=5, height=5)
    curves = [("after calibration" if raw_probability is not None else "model", probability, MODEL)]
    if raw_probability is not None:
        curves.insert(0, ("before calibration", raw_probability, "tab:blue"))
    highest = 0.0
    for name, values, color in curves:
        bins = Reliability.of(label, values, mass="mass")
        axes.plot(bins.predicted, bins.observed, "o-", color=color, label=f"{name}: ECE {bins.expected_error:.4f}")
        highest = max(highest, float(bins.predicted.max()), float(bins.observed.max()))
    axes.plot([0, highest], [0, highest], color=PLAIN, linewidth=0.8, linestyle=":", label="exact")
    axes.legend(frameon=False)
    return write_figure(figure, path)


def plot_distribution(path: Path, label: ArrayLike, probability: ArrayLike) -> Path:
    """How probabilities of clicks and of the rest are spread, each as a density."""
    figure, axes = new_figure("predicted probability", "density")
    positive, values = check_labels(label), np.asarray(probability, np.float64).reshape(-1)
    bins = np.linspace(0, max(float(np.quantile(values, 0.999)), 1e-6), 60)
    for rows, name, color in ((~positive, "no click", PLAIN), (positive, "click", MODEL)):
        axes.hist(np.clip(values[rows], 0, bins[-1]), bins=list(bins), density=True, alpha=0.5, color=color, label=name)
    axes.axvline(float(positive.mean()), color=PLAIN, linewidth=0.8, linestyle=":", label="base rate")
    axes.legend(frameon=False)
    return write_figure(figure, path)


def plot_history(path: Path, history: Sequence[Mapping[str, float]], name: str, title: str) -> Path:
    """`train_NAME` and `val_NAME` by epoch, where an epoch has them."""
    figure, axes = new_figure("epoch", title)
    for prefix, label, color in (("train", "training", PLAIN), ("val", "validation", MODEL)):
        points = [(row["epoch"], row[f"{prefix}_{name}"]) for row in history if f"{prefix}_{name}" in row]
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, "o-", markersize=3, color=color, label=label)
    axes.legend(frameon=False)
    return write_figure(figure, path)


def _spread(count: int) -> NDArray[np.int64]:
    """Indexes of at most `CURVE_POINTS` of `count` points, the last included."""
    return np.unique(np.linspace(0, count - 1, CURVE_POINTS).astype(np.int64))
