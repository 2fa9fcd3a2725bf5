"""Which rows an epoch trains on, and in which order: a function of seed and epoch, so that a resumed run repeats it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ocad.training.batches import random_order


class EpochRows(Protocol):
    """The rows of each epoch; `count` of them, always the same number, since schedules count steps."""

    @property
    def count(self) -> int:
        """Rows in an epoch."""
        ...

    def order(self, seed: int, epoch: int) -> Tensor:
        """The row numbers of `epoch`, shuffled: `(count,)` int64."""
        ...


@dataclass(frozen=True, slots=True)
class AllRows:
    """Every row, once."""

    count: int

    def order(self, seed: int, epoch: int) -> Tensor:
        """See `EpochRows`."""
        return random_order(self.count, seed, epoch)


class NegativeSampling:
    """Every positive row, and `kept` negatives drawn anew for each epoch: a share `rate` of them, one at least."""

    def __init__(self, label: Tensor, rate: float) -> None:
        flat = label.reshape(-1) > 0.5
        self.positives, self.negatives = (torch.nonzero(rows).squeeze(1) for rows in (flat, ~flat))
        self.kept = max(1, round(rate * len(self.negatives)))
        self.rate = self.kept / len(self.negatives)

    @property
    def count(self) -> int:
        """See `EpochRows`."""
        return len(self.positives) + self.kept

    def order(self, seed: int, epoch: int) -> Tensor:
        """See `EpochRows`."""
        drawn = self.negatives[random_order(len(self.negatives), seed, epoch)[: self.kept]]
        rows = torch.cat([self.positives, drawn])
        return rows[random_order(len(rows), seed + 1, epoch)]
