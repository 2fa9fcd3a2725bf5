"""Learning-rate schedules as pure functions of the step: nothing to save, so a resumed run cannot drift."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer


def cosine_with_warmup(step: int, total_steps: int, warmup_steps: int) -> float:
    """The share (0 to 1) of the highest learning rate at `step`, counted from 0.

    Rises linearly over `warmup_steps`, then falls along half a cosine and reaches zero just after the last step
    (Loshchilov & Hutter 2017, SGDR, without restarts).
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer: Optimizer, share: float) -> None:
    """Sets each group's rate to `share` of its own highest rate, kept as the group's `initial_lr`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share
