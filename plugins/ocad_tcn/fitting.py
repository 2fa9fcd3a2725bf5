"""One training of one candidate: what a trial and the final run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ocad.timeseries.baselines import LinearForecast, centred_autoregression, fit_baselines
from ocad.timeseries.scaling import ScalingKind, fit_scaling
from ocad.timeseries.typical import chosen, fit_typical
from ocad.timeseries.windows import Windows
from ocad.training.batches import Batch
from ocad.training.loop import FitResult, Objective, Reporting, fit, mean_loss
from ocad_tcn.forecaster import Architecture, Forecaster, build

if TYPE_CHECKING:
    from ocad.training.options import TrainOptions
    from ocad_tcn.config import TcnConfig

LINEAR_RATE = 0.1
"""The linear part learns at this share of the rate, without decay: it starts at its own least-squares optimum."""


@dataclass(frozen=True, slots=True)
class View:
    """How a network sees the series: under which scaling, and whether the level of a window counts."""

    scaling: ScalingKind
    relative: bool

    def __str__(self) -> str:
        return f"{self.scaling}, {'relative' if self.relative else 'absolute'}"


@dataclass(frozen=True)
class Material:
    """What every training of a run shares: the typical rows of the training part, and of validation."""

    config: TcnConfig
    train: Windows
    validation: Windows

    @classmethod
    def of(cls, config: TcnConfig, train: Windows, validation: Windows) -> Material:
        """The typical rows of both parts."""
        typical = fit_typical(train)
        return cls(config, chosen(train, typical.within(train)), chosen(validation, typical.steady(validation)))

    @cached_property
    def baselines(self) -> tuple[LinearForecast, ...]:
        """Where training may start."""
        return *fit_baselines(self.train), centred_autoregression(self.train)

    def start(self, relative: bool) -> LinearForecast:
        """The baseline with the lowest squared error on validation, among those that a relative view can express."""

        def error(baseline: LinearForecast) -> float:
            return float(np.mean((baseline.predict(self.validation.sequence) - self.validation.target) ** 2))

        return min((one for one in self.baselines if one.follows_shifts or not relative), key=error)

    def architecture(self, view: View) -> Architecture:
        """The architecture under `view`, all statistics from the training part."""
        network, series = self.config.network, self.train.target
        return Architecture(
            length=self.config.windows.length,
            channels=network.channels,
            kernel=network.kernel,
            dropout=network.dropout,
            mean=float(series.mean()),
            deviation=float(series.std()),
            scaling=fit_scaling(view.scaling, series),
            relative=view.relative,
        )


def fit_forecaster(
    material: Material,
    view: View,
    options: TrainOptions,
    folder: Path,
    *,
    seed: int,
    reporting: Reporting | None = None,
    resume: bool = False,
) -> tuple[Forecaster, FitResult]:
    """A forecaster under `view`, trained with `options`, its files under `folder`."""
    forecaster = build(material.architecture(view), material.start(view.relative), seed)
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
