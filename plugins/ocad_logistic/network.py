"""Logistic regression: the first-order terms alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ocad.clicks.layers import FeatureVectors

if TYPE_CHECKING:
    from ocad.clicks.model import InputShape
    from ocad.clicks.torch_config import TorchClickConfig


class LogisticNetwork(nn.Module):
    """`ids` `(n, fields)` and `numerics` `(n, m)` to log-odds `(n,)`."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.vectors = FeatureVectors(shape, size=0)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor | None, numerics: Tensor | None) -> Tensor:
        """One weight for each value, and one for each number."""
        first, _ = self.vectors(ids, numerics)
        return cast("Tensor", self.bias + first)


def build(shape: InputShape, _config: TorchClickConfig) -> LogisticNetwork:
    """The network for rows of `shape`; all its weights start at zero."""
    return LogisticNetwork(shape)
