"""The learning rate against its closed form and torch's own schedulers; one optimizer step against a reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from ocad.training.options import TrainOptions
from ocad.training.schedule import (
    cosine_with_restarts,
    cosine_with_warmup,
    learning_share,
    plateau,
    set_learning_rate,
)


def test_warmup_is_linear_and_cosine_is_closed_form() -> None:
    shares = [cosine_with_warmup(step, total_steps=24, warmup_steps=4) for step in range(24)]
    assert shares[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert shares[4] == 1.0
    assert shares[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 20)) for step in range(20)])


def test_without_warmup_it_is_torchs_cosine_annealing() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert cosine_with_warmup(step, 50, 0) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        scheduler.step()


@given(st.integers(1, 500), st.integers(0, 600), st.data())
def test_share_stays_between_zero_and_one(total: int, warmup: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total - 1))
    assert 0.0 <= cosine_with_warmup(step, total, warmup) <= 1.0


def test_every_group_keeps_its_own_highest_rate() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "initial_lr": rate} for rate in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    set_learning_rate(optimizer, 0.5)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.025]


@pytest.mark.parametrize("values", [{"epochs": 0}, {"learning_rate": 0}, {"clip_norm": -1}, {"warmup": 1}])
def test_options_refuse_what_cannot_train(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TrainOptions.model_validate(values)


@pytest.mark.parametrize(("period", "factor"), [(10, 1), (7, 2), (4, 3)])
def test_restarts_are_torchs(period: int, factor: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=period, T_mult=factor)
    for step in range(60):
        assert cosine_with_restarts(step, period, factor) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        scheduler.step()


@given(st.lists(st.integers(0, 6).map(lambda value: value / 2), max_size=15), st.integers(0, 3))
def test_plateau_is_torchs(values: list[float], patience: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.1, patience=patience, threshold=0.75, threshold_mode="abs", eps=0.0
    )
    for value in values:
        scheduler.step(value)
    assert plateau(values, 0.1, patience, 0.75) == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("schedule", ["warm_restarts", "plateau", "constant", "cosine"])
def test_every_schedule_warms_up(schedule: Any) -> None:
    options = TrainOptions(epochs=10, schedule=schedule, warmup_epochs=2)
    shares = [learning_share(options, step, 10, []) for step in range(21)]
    assert shares[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert shares[20] == 1.0
