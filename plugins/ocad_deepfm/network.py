"""DeepFM (Guo et al. 2017): first-order terms, all pairs of vectors, and a deep network, over the same vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ocad.clicks.layers import FeatureVectors, deep_part, pairwise

if TYPE_CHECKING:
    from ocad.clicks.model import InputShape
    from ocad.clicks.torch_config import TorchClickConfig
    from ocad_deepfm.config import DeepFmConfig, NetworkSettings


class DeepFmNetwork(nn.Module):
    """`ids` `(n, fields)` and `numerics` `(n, m)` to log-odds `(n,)`."""

    def __init__(self, shape: InputShape, settings: NetworkSettings) -> None:
        super().__init__()
        self.vectors = FeatureVectors(shape, settings.embedding, settings.numeric_pieces)
        self.dropout = nn.Dropout(settings.embedding_dropout)
        numbers = len(shape.fills)
        inputs = (len(shape.offsets) + numbers) * settings.embedding + numbers
        self.deep = deep_part(inputs, settings.hidden, dropout=settings.dropout, batch_norm=settings.batch_norm)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor | None, numerics: Tensor | None) -> Tensor:
        """Log-odds; the deep part also sees the numbers themselves."""
        first, vectors = self.vectors(ids, numerics)
        vectors = self.dropout(vectors)
        seen = vectors.flatten(1)
        if numerics is not None:
            seen = torch.cat([seen, self.vectors.present(numerics)], dim=1)
        return cast("Tensor", self.bias + first + pairwise(vectors) + self.deep(seen).squeeze(1))


def build(shape: InputShape, config: TorchClickConfig) -> DeepFmNetwork:
    """The network for rows of `shape`, its weights drawn from torch's generator."""
    return DeepFmNetwork(shape, cast("DeepFmConfig", config).network)
