"""A step in parts, in bfloat16 and when memory runs out; the layers that make it fast."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ocad.errors import OcadError
from ocad.training.batches import Batch, count_rows
from ocad.training.layers import ReluDropout, random_bytes
from ocad.training.optimizers import make_optimizer
from ocad.training.options import TrainOptions
from ocad.training.step import Stepper, out_of_memory


class Network(nn.Module):
    """Dropout and batch normalisation: random state and buffers that a repeated pass must not see twice."""

    def __init__(self, normalised: bool = True) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 8)
        self.norm = nn.BatchNorm1d(8) if normalised else nn.Identity()
        self.drop = ReluDropout(0.25 if normalised else 0.0)
        self.head = nn.Linear(8, 1)

    def forward(self, values: Tensor) -> Tensor:
        output: Tensor = self.head(self.drop(self.norm(self.hidden(values))))
        return output


def squared(model: nn.Module, batch: Batch) -> Tensor:
    return functional.mse_loss(model(batch["values"]).float(), batch["target"])


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(37, 3, generator=generator)
    return {"values": values, "target": values.sum(1, keepdim=True)}


def stepped(network: nn.Module, batch: Batch, loss: Any = squared, **options: Any) -> tuple[float, Stepper]:
    torch.manual_seed(4)
    settings = TrainOptions(learning_rate=0.1, **options)
    stepper = Stepper(network, make_optimizer(network, settings), loss, settings)
    network.train()
    return stepper.step(batch), stepper


def assert_same(one: nn.Module, other: nn.Module, rtol: float = 0.0, atol: float = 0.0) -> None:
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=rtol, atol=atol, msg=name)


@pytest.mark.parametrize("parts", [2, 5, 37, 100])
def test_a_batch_in_parts_gives_the_step_of_the_whole(batch: Batch, parts: int) -> None:
    torch.manual_seed(0)
    whole = Network(normalised=False)
    split, counted = copy.deepcopy(whole), []

    def counting(model: nn.Module, part: Batch) -> Tensor:
        counted.append(count_rows(part))
        return squared(model, part)

    one, _ = stepped(whole, batch)
    other, _ = stepped(split, batch, counting, accumulate=parts)
    assert other == pytest.approx(one, rel=1e-6)
    assert (sum(counted), len(counted)) == (37, min(parts, 37))
    assert_same(whole, split, rtol=1e-4, atol=1e-5)


class Hungry(Network):
    """Asks for more memory than there is, as soon as more than `limit` rows come at once."""

    limit = 10

    def forward(self, values: Tensor) -> Tensor:
        if len(values) > self.limit:
            super().forward(values)
            torch.empty(2**58, dtype=torch.uint8)
        return super().forward(values)


def test_memory_that_runs_out_splits_the_batch(batch: Batch) -> None:
    torch.manual_seed(0)
    hungry = Hungry()
    modest = copy.deepcopy(hungry)
    modest.limit = 100
    one, stepper = stepped(hungry, batch)
    other, _ = stepped(modest, batch, accumulate=4)
    assert stepper.parts == 4
    # the failed attempts left nothing behind: not in the random state, not in the statistics
    assert one == other
    assert_same(hungry, modest)


@pytest.mark.parametrize("normalised", [True, False])
def test_memory_for_no_part_names_the_settings(batch: Batch, normalised: bool) -> None:
    hungry = Hungry(normalised)
    hungry.limit = 0
    with pytest.raises(OcadError) as caught:
        stepped(hungry, batch)
    assert str(caught.value) == (
        "memory ran out on the smallest part of a batch: lower `train.batch_size`, or the size of the embeddings or layers"
    )


def test_only_failed_allocations_are_taken_for_them() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_another_failure_is_not_repeated(batch: Batch) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        stepped(Network(), {**batch, "values": torch.zeros(37, 4)})


def test_parts_of_one_row_are_avoided_under_batch_normalisation(batch: Batch) -> None:
    sizes: list[int] = []

    def counting(model: nn.Module, part: Batch) -> Tensor:
        sizes.append(count_rows(part))
        return squared(model, part)

    stepped(Network(), batch, counting, accumulate=100)
    assert (min(sizes), sum(sizes)) == (2, 37)


class Overflowing(Network):
    """Has no finite answer in bfloat16."""

    seen: list[torch.dtype]

    def forward(self, values: Tensor) -> Tensor:
        output = super().forward(values)
        self.seen.append(output.dtype)
        return output * torch.inf if output.dtype == torch.bfloat16 else output


def test_a_step_that_is_not_finite_in_bfloat16_is_repeated_in_float32(batch: Batch) -> None:
    torch.manual_seed(0)
    overflowing = Overflowing()
    overflowing.seen = []
    plain = copy.deepcopy(overflowing)
    one, stepper = stepped(overflowing, batch, bf16=True)
    other, _ = stepped(plain, batch)
    assert one == other
    assert_same(overflowing, plain)
    stepper.step(batch)
    assert overflowing.seen == [torch.bfloat16, torch.float32] * 2


class Unsupported(Network):
    """Uses an operator that has no bfloat16 kernel."""

    def forward(self, values: Tensor) -> Tensor:
        output = super().forward(values)
        nothing: Tensor = 0 * torch.special.bessel_j0(output.detach())
        return output + nothing


def test_an_operator_without_bfloat16_is_run_in_float32(batch: Batch) -> None:
    torch.manual_seed(0)
    unsupported = Unsupported()
    plain = copy.deepcopy(unsupported)
    with pytest.raises(RuntimeError, match="not implemented for 'BFloat16'"):
        torch.special.bessel_j0(torch.ones(1, dtype=torch.bfloat16))
    one, _ = stepped(unsupported, batch, bf16=True)
    other, _ = stepped(plain, batch)
    assert one == other
    assert_same(unsupported, plain)


def test_without_a_limit_gradients_are_not_clipped(batch: Batch) -> None:
    torch.manual_seed(0)
    free = Network(normalised=False)
    clipped = copy.deepcopy(free)
    stepped(free, {**batch, "target": batch["target"] * 100}, clip_norm=0)
    stepped(clipped, {**batch, "target": batch["target"] * 100}, clip_norm=1)
    norms = [
        nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]).item()
        for network in (free, clipped)
    ]
    assert norms[0] > 100
    assert norms[1] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.2, 0.5])
def test_relu_dropout_drops_its_share_and_keeps_the_mean(dropout: float) -> None:
    torch.manual_seed(1)
    layer = ReluDropout(dropout)
    values = torch.rand(200_003) + 0.5
    values.requires_grad_()
    output = layer(values)
    dropped = output == 0
    assert dropped.float().mean().item() == pytest.approx(dropout, abs=0.005)
    scale = 256 / (256 - round(dropout * 256))
    torch.testing.assert_close(output[~dropped], values[~dropped] * scale)
    output.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.where(dropped, 0.0, scale))


def test_relu_dropout_is_relu_in_evaluation() -> None:
    layer = ReluDropout(0.5).eval()
    values = torch.tensor([-1.0, 0.0, 2.0])
    assert torch.equal(layer(values), torch.relu(values))
    assert repr(layer) == "ReluDropout(dropout=0.5)"
    with pytest.raises(ValueError, match="must be from 0 to below 1, not 1"):
        ReluDropout(1.0)


def test_random_bytes_are_uniform_and_seeded() -> None:
    torch.manual_seed(3)
    drawn = random_bytes(256 * 400 + 3)
    assert drawn.shape == (256 * 400 + 3,)
    counts = torch.bincount(drawn.long(), minlength=256).float()
    # the chi-squared statistic of 255 degrees of freedom
    assert 170 < ((counts - 400) ** 2 / 400).sum().item() < 360
    torch.manual_seed(3)
    assert torch.equal(random_bytes(256 * 400 + 3), drawn)
