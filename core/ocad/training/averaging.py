"""Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights at the ends of the last epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ocad.training.batches import Batch


class WeightAverage:
    """A running mean of the parameters of a model."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Takes the parameters as they are into the mean."""
        self.count += 1
        for name, parameter in model.named_parameters():
            if self.count == 1:
                self.mean[name] = parameter.detach().clone()
            else:
                self.mean[name].lerp_(parameter, 1 / self.count)

    @torch.no_grad()
    def into(self, model: nn.Module) -> None:
        """Sets the parameters of `model` to the mean; its buffers stay."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.mean[name])

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self.count, "mean": self.mean}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.count, self.mean = state["count"], dict(state["mean"])


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a layer of `model` normalises over the batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@torch.no_grad()
def refresh_batch_norm(model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], batches: Iterable[Batch]) -> None:
    """Measures the running statistics of batch normalisation again, over `batches`: new weights have others."""
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        # no momentum: the plain mean over all batches
        layer.momentum = None
    model.train()
    for batch in batches:
        loss(model, batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
