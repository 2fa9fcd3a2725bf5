"""A causal dilated residual TCN (Bai, Kolter & Koltun 2018) that computes only what its last output depends on.

With dilations 1, 2, 4, … the last output looks at every value of the window, but the layers in between are needed only
at positions spaced like the next dilation. So a convolution of dilation d over all positions is a dense convolution over
the positions kept so far, and thinning them by two after each block is a stride of two: for a window of ten, 10 → 5 → 5 →
3 → 3 → 1 positions instead of 10 in each layer. The numbers are those of the full network, term by term.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

MANY_ROWS = 64
"""From this batch on, a matrix product per position beats a convolution, in evaluation too."""


NARROW = 8
"""Up to this many inputs of a position (taps times channels), one gathered product is faster than one per position."""


class CausalConvolution(nn.Linear):
    """A causal convolution followed by ReLU that keeps every `stride`-th position, counted back from the last.

    `weight` is `(out, kernel * in)`, oldest tap first.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(kernel * inputs, outputs)
        self.kernel = kernel
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.bias)

    def forward(self, sequence: Tensor, stride: int = 1) -> Tensor:
        """`(batch, in, positions)` to `(batch, out, ceil(positions / stride))`: for few rows, and what is exported."""
        # from the first kept position on, a stride from the left keeps the same positions as one from the right
        padded = functional.pad(sequence, (self.kernel - 1 - first_kept(sequence.shape[2], stride), 0))
        weight = self.weight.view(self.out_features, self.kernel, -1).transpose(1, 2)
        return functional.relu(functional.conv1d(padded, weight, self.bias, stride))

    def forward_rows(self, sequence: Tensor, stride: int = 1) -> Tensor:
        """The same for `(batch, positions, in)`, made for many rows and the gradient."""
        if self.in_features > NARROW:
            return cast("Tensor", _FusedConvolution.apply(sequence, self.weight, self.bias, self.kernel, stride))
        # too little work in a position for a product of its own: gather the few taps of all of them
        padded = functional.pad(sequence, (0, 0, self.kernel - 1 - first_kept(sequence.shape[1], stride), 0))
        taps = padded.unfold(1, self.kernel, stride).transpose(2, 3).flatten(2)
        return functional.relu(functional.linear(taps, self.weight, self.bias))


def first_kept(positions: int, stride: int) -> int:
    """The first position that a stride counted back from the last one meets."""
    return (positions - 1) % stride


class _FusedConvolution(torch.autograd.Function):
    """The convolution by one matrix product per position, straight on the rows of memory: nothing is gathered or padded.

    The taps of a position are neighbours in `(batch, positions * in)`, so each is a matrix with a row stride, and
    gradients accumulate in place. Three times as fast as slicing, concatenating and their gradients.
    """

    @staticmethod
    def forward(ctx: Any, sequence: Tensor, weight: Tensor, bias: Tensor, kernel: int, stride: int) -> Tensor:
        batch, positions, width = sequence.shape
        rows, channels = sequence.reshape(batch, -1), len(bias)
        count = -(-positions // stride)
        output = sequence.new_empty(batch, count * channels)
        for taps, place in _places(positions, width, channels, kernel, stride):
            torch.addmm(bias, rows[:, taps], weight[:, taps.start - taps.stop :].t(), out=output[:, place])
        output.relu_()
        ctx.save_for_backward(rows, weight, output)
        ctx.sizes = (positions, width, channels, kernel, stride)
        return output.view(batch, count, channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        rows, weight, output = ctx.saved_tensors
        positions, width, channels, kernel, stride = ctx.sizes
        gradient = torch.ops.aten.threshold_backward(gradients[0].reshape(output.shape), output, 0)
        to_rows = torch.zeros_like(rows) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight)
        for taps, place in _places(positions, width, channels, kernel, stride):
            part, span = gradient[:, place], slice(taps.start - taps.stop, None)
            to_weight[:, span].addmm_(part.t(), rows[:, taps])
            if to_rows is not None:
                to_rows[:, taps].addmm_(part, weight[:, span])
        to_bias = gradient.view(-1, channels).sum(0)
        to_sequence = None if to_rows is None else to_rows.view(-1, positions, width)
        return to_sequence, to_weight, to_bias, None, None


@lru_cache(maxsize=256)
def _places(positions: int, width: int, channels: int, kernel: int, stride: int) -> list[tuple[slice, slice]]:
    """For each kept position: the columns of its taps (fewer at the left border) and those of its output."""
    places = []
    for index, last in enumerate(range(first_kept(positions, stride), positions, stride)):
        taps = slice(max(0, last - kernel + 1) * width, (last + 1) * width)
        places.append((taps, slice(index * channels, (index + 1) * channels)))
    return places


class ResidualBlock(nn.Module):
    """Two causal convolutions with ReLU and dropout, and a skip connection (1 × 1 where the widths differ)."""

    def __init__(self, inputs: int, channels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.first = CausalConvolution(inputs, channels, kernel)
        self.second = CausalConvolution(channels, channels, kernel)
        self.match = nn.Linear(inputs, channels) if inputs != channels else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequence: Tensor, stride: int) -> Tensor:
        """Every `stride`-th position of the block's output, counted back from the last; `(batch, channels, positions)`."""
        hidden = self.dropout(self.second(self.dropout(self.first(sequence)), stride))
        kept = sequence[:, :, first_kept(sequence.shape[2], stride) :: stride]
        if isinstance(self.match, nn.Linear):
            kept = functional.conv1d(kept, self.match.weight.unsqueeze(2), self.match.bias)
        return functional.relu(hidden + kept)

    def forward_rows(self, sequence: Tensor, stride: int) -> Tensor:
        """The same for `(batch, positions, channels)`."""
        hidden = self.dropout(self.first.forward_rows(sequence))
        hidden = self.dropout(self.second.forward_rows(hidden, stride))
        return functional.relu(hidden + self.match(sequence[:, first_kept(sequence.shape[1], stride) :: stride]))


class TemporalNetwork(nn.Module):
    """A stack of residual blocks of dilations 1, 2, 4, …; `(batch, inputs, positions)` to `(batch, channels)`."""

    def __init__(self, inputs: int, channels: tuple[int, ...], kernel: int, dropout: float) -> None:
        super().__init__()
        widths = (inputs, *channels)
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, kernel, dropout) for before, after in zip(widths, channels, strict=False)
        )

    def forward(self, sequence: Tensor) -> Tensor:
        """The features at the last position."""
        *blocks, last = cast("list[ResidualBlock]", list(self.blocks))
        if self._many_rows(sequence):
            sequence = sequence.transpose(1, 2)
            for block in blocks:
                sequence = block.forward_rows(sequence, 2)
            return last.forward_rows(sequence, sequence.shape[1]).squeeze(1)
        for block in blocks:
            sequence = block(sequence, 2)
        return cast("Tensor", last(sequence, sequence.shape[2])).squeeze(2)

    def _many_rows(self, sequence: Tensor) -> bool:
        """Whether one product per position is the faster way; it is neither exported nor run in bfloat16."""
        if torch.compiler.is_exporting() or torch.is_autocast_enabled("cpu"):
            return False
        return self.training or len(sequence) >= MANY_ROWS
