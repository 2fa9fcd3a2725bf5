"""Losses against their closed forms, and the odds of models trained on sampled or weighted rows."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from ocad.errors import DataError
from ocad.training.losses import ClickLoss, correct_sampled, focal_losses, hardest, smoothed
from ocad.training.options import LossSettings
from ocad.training.sampling import AllRows, NegativeSampling

LABEL = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
LOGIT = torch.tensor([0.3, -1.2, 2.0, -0.5, 0.1, -3.0, 1.0, 0.7])


def make(label: Tensor = LABEL, **values: object) -> ClickLoss:
    return ClickLoss(LossSettings.model_validate(values), label)


def row_losses(logit: Tensor, target: Tensor) -> Tensor:
    """The log loss of each row, in double precision and spelt out."""
    probability = 1 / (1 + torch.exp(-logit.double()))
    return -(target * probability.log() + (1 - target) * (1 - probability).log())


def test_log_loss() -> None:
    expected = row_losses(LOGIT, LABEL).mean()
    assert make()(LOGIT, LABEL).item() == pytest.approx(expected.item(), rel=1e-6)
    # a column is as good as a vector, and bfloat16 is lifted before the logarithm
    assert make()(LOGIT.unsqueeze(1), LABEL).item() == pytest.approx(expected.item(), rel=1e-6)
    assert make()(LOGIT.bfloat16(), LABEL).dtype == torch.float32


def test_rows_count_by_their_weight() -> None:
    weight = torch.arange(8.0)
    expected = (row_losses(LOGIT, LABEL) * weight).mean()
    assert make()(LOGIT, LABEL, weight).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("pos_weight", "factor"), [("auto", 3.0), (2.5, 2.5)])
def test_weighted_is_torchs_pos_weight(pos_weight: object, factor: float) -> None:
    loss = make(kind="weighted", pos_weight=pos_weight)
    expected = functional.binary_cross_entropy_with_logits(LOGIT, LABEL, pos_weight=torch.tensor(factor))
    assert loss(LOGIT, LABEL).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_closed_form(gamma: float) -> None:
    right = torch.where(LABEL == 1, torch.sigmoid(LOGIT.double()), 1 - torch.sigmoid(LOGIT.double()))
    expected = -((1 - right) ** gamma) * right.log()
    torch.testing.assert_close(focal_losses(LOGIT.double(), LABEL.double(), gamma), expected)
    assert make(kind="focal", gamma=gamma)(LOGIT, LABEL).item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_focal_has_finite_gradients_far_out() -> None:
    logit = torch.tensor([80.0, -80.0, 80.0, -80.0], requires_grad=True)
    focal_losses(logit, torch.tensor([1.0, 0.0, 0.0, 1.0]), 0.5).sum().backward()  # type: ignore[no-untyped-call]
    assert logit.grad is not None
    torch.testing.assert_close(logit.grad, torch.tensor([0.0, 0.0, 1.0, -1.0]))


def test_class_balanced_weighs_by_the_effective_number() -> None:
    beta = 0.9
    effective = [(1 - beta**count) / (1 - beta) for count in (6, 2)]
    inverse = [1 / number for number in effective]
    weight = [2 * value / sum(inverse) for value in inverse]
    expected = row_losses(LOGIT, LABEL) * torch.where(LABEL == 1, weight[1], weight[0])
    loss = make(kind="class_balanced", beta=beta)
    assert loss(LOGIT, LABEL).item() == pytest.approx(expected.mean().item(), rel=1e-6)
    assert sum(loss.weights) == pytest.approx(2.0)
    assert make(kind="class_balanced", beta=0.0).weights == (1.0, 1.0)
    # near 1 the effective number is the number itself
    negative, positive = make(kind="class_balanced", beta=1 - 1e-12).weights
    assert positive / negative == pytest.approx(3.0, rel=1e-3)


def test_label_smoothing_spreads_a_share_evenly() -> None:
    torch.testing.assert_close(smoothed(LABEL, 0.2), torch.where(LABEL == 1, 0.9, 0.1))
    expected = row_losses(LOGIT, torch.where(LABEL == 1, 0.9, 0.1)).mean()
    assert make(label_smoothing=0.2)(LOGIT, LABEL).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("share", "count"), [(0.5, 3), (0.01, 1), (0.4, 3)])
def test_hard_negatives_are_those_of_highest_loss(share: float, count: int) -> None:
    losses = row_losses(LOGIT, LABEL)
    kept = sorted(losses[LABEL == 0].tolist())[-count:]
    expected = (losses[LABEL == 1].sum().item() + sum(kept)) / (2 + count)
    assert make(hard_negatives=share)(LOGIT, LABEL).item() == pytest.approx(expected, rel=1e-6)
    assert sorted(hardest(losses, LABEL, share).tolist()) == pytest.approx(
        sorted([*losses[LABEL == 1].tolist(), *kept])
    )


def test_the_sampling_correction_is_its_closed_form() -> None:
    probability = torch.tensor([0.01, 0.3, 0.9], dtype=torch.float64)
    for rate in (0.05, 0.5, 1.0):
        corrected = correct_sampled(probability, rate)
        # it multiplies the odds by the rate
        torch.testing.assert_close(corrected / (1 - corrected), rate * probability / (1 - probability))
    assert torch.equal(correct_sampled(probability, 1.0), probability)


def test_a_model_trained_on_sampled_negatives_predicts_the_true_rate() -> None:
    label = (torch.arange(10_000) % 50 == 0).float()
    loss = make(label, negative_rate=0.1)
    rows = loss.rows.order(seed=1, epoch=0)
    logit = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(logit.expand(len(rows)), label[rows])
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert torch.sigmoid(logit).item() == pytest.approx(0.02, rel=1e-3)
    # without the shift it would have learnt the rate of the sample
    assert label[rows].mean().item() == pytest.approx(200 / 1180)
    assert correct_sampled(label[rows].mean(), 0.1).item() == pytest.approx(0.02, rel=1e-4)


def test_sampling_draws_other_negatives_in_each_epoch_and_repeats_itself() -> None:
    label = (torch.arange(1000) % 10 == 0).float()
    sampling = NegativeSampling(label, 0.3)
    assert (sampling.count, sampling.kept, sampling.rate) == (370, 270, 0.3)
    one, again, other = sampling.order(5, 0), sampling.order(5, 0), sampling.order(5, 1)
    assert torch.equal(one, again)
    for rows in (one, other):
        assert len(set(rows.tolist())) == 370
        assert int(label[rows].sum()) == 100
    assert set(one.tolist()) != set(other.tolist())
    assert NegativeSampling(label, 1e-9).kept == 1
    assert make(label, negative_rate=0.3).shift == pytest.approx(-math.log(0.3))
    assert make(label, negative_rate=0.3, kind="weighted").weights == (1.0, 2.7)
    assert make(label).rows == AllRows(1000)


@pytest.mark.parametrize("label", [torch.zeros(5), torch.ones(5)])
def test_labels_of_one_class_cannot_train(label: Tensor) -> None:
    with pytest.raises(DataError, match="all 5 training labels are of one class: give rows of both"):
        make(label)


@pytest.mark.parametrize(
    "values",
    [
        {"pos_weight": 0},
        {"pos_weight": "balanced"},
        {"gamma": -1},
        {"beta": 1},
        {"negative_rate": 0},
        {"hard_negatives": 1.1},
        {"label_smoothing": 1},
        {"kind": "hinge"},
    ],
)
def test_settings_refuse_what_is_no_loss(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LossSettings.model_validate(values)
