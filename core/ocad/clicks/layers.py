"""What click-through networks are built from: feature vectors out of one fused table, and a deep part that trains fast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ocad.clicks.model import InputShape
from ocad.training.layers import ReluDropout

REACH = 1.75
"""Pieces divide the range from minus to plus this, in standard deviations: all of a uniform distribution lies within."""
SPREAD = 0.01
"""The standard deviation that vectors start with; first-order weights start at zero."""


class FeatureVectors(nn.Module):
    """`ids` `(n, fields)` and `numerics` `(n, m)` to first-order terms `(n,)` and vectors `(n, fields + m, size)`.

    All categorical fields share one fused table with offsets, whose rows hold the first-order weight before the vector, so
    that one gather fetches both; never EmbeddingBag, which ONNX turns into a loop. A number has a row of its own, scaled by
    its value (Guo et al. 2017), or with several `pieces` one for each piece of a piecewise linear curve (Gorishniy et al.
    2022, *On Embeddings for Numerical Features*). A field whose own `dimension` is smaller uses the first entries of its
    vector.
    """

    fills: Tensor
    mask: Tensor
    starts: Tensor

    def __init__(self, shape: InputShape, size: int, pieces: int = 1) -> None:
        super().__init__()
        self.fields, self.rows = len(shape.offsets), shape.rows
        dimensions = [min(dimension or size, size) for dimension in shape.dimensions] + [size] * len(shape.fills)
        self.narrow = any(dimension < size for dimension in dimensions)
        self.table = nn.Embedding(shape.rows, 1 + size) if self.fields else None
        self.pieces = pieces
        self.numeric = nn.Parameter(torch.empty(len(shape.fills), pieces, 1 + size))
        mask = torch.arange(size) < torch.tensor(dimensions, dtype=torch.int64).unsqueeze(1)
        self.register_buffer("fills", torch.tensor(shape.fills), persistent=False)
        self.register_buffer("starts", torch.linspace(-REACH, REACH, pieces + 1)[:-1], persistent=False)
        self.register_buffer("mask", mask.to(torch.float32), persistent=False)
        for weight in (self.numeric, *([self.table.weight] if self.table else [])):
            nn.init.normal_(weight, std=SPREAD)
            with torch.no_grad():
                weight[..., 0].zero_()

    def forward(self, ids: Tensor | None, numerics: Tensor | None) -> tuple[Tensor, Tensor]:
        """First-order sums and vectors; an id outside the table fails, negative ones too."""
        parts = []
        if ids is not None and self.table is not None:
            parts.append(self.table(ids if self.training else self._checked(ids)))
        if numerics is not None:
            parts.append(self._numbers(self.present(numerics)))
        rows = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        vectors = rows[:, :, 1:]
        return rows[:, :, 0].sum(dim=1), vectors * self.mask if self.narrow else vectors

    def present(self, numerics: Tensor) -> Tensor:
        """`numerics` with what is missing (NaN) at the training mean."""
        return torch.where(torch.isnan(numerics), self.fills, numerics)

    def _numbers(self, numerics: Tensor) -> Tensor:
        """`(n, m, 1 + size)`: how far each number reaches into each piece, times that piece's row; the outer two go on."""
        if self.pieces == 1:
            return numerics.unsqueeze(2) * self.numeric[:, 0]
        reached = numerics.unsqueeze(2) - self.starts
        width = 2 * REACH / self.pieces
        first, inner, last = reached[..., :1], reached[..., 1:-1], reached[..., -1:]
        pieces = torch.cat([first.clamp(max=width), inner.clamp(0.0, width), last.clamp(min=0.0)], dim=2)
        return torch.einsum("nmp,mpk->nmk", pieces, self.numeric)

    def _checked(self, ids: Tensor) -> Tensor:
        """`ids`, negative ones replaced by a row that the table does not have: ONNX would count them from the end."""
        return torch.where(ids < 0, self.rows, ids)


def deep_part(inputs: int, hidden: Sequence[int], *, dropout: float = 0.0, batch_norm: bool = False) -> nn.Sequential:
    """`(n, inputs)` to `(n, 1)`: linear, batch normalisation (Ioffe & Szegedy 2015), ReLU and dropout for each of `hidden`."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(inputs, width, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(ReluDropout(dropout))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 1, bias=False))


def pairwise(vectors: Tensor) -> Tensor:
    """Σ over pairs i < j of ⟨vᵢ, vⱼ⟩ `(n,)` by ½ (|Σ vᵢ|² - Σ |vᵢ|²): linear in the fields (Rendle 2010)."""
    total = vectors.sum(dim=1)
    return 0.5 * (total.square().sum(dim=1) - vectors.square().sum(dim=(1, 2)))
