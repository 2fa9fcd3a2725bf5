"""Losses of click models on log-odds, chosen by `LossSettings`."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from ocad.errors import DataError
from ocad.training.options import LossSettings
from ocad.training.sampling import AllRows, EpochRows, NegativeSampling


class ClickLoss:
    """The loss that `settings` ask for, with what depends on the training labels `(n,)` (0 or 1) fixed once.

    `rows` are the rows of each epoch: pass them to `Objective`. Raises `DataError` when all labels are of one class.
    """

    def __init__(self, settings: LossSettings, label: Tensor) -> None:
        positives = int((label > 0.5).sum())
        negatives = label.numel() - positives
        if not positives or not negatives:
            raise DataError(f"all {label.numel()} training labels are of one class", "give rows of both")
        self.settings = settings
        self.rows: EpochRows = AllRows(label.numel())
        # under sampling the network is trained on odds that are 1 / rate too high, so that its own are right
        self.shift = 0.0
        if settings.negative_rate < 1:
            self.rows = sampled = NegativeSampling(label, settings.negative_rate)
            self.shift, negatives = -math.log(sampled.rate), sampled.kept
        self.weights = _class_weights(settings, negatives, positives)

    def __call__(self, logit: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch in nats: `logit`, `label` and `weight` hold one value per row.

        It is the mean over rows of `weight` times a row's loss; with hard-negative mining, over the rows that count.
        """
        scores, truth = logit.float().reshape(-1) + self.shift, label.float().reshape(-1)
        losses = self._row_losses(scores, truth)
        if weight is not None:
            losses = losses * weight.reshape(-1)
        if self.settings.hard_negatives < 1:
            losses = hardest(losses, truth, self.settings.hard_negatives)
        return losses.mean()

    def _row_losses(self, logit: Tensor, label: Tensor) -> Tensor:
        target = smoothed(label, self.settings.label_smoothing)
        if self.settings.kind == "focal":
            return focal_losses(logit, target, self.settings.gamma)
        losses = functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
        negative, positive = self.weights
        if negative == positive == 1.0:
            return losses
        return losses * (negative + (positive - negative) * label)


def smoothed(label: Tensor, share: float) -> Tensor:
    """The label with `share` of it spread evenly over both classes: y (1 - share) + share / 2 (Szegedy et al. 2016)."""
    return label * (1 - share) + share / 2 if share else label


def focal_losses(logit: Tensor, target: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^γ log p for clicks, -p^γ log(1 - p) for the rest, mixed by a soft `target` (Lin et al. 2017)."""
    log_click, log_rest = functional.logsigmoid(logit), functional.logsigmoid(-logit)
    # powers as exponentials of logarithms: no gradient of 0^γ
    clicked = target * torch.exp(gamma * log_rest) * log_click
    rest = (1 - target) * torch.exp(gamma * log_click) * log_rest
    return -(clicked + rest)


def hardest(losses: Tensor, label: Tensor, share: float) -> Tensor:
    """The losses of all positives and of the `share` of negatives with the highest ones (Shrivastava et al. 2016, OHEM).

    What is left out moves the odds, so the model needs calibration.
    """
    negative = label < 0.5
    missed = losses[negative]
    kept = torch.topk(missed, math.ceil(share * len(missed)), sorted=False).values
    return torch.cat([losses[~negative], kept])


def correct_sampled(probability: Tensor, rate: float) -> Tensor:
    """The true probability from that of a model trained on a share `rate` of negatives: p / (p + (1 - p) / rate).

    He et al. (2014). `ClickLoss` trains so that the model needs no correction; this is for models that were not.
    """
    return probability / (probability + (1 - probability) / rate)


def _class_weights(settings: LossSettings, negatives: int, positives: int) -> tuple[float, float]:
    """The weights of a negative and a positive row."""
    if settings.kind == "weighted":
        auto = settings.pos_weight == "auto"
        return 1.0, negatives / positives if auto else cast("float", settings.pos_weight)
    if settings.kind == "class_balanced" and settings.beta > 0:
        # the effective number of n rows is (1 - β^n) / (1 - β); weights sum to the number of classes
        inverse = [
            (1 - settings.beta) / -math.expm1(count * math.log(settings.beta)) for count in (negatives, positives)
        ]
        return 2 * inverse[0] / sum(inverse), 2 * inverse[1] / sum(inverse)
    return 1.0, 1.0
