"""Data as named tensors that fit memory: no DataLoader, no worker processes, no copy per row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

Batch = Mapping[str, Tensor]
"""Tensors by name; the first axis of each is the rows."""

BLOCK = 64
"""Batches gathered at once: one large gather is cheaper than many small ones, and memory stays bounded."""


def count_rows(data: Batch) -> int:
    """The rows of `data`. Raises `ValueError` when its tensors differ in them."""
    lengths = {name: len(tensor) for name, tensor in data.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"tensors of unequal length: {lengths}")
    return next(iter(lengths.values()))


def shuffled(data: Batch, size: int, order: Tensor, first: int = 0) -> Iterator[Batch]:
    """Batches of `size` rows in the `order` of row indices, from batch number `first` on; the last may be shorter."""
    for start in range(first * size, len(order), BLOCK * size):
        block = {name: tensor.index_select(0, order[start : start + BLOCK * size]) for name, tensor in data.items()}
        yield from in_order(block, size)


def in_order(data: Batch, size: int) -> Iterator[Batch]:
    """Batches of `size` rows as they stand (views, no copy); the last may be shorter."""
    for start in range(0, count_rows(data), size):
        yield {name: tensor[start : start + size] for name, tensor in data.items()}


def random_order(rows: int, seed: int, epoch: int) -> Tensor:
    """The shuffling of `epoch`: a function of the seed and the epoch alone, so that a resumed run repeats it."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(rows, generator=generator)
