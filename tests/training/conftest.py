"""A small regression that the tests of the loop train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ocad.training.batches import Batch
from ocad.training.loop import FitResult, Objective, Reporting, fit, mean_loss
from ocad.training.options import TrainOptions

OPTIONS = TrainOptions(epochs=6, batch_size=16, learning_rate=0.02, patience=0, checkpoint_every=2)
SEED = 11


class Network(nn.Module):
    """Two inputs of different shape and dropout: several tensors, and random state that a resume must keep."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.hidden = nn.Linear(7, 8)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 1)

    def forward(self, kind: Tensor, numbers: Tensor) -> Tensor:
        joined = torch.cat([self.embedding(kind), numbers], dim=1)
        output: Tensor = self.head(self.drop(torch.relu(self.hidden(joined))))
        return output


class Regression:
    """The data, network and loss of every test of the loop, and one call that trains them."""

    options = OPTIONS
    seed = SEED

    @staticmethod
    def data(rows: int = 150, seed: int = 3) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        kind = torch.randint(5, (rows,), generator=generator)
        numbers = torch.randn(rows, 3, generator=generator)
        target = numbers.sum(dim=1, keepdim=True) + kind.unsqueeze(1) * 0.5
        return {"kind": kind, "numbers": numbers, "target": target}

    @staticmethod
    def network(seed: int = 5) -> Network:
        torch.manual_seed(seed)
        return Network()

    @staticmethod
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return functional.mse_loss(model(batch["kind"], batch["numbers"]), batch["target"])

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        return mean_loss(self.loss, self.data(40, seed=4))(model)

    def train(
        self,
        folder: Path,
        options: TrainOptions = OPTIONS,
        *,
        resume: bool = False,
        reporting: Reporting | None = None,
    ) -> tuple[Network, FitResult]:
        network, objective = self.network(), Objective(self.loss, self.validate)
        result = fit(network, self.data(), objective, options, folder, seed=SEED, reporting=reporting, resume=resume)
        return network, result


@pytest.fixture
def regression() -> Regression:
    return Regression()
