"""Every option in the loop: schedules, what is watched, averaging, sampling; and exact resume with all of them."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.utils
from pydantic import ValidationError
from tests.training.test_resume import assert_same_run, interrupt_after
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from ocad.errors import ConfigError
from ocad.training.averaging import WeightAverage, refresh_batch_norm
from ocad.training.batches import Batch, in_order
from ocad.training.checkpoint import load_checkpoint
from ocad.training.layers import ReluDropout
from ocad.training.loop import FitResult, Objective, Reporting, fit
from ocad.training.losses import ClickLoss
from ocad.training.options import LossSettings, TrainOptions

BASE: dict[str, Any] = {"epochs": 5, "batch_size": 32, "learning_rate": 0.02, "patience": 0}


class Clicks(nn.Module):
    """A small click network with tables, batch normalisation and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 4)
        self.hidden = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), ReluDropout(0.2), nn.Linear(16, 1))

    def forward(self, ids: Tensor) -> Tensor:
        output: Tensor = self.hidden(self.embedding(ids).flatten(1))
        return output


def rows(count: int = 300, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(20, (count, 2), generator=generator) + torch.tensor([0, 20])
    chance = torch.sigmoid((ids[:, 0] - 14) / 4.0)
    return {"ids": ids, "label": (torch.rand(count, generator=generator) < chance).float()}


def train(
    folder: Path,
    values: dict[str, Any],
    loss: dict[str, Any] | None = None,
    *,
    data: Batch | None = None,
    resume: bool = False,
    reporting: Reporting | None = None,
    interrupt_at: int = -1,
) -> tuple[Clicks, FitResult]:
    """One run; the user presses Ctrl-C during the loss number `interrupt_at`."""
    torch.manual_seed(1)
    calls = itertools.count()
    network, data = Clicks(), data or rows()
    click_loss = ClickLoss(LossSettings.model_validate(loss or {}), data["label"])
    held_out = rows(200, seed=9)
    plain = ClickLoss(LossSettings(), held_out["label"])

    def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
        if next(calls) == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return click_loss(model(batch["ids"]), batch["label"])

    def validate(model: nn.Module) -> Mapping[str, float]:
        logit = model(held_out["ids"]).reshape(-1)
        right = ((logit > 0) == (held_out["label"] > 0)).float().mean().item()
        return {"val_loss": plain(logit, held_out["label"]).item(), "val_accuracy": right}

    objective = Objective(batch_loss, validate, rows=click_loss.rows)
    options = TrainOptions.model_validate(BASE | values)
    return network, fit(network, data, objective, options, folder, seed=3, resume=resume, reporting=reporting)


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adam": ({"optimizer": "adam", "embedding_l2": 0.01}, {}),
    "lazy adam": ({"optimizer": "lazy_adam", "embedding_l2": 0.01}, {}),
    "warm restarts": ({"schedule": "warm_restarts", "restart_epochs": 1.3}, {}),
    "plateau": ({"schedule": "plateau", "plateau_patience": 0, "learning_rate": 0.2}, {}),
    "constant": ({"schedule": "constant", "warmup_epochs": 0}, {}),
    "accumulation": ({"accumulate": 3}, {}),
    "averaging": ({"average_epochs": 4}, {}),
    "bf16": ({"bf16": True}, {}),
    "composite": ({"monitor": {"val_accuracy": 1.0, "val_loss": -0.5}}, {}),
    "sampling": ({}, {"negative_rate": 0.4, "kind": "weighted"}),
    "focal": ({"clip_norm": 0}, {"kind": "focal", "label_smoothing": 0.05, "hard_negatives": 0.5}),
    "everything": (
        {"optimizer": "lazy_adam", "schedule": "plateau", "average_epochs": 4, "accumulate": 2, "bf16": True},
        {"negative_rate": 0.5, "kind": "class_balanced"},
    ),
}


@pytest.mark.parametrize("within_an_epoch", [False, True], ids=["between epochs", "within an epoch"])
@pytest.mark.parametrize("name", OPTIONS)
def test_resume_is_exact_with_every_option(tmp_path: Path, name: str, within_an_epoch: bool) -> None:
    values, loss = OPTIONS[name]
    whole, result = train(tmp_path / "whole", values, loss)
    when: dict[str, Any] = {"interrupt_at": 24} if within_an_epoch else {"reporting": interrupt_after(3)}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", values, loss, **when)
    stopped = load_checkpoint(tmp_path / "broken" / "checkpoints" / "last.pth")["state"]
    assert (stopped["batch"] > 0) == within_an_epoch
    broken, resumed = train(tmp_path / "broken", values, loss, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, broken.state_dict()[key]), key
    assert (resumed.averaged, resumed.best_value) == (result.averaged, result.best_value)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def rates(folder: Path, values: dict[str, Any]) -> list[float]:
    _, result = train(folder, values)
    return [row["learning_rate"] for row in result.history]


def test_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    constant = rates(tmp_path / "constant", {"schedule": "constant", "warmup_epochs": 2})
    # ten steps an epoch: after two epochs of warm-up the highest rate stays
    assert constant == pytest.approx([0.02 * 10 / 21, 0.02 * 20 / 21, 0.02, 0.02, 0.02])
    restarts = rates(tmp_path / "restarts", {"schedule": "warm_restarts", "warmup_epochs": 0, "restart_epochs": 1})
    # the last steps of the five epochs: of the first period, of the second's first and second half, of the third's
    done = [9 / 10, 9 / 20, 19 / 20, 9 / 40, 19 / 40]
    assert restarts == pytest.approx([0.01 * (1 + math.cos(math.pi * share)) for share in done])


def test_the_rate_is_divided_when_validation_stops_improving(tmp_path: Path) -> None:
    values = iter([9.0, 3.0, 2.0, 2.0, 2.0, 1.0])

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output: Tensor = model(batch["ids"]).square().mean()
        return output

    options = TrainOptions.model_validate(BASE | {"schedule": "plateau", "plateau_patience": 0, "warmup_epochs": 0})
    objective = Objective(loss, lambda _: {"val_loss": next(values)})
    result = fit(Clicks(), rows(), objective, options, tmp_path, seed=1)
    seen = [row["learning_rate"] for row in result.history]
    assert seen == pytest.approx([0.02, 0.02, 0.02, 0.002, 0.0002])


def test_a_weighted_sum_chooses_the_best_epoch(tmp_path: Path) -> None:
    measured = iter([(9.0, 0.0), (1.0, 0.50), (2.0, 0.80), (3.0, 0.85), (4.0, 0.60), (5.0, 0.60)])

    def validate(_model: nn.Module) -> Mapping[str, float]:
        loss, accuracy = next(measured)
        return {"val_loss": loss, "val_auc": accuracy}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output: Tensor = model(batch["ids"]).square().mean()
        return output

    options = TrainOptions.model_validate(BASE | {"monitor": {"val_auc": 10.0, "val_loss": -1.0}})
    result = fit(Clicks(), rows(), Objective(loss, validate), options, tmp_path, seed=1)
    assert result.best_epoch == 2
    assert result.best_value == pytest.approx(-(10 * 0.8 - 2.0))


def test_a_monitored_metric_that_is_not_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train(tmp_path, {"monitor": {"val_acuracy": 1.0}})
    assert str(caught.value) == (
        "`monitor` names the metric `val_acuracy`, which is not measured: did you mean `val_accuracy`?"
    )


def test_the_average_is_torchs_and_statistics_are_measured_again() -> None:
    torch.manual_seed(0)
    model, ours = Clicks(), Clicks()
    average, reference = WeightAverage(), AveragedModel(model)
    for _ in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.add(model)
        reference.update_parameters(model)
    average.into(ours)
    data = rows()
    torch.manual_seed(7)
    refresh_batch_norm(ours, lambda model, batch: model(batch["ids"]).mean(), in_order(data, 100))
    torch.manual_seed(7)
    update_bn([batch["ids"] for batch in in_order(data, 100)], reference)
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, reference.module.state_dict()[name], msg=name)
    norm = ours.hidden[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.momentum == 0.1


def test_the_average_is_kept_only_where_it_is_better(tmp_path: Path) -> None:
    # a high constant rate makes single epochs noisy; their mean lies in the middle
    noisy = {"schedule": "constant", "learning_rate": 0.05, "epochs": 8, "average_epochs": 6, "clip_norm": 0}
    _, better = train(tmp_path / "noisy", noisy)
    assert better.averaged
    assert better.best_value < min(row["val_loss"] for row in better.history)
    best = load_checkpoint(tmp_path / "noisy" / "checkpoints" / "best.pth")
    assert best["average"]["count"] == 6
    _, single = train(tmp_path / "falling", {"epochs": 2, "learning_rate": 1e-3, "average_epochs": 2})
    assert not single.averaged
    assert single.best_value == min(row["val_loss"] for row in single.history)


def test_sampled_epochs_have_their_own_length(tmp_path: Path) -> None:
    data = rows()
    negatives = int((data["label"] == 0).sum())
    counted: list[int] = []
    loss = ClickLoss(LossSettings(negative_rate=0.1), data["label"])

    def counting(model: nn.Module, batch: Batch) -> Tensor:
        counted.append(len(batch["label"]))
        return loss(model(batch["ids"]), batch["label"])

    options = TrainOptions.model_validate(BASE | {"epochs": 1})
    fit(Clicks(), data, Objective(counting, lambda _: {"val_loss": 1.0}, rows=loss.rows), options, tmp_path, seed=1)
    assert sum(counted) == 300 - negatives + round(0.1 * negatives)


def test_a_last_batch_of_one_row_is_left_out_under_batch_normalisation(tmp_path: Path) -> None:
    _, result = train(tmp_path, {"epochs": 1}, data=rows(32 * 3 + 1))
    saved = load_checkpoint(tmp_path / "checkpoints" / "last.pth")
    assert saved["rows"] == 96
    assert len(result.history) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"optimizer": "sgd"},
        {"schedule": "step"},
        {"restart_factor": 0},
        {"plateau_factor": 1},
        {"accumulate": 0},
        {"average_epochs": -1},
        {"compile": True, "optimizer": "lazy_adam"},
    ],
)
def test_options_refuse_what_does_not_fit(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainOptions.model_validate(values)


WITHOUT_COMPILER = """
import sys, torch
from pathlib import Path
from torch import nn
from ocad.training.loop import Objective, fit
from ocad.training.options import TrainOptions
network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
objective = Objective(lambda model, batch: model(batch["x"]).square().mean(), lambda model: {"val_loss": 1.0})
fit(network, {"x": torch.ones(9, 3)}, objective, TrainOptions(compile=True, epochs=1), Path(sys.argv[1]), seed=1)
"""


@pytest.mark.slow
def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", WITHOUT_COMPILER, str(tmp_path)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    last = finished.stderr.strip().splitlines()[-1]
    assert last.startswith("ocad.errors.OcadError: the network cannot be compiled (InvalidCxxCompiler")
    assert last.endswith("set `train.compile` to false, or install a C++ compiler")


@pytest.mark.slow
def test_a_compiled_network_trains_to_the_same_weights(tmp_path: Path) -> None:
    def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
        output: Tensor = (model(batch["ids"]).reshape(-1) - batch["label"]).square().mean()
        return output

    networks = []
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for compiled in (False, True):
        torch.manual_seed(1)
        network = nn.Sequential(nn.Embedding(40, 4), nn.Flatten(), nn.Linear(8, 1))
        options = TrainOptions.model_validate(BASE | {"epochs": 2, "compile": compiled})
        fit(
            network,
            rows(),
            Objective(batch_loss, lambda _: {"val_loss": -1.0}),
            options,
            tmp_path / str(compiled),
            seed=1,
        )
        # the second network did go through the compiler
        assert bool(torch._dynamo.utils.counters["stats"]["unique_graphs"]) == compiled
        last = load_checkpoint(tmp_path / str(compiled) / "checkpoints" / "last.pth")
        networks.append(last["model"])
    assert set(networks[0]) == set(networks[1])
    for name, tensor in networks[0].items():
        torch.testing.assert_close(tensor, networks[1][name], rtol=1e-3, atol=1e-5)
