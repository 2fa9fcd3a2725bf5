"""Optimizers, and what happens to gradients between the backward pass and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ocad.training.options import TrainOptions


def make_optimizer(
    model: nn.Module, options: TrainOptions, groups: Iterable[dict[str, Any]] | None = None
) -> torch.optim.Optimizer:
    """The optimizer of `options` over the parameters of `model` that are trained, or over `groups` of them.

    For `lazy_adam` the embeddings of `model` are switched to sparse gradients. Each group keeps its highest rate as
    `initial_lr`.
    """
    trained: Iterable[Any] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay, "fused": True}
    parameters = [{"params": trained}] if groups is None else groups
    optimizer: torch.optim.Optimizer
    if options.optimizer == "adamw":
        optimizer = torch.optim.AdamW(parameters, **settings)
    elif options.optimizer == "adam":
        optimizer = torch.optim.Adam(parameters, **settings)
    else:
        for embedding in embeddings(model):
            embedding.sparse = True
        optimizer = LazyAdam(parameters, **settings)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def embeddings(model: nn.Module) -> list[nn.Embedding]:
    """The embedding tables in `model`."""
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]


class LazyAdam(torch.optim.Adam):
    """Adam that, for parameters with sparse gradients, touches only the rows in the gradient.

    A row's moments decay when it is seen, not in the steps between: `torch.optim.SparseAdam`, which it equals, and Adam
    itself where every row is in every batch. Rows are merged through a scratch table instead of a sort, and dense
    parameters are stepped by torch's fused Adam in the same optimizer. `weight_decay` is for dense parameters.
    """

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self._merger = RowMerger()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; sparse gradients are used up by it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.merge()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._step_rows(parameter, group)
                    parameter.grad = None
        super().step()
        return loss

    def merge(self) -> None:
        """Makes the rows of every sparse gradient unique."""
        self._merger.merge([parameter for group in self.param_groups for parameter in group["params"]])

    def _step_rows(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        row, gradient = _rows_of(parameter.grad), parameter.grad._values()
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        count = state["step"].item()
        weights, means, squares = parameter.detach(), state["exp_avg"], state["exp_avg_sq"]
        if gradient.shape[1:].numel() == 1:
            # rows of one number are gathered several times faster as a vector
            weights, means, squares, gradient = (table.view(-1) for table in (weights, means, squares, gradient))
        mean = means.index_select(0, row).lerp_(gradient, 1 - beta1)
        square = squares.index_select(0, row).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        means.index_copy_(0, row, mean)
        squares.index_copy_(0, row, square)
        deviation = square.sqrt_().div_((1 - beta2**count) ** 0.5).add_(group["eps"])
        rate = group["lr"] / (1 - beta1**count)
        weights.index_copy_(0, row, weights.index_select(0, row).addcdiv_(mean, deviation, value=-rate))


class RowMerger:
    """Sums the rows of sparse gradients that appear more than once, without a sort.

    Each occurrence writes its number into a scratch table at its row, and reads back whose number stayed: that occurrence
    stands for the row. One table serves every parameter of as many rows, and parameters looked up by the same indices (the
    embeddings and the first-order weights of a factorisation machine) share the work.
    """

    def __init__(self) -> None:
        self._tables: dict[int, Tensor] = {}

    def merge(self, parameters: Iterable[Tensor]) -> None:
        """Replaces each sparse gradient by one whose rows are unique, in no particular order."""
        shared: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None or not gradient.is_sparse or gradient.is_coalesced():
                continue
            row, values = gradient._indices()[0], gradient._values()
            key = (row.data_ptr(), len(row), len(parameter))
            if key not in shared:
                shared[key] = self._unique(row, len(parameter))
            first, standing = shared[key]
            merged = torch.zeros_like(values).index_add_(0, standing, values).index_select(0, first)
            parameter.grad = torch.sparse_coo_tensor(
                row.index_select(0, first).unsqueeze(0),
                merged,
                gradient.shape,
                is_coalesced=True,
                check_invariants=False,
            )

    def _unique(self, row: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """The occurrences that stand for a row each `(u,)`, and for every occurrence the one that stands for it `(n,)`."""
        if rows not in self._tables:
            self._tables[rows] = torch.zeros(rows, dtype=torch.int64)
        table, number = self._tables[rows], torch.arange(len(row))
        standing = table.scatter_(0, row, number).index_select(0, row)
        return torch.nonzero(standing == number).squeeze(1), standing


def gradient_values(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The numbers of each gradient: the tensor itself, or the values of a sparse one with unique rows."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return [gradient._values() if gradient.is_sparse else gradient for gradient in gradients]


@torch.no_grad()
def add_l2(tables: Sequence[nn.Embedding], strength: float) -> None:
    """Adds the gradient `strength` · w of the penalty strength/2 · |w|² to each table; under sparse gradients with unique
    rows, to the rows of the batch alone."""
    for table in tables:
        gradient = table.weight.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            gradient._values().add_(table.weight.index_select(0, _rows_of(gradient)), alpha=strength)
        else:
            gradient.add_(table.weight, alpha=strength)


@torch.no_grad()
def clip_gradients(gradients: list[Tensor], largest: float) -> None:
    """Scales all gradients down so that their joint 2-norm is `largest` at most (Pascanu et al. 2013)."""
    if not gradients:
        return
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    share = torch.clamp(largest / (norm + 1e-6), max=1.0)
    torch._foreach_mul_(gradients, share)


def _rows_of(gradient: Tensor) -> Tensor:
    return gradient._indices()[0]
