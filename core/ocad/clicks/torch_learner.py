"""Trains a network of log-odds in the shared torch loop and exports it with its calibrator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ocad.calibration.calibrators import fit_platt, sigmoid
from ocad.clicks.model import IDS, LOGIT, NUMERICS, PROBABILITY, Fitted, InputShape
from ocad.contexts import Artifact
from ocad.export.onnx import export_onnx
from ocad.metrics.probability import logloss
from ocad.metrics.ranking import auc
from ocad.training.batches import Batch
from ocad.training.checkpoint import save_checkpoint
from ocad.training.loop import FitResult, Objective, Reporting, Validate, fit
from ocad.training.losses import ClickLoss

if TYPE_CHECKING:
    from ocad.calibration.calibrators import Calibrator
    from ocad.clicks.torch_config import TorchClickConfig
    from ocad.contexts import RunContext
    from ocad.protocols import Arrays
    from ocad.tabular.dataset import Clicks
    from ocad.training.options import LossSettings

LABEL, WEIGHT = "label", "weight"
VALIDATION_BATCH = 8192
WEIGHTS_FILE = "model.pth"
REFIT = "refit"
"""The folder in the run of the training on all rows."""

Build = Callable[[InputShape, "TorchClickConfig"], nn.Module]
"""`build(shape, config)`: a network whose `forward(ids, numerics)` gives log-odds `(n,)`; absent inputs are None."""


_Trained = tuple["TorchScorer", FitResult]


class TorchLearner:
    """The learner of a plugin that only writes its network. See `ocad.clicks.model.Learner`."""

    def __init__(self, build: Build) -> None:
        self._build = build

    def fit(self, context: RunContext, train: Clicks, validation: Clicks, shape: InputShape) -> Fitted:
        """The network at the epoch of best validation."""
        config = cast("TorchClickConfig", context.config)
        measure = watch(validation, shape, calibrated=bends_odds(config.loss))

        def train_on(rows: Clicks, folder: Path, reporting: Reporting, follow: FitResult | None = None) -> _Trained:
            torch.manual_seed(context.seed)
            network, training = self._build(shape, config), as_tensors(rows, shape)
            objective = _objective(config.loss, training, measure)
            resume = context.resume and (folder / "checkpoints" / "last.pth").is_file()
            result = fit(
                network,
                training,
                objective,
                config.train,
                folder,
                seed=context.seed,
                reporting=reporting,
                resume=resume,
                follow=follow,
            )
            return TorchScorer(network, shape), result

        label = f"training {context.plugin}"
        scorer, found = train_on(train, context.run, Reporting(context.progress, context.epoch_ended, label))

        def again(rows: Clicks) -> TorchScorer:
            quiet = Reporting(context.progress, label=f"{label} on all rows")
            return train_on(rows, context.run / REFIT, quiet, found)[0]

        return Fitted(scorer, list(found.history), dict(found.checkpoints), again)


class TorchScorer:
    """A trained network. See `ocad.clicks.model.Scorer`."""

    def __init__(self, network: nn.Module, shape: InputShape) -> None:
        self.network, self._shape = network.eval(), shape

    def logit(self, inputs: Arrays) -> NDArray[np.float64]:
        """See `Scorer`."""
        return self._ask(self.network, inputs, torch.float32)

    def exact_logit(self, inputs: Arrays) -> NDArray[np.float64]:
        """See `Scorer`."""
        return self._ask(copy.deepcopy(self.network).double(), inputs, torch.float64)

    def export(self, calibrator: Calibrator, folder: Path) -> list[Artifact]:
        """See `Scorer`; the weights go to `model.pth`."""
        served = Served(self.network, calibrator.as_module(), self._shape.inputs)
        tensors = {IDS: torch.tensor([self._shape.offsets]), NUMERICS: torch.zeros(1, len(self._shape.fills))}
        example = {name: tensors[name] for name in self._shape.inputs}
        artifacts = export_onnx(served, example, folder, [LOGIT, PROBABILITY])
        weights = folder / WEIGHTS_FILE
        save_checkpoint(weights, {"model": self.network.state_dict(), "shape": asdict(self._shape)})
        return [*artifacts, Artifact(weights, "weights")]

    def _ask(self, network: nn.Module, inputs: Arrays, numbers: torch.dtype) -> NDArray[np.float64]:
        ids, numerics = (
            torch.from_numpy(np.ascontiguousarray(inputs[name])) if name in inputs else None for name in (IDS, NUMERICS)
        )
        with torch.inference_mode():
            logit: Tensor = network(ids, None if numerics is None else numerics.to(numbers))
        return logit.numpy().astype(np.float64)


class Served(nn.Module):
    """The network and its calibrator: the inputs that there are to `logit` and `probability`, `(n, 1)` each."""

    def __init__(self, network: nn.Module, calibrator: nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.calibrator, self.inputs = network, calibrator, inputs

    def forward(self, first: Tensor, second: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`first` and `second` are the inputs in the order of the signature."""
        given = dict(zip(self.inputs, (first, second), strict=False))
        logit = self.network(given.get(IDS), given.get(NUMERICS)).unsqueeze(1)
        return logit, self.calibrator(logit)


def as_tensors(clicks: Clicks, shape: InputShape) -> Batch:
    """The rows as tensors that share memory with `clicks`."""
    arrays: dict[str, NDArray[Any]] = {**shape.arrays(clicks.ids, clicks.numerics), LABEL: clicks.label}
    if clicks.weight is not None:
        arrays[WEIGHT] = clicks.weight
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def bends_odds(loss: LossSettings) -> bool:
    """Whether a network of this loss predicts other odds than the log's, so that only calibration makes them true."""
    return loss.kind != "log_loss" or loss.label_smoothing > 0 or loss.hard_negatives < 1


def _objective(settings: LossSettings, training: Batch, validate: Validate) -> Objective:
    """The loss of click models on `training`; the initial network, which has learned nothing, is never the best."""
    loss = ClickLoss(settings, training[LABEL])

    def click_loss(model: nn.Module, batch: Batch) -> Tensor:
        return loss(model(batch.get(IDS), batch.get(NUMERICS)), batch[LABEL], batch.get(WEIGHT))

    return Objective(click_loss, validate, rows=loss.rows, initial=False)


def watch(validation: Clicks, shape: InputShape, calibrated: bool = False) -> Validate:
    """`val_loss` (log loss) and `val_auc` of a network on the validation part; with `calibrated` the loss after Platt scaling."""
    data = as_tensors(validation, shape)

    def measure(network: nn.Module) -> dict[str, float]:
        parts = []
        for start in range(0, len(validation), VALIDATION_BATCH):
            rows = {name: tensor[start : start + VALIDATION_BATCH] for name, tensor in data.items()}
            parts.append(network(rows.get(IDS), rows.get(NUMERICS)))
        logit = torch.cat(parts).double().numpy()
        probability = sigmoid(logit)
        if calibrated:
            probability = fit_platt(logit, validation.label, validation.weight).apply(logit)
        return {
            "val_loss": logloss(validation.label, probability, validation.weight),
            "val_auc": auc(validation.label, logit, validation.weight),
        }

    return measure
