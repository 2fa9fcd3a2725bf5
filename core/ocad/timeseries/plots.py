"""Plots of forecasts, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.dates import ConciseDateFormatter
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ocad.figures import new_figure, write_figure

Floats = NDArray[np.float64]

TRUTH, FORECAST = "0.25", "tab:orange"


def plot_loss(path: Path, history: Sequence[Mapping[str, float]]) -> Path:
    """Training and validation loss by epoch; the best epoch is marked."""
    figure, axes = new_figure("epoch", "mean squared error (standardised)")
    epochs = [row["epoch"] for row in history]
    validation = [row["val_loss"] for row in history]
    axes.plot(epochs, [row["train_loss"] for row in history], color=TRUTH, label="training")
    axes.plot(epochs, validation, color=FORECAST, label="validation")
    best = int(np.argmin(validation))
    axes.plot(epochs[best], validation[best], "o", color=FORECAST, label=f"best: epoch {epochs[best]:.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return write_figure(figure, path)


def residual_band(forecast: Floats, residuals: Floats, asked: Floats, bins: int = 10) -> tuple[Floats, Floats]:
    """The band around the forecasts `asked` `(n,)` that holds 90 % of `residuals` `(m,)` (truth - forecast).

    The spread of a network delay grows with its level, so quantiles are taken among forecasts of similar height.
    """
    edges = np.unique(np.quantile(forecast, np.linspace(0, 1, bins + 1)[1:-1]))
    place, wanted = np.searchsorted(edges, forecast), np.searchsorted(edges, asked)
    quantiles = np.full((len(edges) + 1, 2), np.quantile(residuals, (0.05, 0.95)))
    for index in np.unique(place):
        quantiles[index] = np.quantile(residuals[place == index], (0.05, 0.95))
    return asked + quantiles[wanted, 0], asked + quantiles[wanted, 1]


def liveliest(values: Floats, rows: int) -> slice:
    """The `rows` neighbouring places where `values` `(n,)` move most from step to step, counted by rank.

    Ranks, so that one spike does not decide.
    """
    if len(values) <= rows:
        return slice(0, len(values))
    moves = np.argsort(np.argsort(np.abs(np.diff(values)))).astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(moves)])
    first = int(np.argmax(total[rows - 1 :] - total[: len(total) - rows + 1]))
    return slice(first, first + rows)


def plot_forecast(
    path: Path, time: NDArray[np.datetime64], truth: Floats, forecast: Floats, band: tuple[Floats, Floats], label: str
) -> Path:
    """Forecasts `(n,)` against the truth, with the band of the validation residuals; `label` is that of the values."""
    figure, axes = new_figure("", label, width=10)
    # lines stop where the series does, at a gap
    steps = np.diff(time.astype(np.int64))
    broken = 1 + np.flatnonzero((steps > 3 * np.median(steps)) | (steps < 0))
    pieces = [np.split(column, broken) for column in (time, truth, forecast, *band)]
    for index, (when, actual, expected, low, high) in enumerate(zip(*pieces, strict=True)):
        first = index == 0
        name = "90 % of validation residuals" if first else None
        axes.fill_between(when, low, high, color=FORECAST, alpha=0.2, linewidth=0, label=name)
        axes.plot(when, actual, color=TRUTH, linewidth=1.0, label="measured" if first else None)
        axes.plot(when, expected, color=FORECAST, linewidth=1.2, label="forecast" if first else None)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))  # type: ignore[no-untyped-call]
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return write_figure(figure, path)


def plot_residuals(path: Path, residuals: Floats, unit: str) -> Path:
    """The distribution of `truth - forecast`: a logarithmic count, since the tails are what matters."""
    figure, axes = new_figure(_label("measured - forecast", unit), "rows")
    low, high = np.quantile(residuals, (0.001, 0.999))
    axes.hist(np.clip(residuals, low, high), bins=80, color=FORECAST)
    axes.axvline(0, color=TRUTH, linewidth=1)
    axes.set_yscale("log")
    axes.set_title("the outermost 0.1 % are counted in the first and last bar", fontsize=9, color="0.4")
    return write_figure(figure, path)


def _label(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name
