"""Learning-rate schedules as pure functions of the step and the history: nothing to save, so a resumed run cannot drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ocad.training.options import TrainOptions


def learning_share(options: TrainOptions, step: int, epoch_steps: int, values: Sequence[float]) -> float:
    """The share (0 to 1) of the highest learning rate at `step`, counted from 0, after epochs with validation `values`.

    `epoch_steps` are the steps of an epoch. Every schedule begins with the linear warm-up.
    """
    total, warmup = options.epochs * epoch_steps, round(options.warmup_epochs * epoch_steps)
    if options.schedule == "cosine":
        return cosine_with_warmup(step, total, warmup)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if options.schedule == "warm_restarts":
        return cosine_with_restarts(step - warmup, options.restart_epochs * epoch_steps, options.restart_factor)
    if options.schedule == "plateau":
        return plateau(values, options.plateau_factor, options.plateau_patience, options.min_delta)
    return 1.0


def cosine_with_warmup(step: int, total_steps: int, warmup_steps: int) -> float:
    """The share (0 to 1) of the highest learning rate at `step`, counted from 0.

    Rises linearly over `warmup_steps`, then falls along half a cosine and reaches zero just after the last step
    (Loshchilov & Hutter 2017, SGDR, without restarts).
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def cosine_with_restarts(step: int, period: float, factor: int) -> float:
    """Half a cosine over `period` steps, then again over `factor` times as many, and so on (SGDR, with restarts)."""
    since = float(step)
    while since >= period:
        since -= period
        period *= factor
    return 0.5 * (1.0 + math.cos(math.pi * since / period))


def plateau(values: Sequence[float], factor: float, patience: int, min_delta: float) -> float:
    """`factor` to the power of how often `values` (lower is better) stayed for more than `patience` epochs without improving
    by more than `min_delta`."""
    share, best, waited = 1.0, math.inf, 0
    for value in values:
        if value < best - min_delta:
            best, waited = value, 0
        else:
            waited += 1
        if waited > patience:
            share, waited = share * factor, 0
    return share


def set_learning_rate(optimizer: Optimizer, share: float) -> None:
    """Sets each group's rate to `share` of its own highest rate, kept as the group's `initial_lr`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share
