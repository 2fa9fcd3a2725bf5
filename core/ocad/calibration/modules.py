"""Calibrators as torch modules, made of operators that export to ONNX and are exact in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LinearModule(nn.Module):
    """sigmoid(slope · logit + shift)."""

    slope: Tensor
    shift: Tensor

    def __init__(self, slope: float, shift: float) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(slope))
        self.register_buffer("shift", torch.tensor(shift))

    def forward(self, logit: Tensor) -> Tensor:
        """Probabilities in the shape of `logit`."""
        return torch.sigmoid(logit * self.slope + self.shift)


class IsotonicModule(nn.Module):
    """A piecewise linear map of the log-odds, flat beyond its ends, as a sum of clipped ramps: no search and no gather,
    whatever the batch."""

    starts: Tensor
    widths: Tensor
    slopes: Tensor
    value: Tensor

    def __init__(self, knots: Sequence[float], values: Sequence[float]) -> None:
        super().__init__()
        knot, value = torch.tensor(knots, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
        widths = knot.diff()
        buffers = {
            "starts": knot[:-1],
            "widths": widths,
            "slopes": value.diff() / widths,
            "value": value[0],
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor.float())

    def forward(self, logit: Tensor) -> Tensor:
        """Probabilities in the shape of `logit`."""
        ramps = torch.minimum(torch.relu(logit.unsqueeze(-1) - self.starts), self.widths)
        return torch.sigmoid(self.value + (ramps * self.slopes).sum(dim=-1))
