"""One optimisation step: gradients of a batch, in parts where memory needs it, in bfloat16 where that holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ocad.errors import OcadError
from ocad.training.averaging import has_batch_norm
from ocad.training.batches import Batch, count_rows
from ocad.training.optimizers import LazyAdam, add_l2, clip_gradients, embeddings, gradient_values

if TYPE_CHECKING:
    from ocad.training.options import TrainOptions

Loss = Callable[[nn.Module, Batch], Tensor]
"""`loss(model, batch)`: the mean loss of a batch, a scalar with gradient."""


class Stepper:
    """Steps `model` by `optimizer` down the gradient of `loss`, batch by batch.

    `parts` is what a batch is computed in; it starts at `options.accumulate` and doubles when memory runs out.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, options: TrainOptions) -> None:
        self._optimizer, self._loss, self._options = optimizer, loss, options
        self._network = cast("nn.Module", torch.compile(model)) if options.compile else model
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._tables = embeddings(model) if options.embedding_l2 else []
        self._buffers = list(model.buffers())
        self._bf16 = options.bf16
        # one row has no variance to normalise by
        self._fewest = 2 if has_batch_norm(model) else 1
        self.parts = options.accumulate

    def step(self, batch: Batch) -> float:
        """The mean loss of `batch` before the step.

        Raises `OcadError` when there is no memory for even the smallest part. A loss that is not finite is returned, not raised.
        """
        loss = self._gradients(batch)
        if self._options.clip_norm:
            clip_gradients(gradient_values(self._parameters), self._options.clip_norm)
        try:
            self._optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise OcadError("memory ran out in the optimizer", "lower the size of the embeddings or layers") from None
        return loss

    def _gradients(self, batch: Batch) -> float:
        """Leaves the gradients of `batch` in the parameters; in float32 where those in bfloat16 are not finite."""
        before = _Moment(self._buffers)
        loss = self._attempt(batch, before, self._bf16)
        if self._bf16 and not self._sound(loss):
            before.restore()
            loss = self._attempt(batch, before, bf16=False)
        return loss

    def _attempt(self, batch: Batch, before: _Moment, bf16: bool) -> float:
        """The gradients of `batch`, in ever more parts until they fit memory."""
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            try:
                return self._accumulate(batch, bf16)
            except (RuntimeError, MemoryError) as error:
                if out_of_memory(error):
                    self._split(count_rows(batch))
                elif bf16 and "not implemented for 'BFloat16'" in str(error):
                    self._bf16 = bf16 = False
                elif self._options.compile and isinstance(error, torch._dynamo.exc.TorchDynamoException):
                    reason = str(error).partition("\n")[0]
                    hint = "set `train.compile` to false, or install a C++ compiler"
                    raise OcadError(f"the network cannot be compiled ({reason})", hint) from None
                else:
                    raise
            before.restore()

    def _accumulate(self, batch: Batch, bf16: bool) -> float:
        rows, total = count_rows(batch), 0.0
        for part in _parts(batch, min(self.parts, self._most_parts(rows))):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = self._loss(self._network, part)
            share = count_rows(part) / rows
            (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * share
        if isinstance(self._optimizer, LazyAdam):
            self._optimizer.merge()
        if self._tables:
            add_l2(self._tables, self._options.embedding_l2)
        return total

    def _split(self, rows: int) -> None:
        if self.parts >= self._most_parts(rows):
            hint = "lower `train.batch_size`, or the size of the embeddings or layers"
            raise OcadError("memory ran out on the smallest part of a batch", hint)
        self.parts *= 2

    def _most_parts(self, rows: int) -> int:
        return max(1, rows // self._fewest)

    def _sound(self, loss: float) -> bool:
        return math.isfinite(loss) and all(
            bool(torch.isfinite(values).all()) for values in gradient_values(self._parameters)
        )


def _parts(batch: Batch, count: int) -> list[Batch]:
    """`batch` in `count` parts of nearly equal size."""
    if count == 1:
        return [batch]
    pieces = {name: tensor.tensor_split(count) for name, tensor in batch.items()}
    return [{name: split[index] for name, split in pieces.items()} for index in range(count)]


class _Moment:
    """Random state and buffers before a step, so that a repeated forward pass starts from where the first one did."""

    def __init__(self, buffers: list[Tensor]) -> None:
        self._random = torch.get_rng_state()
        self._buffers = [(buffer, buffer.clone()) for buffer in buffers]

    def restore(self) -> None:
        torch.set_rng_state(self._random)
        for buffer, before in self._buffers:
            buffer.copy_(before)


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that an allocation failed."""
    text = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "can't allocate memory" in text or "not enough memory" in text
    )
