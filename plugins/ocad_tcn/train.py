"""Training: the scaling chosen on validation, then the shared torch loop. `ocad_train`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ocad.contexts import Trained
from ocad.timeseries.baselines import LinearForecast, fit_baselines
from ocad.timeseries.scaling import SCALINGS, ScalingKind, fit_scaling
from ocad.timeseries.windows import Windows, read_windows
from ocad.training.batches import Batch
from ocad.training.loop import FitResult, Objective, Reporting, fit, mean_loss
from ocad_tcn.forecaster import Architecture, Forecaster, build
from ocad_tcn.predictor import TorchForecaster
from ocad_tcn.prepare import metric_of

if TYPE_CHECKING:
    from ocad.contexts import PreparedData, RunContext
    from ocad.training.options import TrainOptions
    from ocad_tcn.config import TcnConfig

LINEAR_RATE = 0.1
"""The linear part learns at this share of the rate, without decay: it starts at its own least-squares optimum."""


@dataclass(frozen=True, slots=True)
class TrainedForecaster:
    """The plugin's handle on a trained model: with the windows that its export is proven on."""

    forecaster: Forecaster
    metric: str
    unit: str
    validation: Windows


@dataclass(frozen=True, slots=True)
class Material:
    """What every trial of a run shares."""

    config: TcnConfig
    train: Windows
    validation: Windows
    baseline: LinearForecast

    def architecture(self, kind: ScalingKind) -> Architecture:
        """The architecture under the scaling `kind`, all statistics from the training part."""
        network, series = self.config.network, self.train.target
        return Architecture(
            length=self.config.windows.length,
            channels=network.channels,
            kernel=network.kernel,
            dropout=network.dropout,
            mean=float(series.mean()),
            deviation=float(series.std()),
            scaling=fit_scaling(kind, series),
        )


def train(context: RunContext, data: PreparedData) -> Trained:
    """Trains a forecaster; `trained.model` is a `TrainedForecaster`."""
    windows = {part: read_windows(data.splits[part]) for part in ("train", "validation")}
    config = cast("TcnConfig", context.config)
    baseline = best_baseline(windows["train"], windows["validation"])
    material = Material(config, windows["train"], windows["validation"], baseline)
    metric = metric_of(context)
    kind = choose_scaling(material, context)
    resume = context.resume and (context.run / "checkpoints" / "last.pth").is_file()
    reporting = Reporting(context.progress, context.epoch_ended, f"training tcn on {metric}")
    forecaster, result = train_forecaster(
        material, kind, config.train, context.run, seed=context.seed, reporting=reporting, resume=resume
    )
    handle = TrainedForecaster(forecaster, metric, context.data.unit_of(metric), windows["validation"])
    predictor = TorchForecaster(forecaster, handle.unit)
    return Trained(predictor, handle, list(result.history), dict(result.checkpoints))


def train_forecaster(
    material: Material,
    kind: ScalingKind,
    options: TrainOptions,
    folder: Path,
    *,
    seed: int,
    reporting: Reporting | None = None,
    resume: bool = False,
) -> tuple[Forecaster, FitResult]:
    """A forecaster under the scaling `kind`, trained with `options`, its files under `folder`."""
    forecaster = build(material.architecture(kind), material.baseline, seed)
    validation = as_tensors(material.validation, forecaster)
    result = fit(
        forecaster,
        as_tensors(material.train, forecaster),
        Objective(squared_error, mean_loss(squared_error, validation)),
        options,
        folder,
        seed=seed,
        groups=parameter_groups(forecaster, options.learning_rate),
        reporting=reporting,
        resume=resume,
    )
    return forecaster, result


def best_baseline(train: Windows, validation: Windows) -> LinearForecast:
    """The baseline with the lowest squared error on `validation`: where training starts."""

    def error(baseline: LinearForecast) -> float:
        return float(np.mean((baseline.predict(validation.sequence) - validation.target) ** 2))

    return min(fit_baselines(train), key=error)


def choose_scaling(material: Material, context: RunContext) -> ScalingKind:
    """The configured scaling; for `auto` the one whose short trial has the lowest validation loss, kept in the run."""
    configured = material.config.network.scaling
    if configured != "auto":
        return configured
    record = context.run / "trials" / "scaling.json"
    if not (context.resume and record.is_file()):
        epochs = min(material.config.network.trial_epochs, material.config.train.epochs)
        options = material.config.train.model_copy(update={"epochs": epochs})
        losses = {}
        for kind in SCALINGS:
            reporting = Reporting(context.progress, label=f"trying the scaling {kind}")
            folder = context.run / "trials" / kind
            _, result = train_forecaster(material, kind, options, folder, seed=context.seed, reporting=reporting)
            losses[kind] = result.best_value
        record.write_text(json.dumps({"chosen": min(losses, key=losses.__getitem__), "val_loss": losses}, indent=2))
    return cast("ScalingKind", json.loads(record.read_text(encoding="utf-8"))["chosen"])


def as_tensors(windows: Windows, forecaster: Forecaster) -> Batch:
    """`window` `(n, length, 1)` raw and `target` `(n, 1)` standardised, both float32."""
    architecture = forecaster.architecture
    target = (windows.target - architecture.mean) / architecture.deviation
    return {
        "window": torch.from_numpy(windows.sequence[:, :, None].astype(np.float32)),
        "target": torch.from_numpy(target[:, None].astype(np.float32)),
    }


def squared_error(model: nn.Module, batch: Batch) -> Tensor:
    """The mean squared error on the standardised series."""
    return functional.mse_loss(cast("Forecaster", model).standardised(batch["window"]), batch["target"])


def parameter_groups(forecaster: Forecaster, learning_rate: float) -> list[dict[str, Any]]:
    """The network under the common settings, the linear part slower and without decay."""
    network = [*forecaster.network.parameters(), *forecaster.head.parameters()]
    linear: Mapping[str, Any] = {"params": list(forecaster.linear.parameters()), "weight_decay": 0.0}
    return [{"params": network}, {**linear, "lr": learning_rate * LINEAR_RATE}]
