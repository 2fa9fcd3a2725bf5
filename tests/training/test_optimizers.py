"""Steps of every optimizer against torch's own, and what happens to gradients before them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ocad.training.optimizers import LazyAdam, RowMerger, add_l2, clip_gradients, gradient_values, make_optimizer
from ocad.training.options import TrainOptions

ROWS, FIELDS = 50, 3


class Network(nn.Module):
    """A factorisation machine's tables and a dense head."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ROWS, 4, sparse=sparse)
        self.linear = nn.Embedding(ROWS, 1, sparse=sparse)
        self.head = nn.Linear(4, 1)

    def forward(self, ids: Tensor) -> Tensor:
        output: Tensor = self.head(self.embedding(ids).sum(1).tanh()) + self.linear(ids).sum(1)
        return output


def networks(count: int, sparse: bool = False) -> list[Network]:
    torch.manual_seed(0)
    first = Network(sparse)
    return [first, *(copy.deepcopy(first) for _ in range(count - 1))]


def batches(count: int, every_row: bool = False) -> list[Tensor]:
    """Ids with repetitions, within a row and between rows; with `every_row`, each id is in each batch."""
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randint(ROWS, (40, FIELDS), generator=generator) for _ in range(count)]
    if every_row:
        return [torch.cat([ids, torch.arange(ROWS).unsqueeze(1).expand(-1, FIELDS)]) for ids in drawn]
    return drawn


def backward(network: Network, ids: Tensor) -> None:
    target = (ids.sum(1, keepdim=True) % 2).float()
    functional.binary_cross_entropy_with_logits(network(ids), target).backward()  # type: ignore[no-untyped-call]


def train(network: Network, optimizers: list[Any], ids: list[Tensor]) -> None:
    for batch in ids:
        for optimizer in optimizers:
            optimizer.zero_grad()
        backward(network, batch)
        for optimizer in optimizers:
            optimizer.step()


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for name, parameter in one.named_parameters():
        torch.testing.assert_close(parameter, other.get_parameter(name), rtol=1e-4, atol=1e-6, msg=name)


def test_lazy_adam_is_torchs_sparse_adam_on_tables_and_adam_elsewhere() -> None:
    ours, reference = networks(2, sparse=True)
    before = ours.embedding.weight.detach().clone()
    ids = batches(12)
    ids[-1] = ids[-1] % 20
    # torch's sparse one adds epsilon before the bias correction, its dense one and ours after it
    settings: dict[str, Any] = {"lr": 0.05, "eps": 1e-14}
    train(ours, [LazyAdam(ours.parameters(), **settings)], ids)
    tables = [reference.embedding.weight, reference.linear.weight]
    sparse = torch.optim.SparseAdam(tables, **settings)
    train(reference, [sparse, torch.optim.Adam(reference.head.parameters(), **settings)], ids)
    assert_equal(ours, reference)
    assert (ours.embedding.weight - before).abs().max() > 0.1


def test_lazy_adam_is_adam_where_every_row_is_in_every_batch() -> None:
    ours, dense = networks(2)
    ids = batches(8, every_row=True)
    options = TrainOptions(optimizer="lazy_adam", learning_rate=0.05)
    train(ours, [make_optimizer(ours, options)], ids)
    assert ours.embedding.sparse
    train(dense, [torch.optim.Adam(dense.parameters(), lr=0.05)], ids)
    assert_equal(ours, dense)


def test_lazy_adam_leaves_untouched_rows_and_their_moments_alone() -> None:
    (ours,) = networks(1, sparse=True)
    optimizer = LazyAdam(ours.parameters(), lr=0.05)
    train(ours, [optimizer], [torch.tensor([[1, 2, 3]])])
    weight, moment = (
        tensor.clone() for tensor in (ours.embedding.weight, optimizer.state[ours.embedding.weight]["exp_avg"])
    )
    train(ours, [optimizer], [torch.tensor([[3, 4, 4]])])
    state = optimizer.state[ours.embedding.weight]["exp_avg"]
    moved = torch.nonzero((ours.embedding.weight != weight).any(1)).squeeze(1)
    assert moved.tolist() == [3, 4]
    assert torch.nonzero((state != moment).any(1)).squeeze(1).tolist() == [3, 4]


def test_lazy_adam_goes_on_from_its_state() -> None:
    whole, broken = networks(2, sparse=True)
    ids = batches(6)
    train(whole, [LazyAdam(whole.parameters(), lr=0.05)], ids)
    first = LazyAdam(broken.parameters(), lr=0.05)
    train(broken, [first], ids[:3])
    second = LazyAdam(broken.parameters(), lr=0.05)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(broken, [second], ids[3:])
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, broken.get_parameter(name)), name


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_dense_optimizers_are_torchs(optimizer: Any) -> None:
    ours, reference = networks(2)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    options = TrainOptions(optimizer=optimizer, learning_rate=0.02, weight_decay=0.1)
    train(ours, [make_optimizer(ours, options)], batches(5))
    train(reference, [kind(reference.parameters(), lr=0.02, weight_decay=0.1)], batches(5))
    assert_equal(ours, reference)


def test_the_mild_default_decay_is_for_adamw_alone() -> None:
    assert TrainOptions().weight_decay == 0.01
    assert TrainOptions(optimizer="adam").weight_decay == 0.0
    assert TrainOptions(optimizer="lazy_adam", weight_decay=0.2).weight_decay == 0.2


def test_merged_rows_are_unique_and_sum_to_the_dense_gradient() -> None:
    sparse, dense = networks(2, sparse=True)
    dense.embedding.sparse = dense.linear.sparse = False
    for network in (sparse, dense):
        # two passes, as in accumulation
        for ids in batches(2):
            backward(network, ids)
    RowMerger().merge(sparse.parameters())
    for name in ("embedding.weight", "linear.weight"):
        gradient, expected = sparse.get_parameter(name).grad, dense.get_parameter(name).grad
        assert gradient is not None
        assert expected is not None
        rows = gradient._indices()[0]
        assert len(set(rows.tolist())) == len(rows) == int((expected != 0).any(1).sum())
        torch.testing.assert_close(torch.zeros_like(expected).index_copy_(0, rows, gradient._values()), expected)


@pytest.mark.parametrize("largest", [1e-3, 1e3])
def test_clipping_counts_sparse_rows_once(largest: float) -> None:
    sparse, dense = networks(2, sparse=True)
    dense.embedding.sparse = dense.linear.sparse = False
    for network in (sparse, dense):
        backward(network, batches(1)[0])
    RowMerger().merge(sparse.parameters())
    clip_gradients(gradient_values(sparse.parameters()), largest)
    nn.utils.clip_grad_norm_(dense.parameters(), largest)
    for name, parameter in sparse.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.to_dense(), dense.get_parameter(name).grad, msg=name)


def test_embedding_l2_is_the_gradient_of_half_its_square() -> None:
    ours, reference = networks(2)
    ids = batches(1)[0]
    backward(ours, ids)
    add_l2([ours.embedding, ours.linear], 0.3)
    backward(reference, ids)
    penalty = sum(0.15 * table.weight.square().sum() for table in (reference.embedding, reference.linear))
    assert isinstance(penalty, Tensor)
    penalty.backward()  # type: ignore[no-untyped-call]
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, reference.get_parameter(name).grad, msg=name)


def test_embedding_l2_reaches_only_touched_rows_under_sparse_gradients() -> None:
    sparse, dense = networks(2, sparse=True)
    dense.embedding.sparse = dense.linear.sparse = False
    ids = torch.tensor([[1, 1, 7]])
    for network in (sparse, dense):
        backward(network, ids)
    RowMerger().merge(sparse.parameters())
    for network in (sparse, dense):
        add_l2([network.embedding], 0.3)
    assert sparse.embedding.weight.grad is not None
    assert dense.embedding.weight.grad is not None
    rows = torch.tensor([1, 7])
    found = sparse.embedding.weight.grad.to_dense()
    torch.testing.assert_close(found[rows], dense.embedding.weight.grad[rows])
    found[rows] = 0
    assert int(found.count_nonzero()) == 0
