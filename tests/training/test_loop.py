"""What the loop does in an epoch, and what it leaves in the run folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import nn
from torch.nn import functional

from ocad.errors import OcadError
from ocad.training.batches import count_rows, in_order, random_order, shuffled
from ocad.training.checkpoint import load_checkpoint
from ocad.training.loop import Objective, Reporting, fit
from ocad.training.options import TrainOptions
from ocad.training.schedule import cosine_with_warmup

if TYPE_CHECKING:
    from tests.training.conftest import Regression


def test_a_run_leaves_its_checkpoints_log_and_events(tmp_path: Path, regression: Regression) -> None:
    heard: list[tuple[int, Mapping[str, float]]] = []
    _, result = regression.train(
        tmp_path, reporting=Reporting(epoch_ended=lambda epoch, row: heard.append((epoch, row)))
    )
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"epoch_002.pth", "epoch_004.pth", "epoch_006.pth", "best.pth", "last.pth"}
    assert set(result.checkpoints) == {name.removesuffix(".pth") for name in names}
    rows = list(csv.DictReader((tmp_path / "log.csv").open(encoding="utf-8")))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [float(row["val_loss"]) for row in rows] == [row["val_loss"] for row in result.history]
    assert [row for _, row in heard] == list(result.history)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val_loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in events.Scalars("train_loss")] == pytest.approx(
        [row["train_loss"] for row in result.history]
    )


def test_training_learns_and_keeps_the_best_epoch(tmp_path: Path, regression: Regression) -> None:
    network, result = regression.train(tmp_path, regression.options.model_copy(update={"epochs": 40}))
    losses = [row["val_loss"] for row in result.history]
    assert result.best_value == min(losses) < 0.25 * losses[0]
    assert losses[result.best_epoch - 1] == result.best_value
    network.eval()
    measured = regression.validate(network)["val_loss"]
    assert measured == pytest.approx(result.best_value, abs=1e-7)


def test_one_step_is_clipped_adamw_at_the_warmed_up_rate(tmp_path: Path, regression: Regression) -> None:
    options = TrainOptions(epochs=1, batch_size=150, learning_rate=0.01, warmup_epochs=0, clip_norm=0.1, patience=0)
    data, network, expected = regression.data(), regression.network(), regression.network()
    network.drop.p = expected.drop.p = 0.0
    fit(
        network, data, Objective(regression.loss, lambda _: {"val_loss": -1.0}), options, tmp_path, seed=regression.seed
    )
    last = load_checkpoint(tmp_path / "checkpoints" / "last.pth")["model"]

    regression.loss(expected, data).backward()  # type: ignore[no-untyped-call]
    norm = torch.cat(
        [parameter.grad.flatten() for parameter in expected.parameters() if parameter.grad is not None]
    ).norm()
    rate = options.learning_rate * cosine_with_warmup(0, 1, 0)
    assert norm > options.clip_norm
    for name, parameter in expected.named_parameters():
        assert parameter.grad is not None
        gradient = parameter.grad * options.clip_norm / norm
        # the first step of AdamW: the moments' bias corrections cancel, the decay is decoupled
        step = gradient / (gradient.abs() + 1e-8) + options.weight_decay * parameter
        torch.testing.assert_close(last[name], (parameter - rate * step).detach(), rtol=1e-3, atol=1e-6)


def test_early_stopping_waits_for_patience_and_min_delta(tmp_path: Path, regression: Regression) -> None:
    values = iter([5.0, 4.0, 3.95, 3.94, 3.93, 3.0])
    options = regression.options.model_copy(update={"patience": 3, "min_delta": 0.1, "epochs": 10})
    objective = Objective(regression.loss, lambda _: {"val_loss": next(values)})
    result = fit(regression.network(), regression.data(), objective, options, tmp_path, seed=regression.seed)
    assert [row["val_loss"] for row in result.history] == [4.0, 3.95, 3.94, 3.93]
    assert (result.best_epoch, result.best_value) == (1, 4.0)


def test_the_initial_model_is_kept_when_no_epoch_is_better(tmp_path: Path, regression: Regression) -> None:
    values = iter([1.0, 2.0, 3.0])
    options = regression.options.model_copy(update={"epochs": 2})
    network, initial = regression.network(), regression.network()
    objective = Objective(regression.loss, lambda _: {"val_loss": next(values)})
    result = fit(network, regression.data(), objective, options, tmp_path, seed=regression.seed)
    assert (result.best_epoch, result.best_value) == (0, 1.0)
    for name, tensor in initial.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_bf16_runs_the_forward_pass_in_bfloat16(tmp_path: Path, regression: Regression) -> None:
    seen: set[torch.dtype] = set()
    network = regression.network()
    network.head.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))

    def loss(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return functional.mse_loss(model(batch["kind"], batch["numbers"]).float(), batch["target"])

    options = regression.options.model_copy(update={"bf16": True, "epochs": 1})
    fit(
        network,
        regression.data(),
        Objective(loss, lambda _: {"val_loss": 0.0}),
        options,
        tmp_path,
        seed=regression.seed,
    )
    assert seen == {torch.bfloat16}


def test_a_diverged_loss_is_an_error_that_says_what_to_do(tmp_path: Path, regression: Regression) -> None:
    data = {**regression.data(), "target": torch.full((150, 1), float("nan"))}
    objective = Objective(regression.loss, lambda _: {"val_loss": 0.0})
    with pytest.raises(OcadError) as caught:
        fit(regression.network(), data, objective, regression.options, tmp_path, seed=regression.seed)
    assert str(caught.value) == (
        "the training loss is no longer finite in epoch 1: "
        "lower the learning rate, or look for extreme values in the data"
    )


def test_the_callers_thread_count_is_restored(tmp_path: Path, regression: Regression) -> None:
    before = torch.get_num_threads()
    inside: list[int] = []

    def validate(_model: nn.Module) -> Mapping[str, float]:
        inside.append(torch.get_num_threads())
        return {"val_loss": 0.0}

    objective = Objective(regression.loss, validate)
    fit(
        regression.network(),
        regression.data(),
        objective,
        regression.options.model_copy(update={"epochs": 1}),
        tmp_path,
        seed=regression.seed,
    )
    assert set(inside) == {1}
    assert torch.get_num_threads() == before


def test_batches_cover_every_row_once_and_can_start_late(regression: Regression) -> None:
    data = {"row": torch.arange(1000)}
    order = random_order(1000, seed=1, epoch=2)
    batches = [batch["row"] for batch in shuffled(data, 3, order)]
    assert torch.equal(torch.cat(batches), order)
    late = [batch["row"] for batch in shuffled(data, 3, order, first=100)]
    assert all(torch.equal(one, other) for one, other in zip(batches[100:], late, strict=True))
    assert torch.equal(torch.cat([batch["row"] for batch in in_order(data, 7)]), data["row"])
    assert not torch.equal(order, random_order(1000, seed=1, epoch=3))
    with pytest.raises(ValueError, match="unequal length"):
        count_rows({"a": torch.zeros(2), "b": torch.zeros(3)})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"schedule": "plateau", "plateau_patience": 0, "patience": 2},
        {"average_epochs": 3},
        {"learning_rate": 3.0, "patience": 1},
    ],
    ids=["cosine", "plateau", "averaged", "stopped early"],
)
def test_a_run_that_follows_another_ends_where_that_did(
    tmp_path: Path, regression: Regression, change: dict[str, object]
) -> None:
    """On the same rows to the same weights, without a look at validation: as long, at the same rates, averaged alike."""
    options = regression.options.model_copy(update=change)
    first, second = regression.network(), regression.network()
    seen = Objective(regression.loss, regression.validate, initial=False)
    found = fit(first, regression.data(), seen, options, tmp_path / "one", seed=regression.seed)

    def never(_model: nn.Module) -> Mapping[str, float]:
        raise AssertionError("validation was looked at")

    blind = Objective(regression.loss, never, initial=False)
    followed = fit(second, regression.data(), blind, options, tmp_path / "two", seed=regression.seed, follow=found)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert (followed.best_epoch, followed.averaged) == (found.best_epoch, found.averaged)


def test_the_initial_model_may_be_none_to_keep(tmp_path: Path, regression: Regression) -> None:
    """Where every epoch looks worse than none, a model that must have learned something is the first epoch's."""
    worse = iter(range(100))
    objective = Objective(regression.loss, lambda _model: {"val_loss": float(next(worse))}, initial=False)
    model = regression.network()
    result = fit(model, regression.data(), objective, regression.options, tmp_path, seed=regression.seed)
    assert result.best_epoch == 1
    initial = regression.network().state_dict()
    assert any(not torch.equal(tensor, initial[name]) for name, tensor in model.state_dict().items())
