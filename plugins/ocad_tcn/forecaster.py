"""The forecaster: raw values in, raw forecast out, all normalisation inside, so that serving cannot drift from training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ocad.errors import CheckpointError
from ocad.timeseries.scaling import Scaling
from ocad.training.checkpoint import load_checkpoint, save_checkpoint
from ocad_tcn.network import TemporalNetwork

if TYPE_CHECKING:
    from ocad.timeseries.baselines import LinearForecast


@dataclass(frozen=True, slots=True)
class Architecture:
    """All that is needed to build a forecaster before its weights are loaded."""

    length: int
    channels: tuple[int, ...]
    kernel: int
    dropout: float
    mean: float
    """Mean of the training series, in the metric's unit."""
    deviation: float
    """Standard deviation of the training series, in the metric's unit: the scale of losses and parity."""
    scaling: Scaling
    """How the network sees values."""
    relative: bool
    """Whether values count from the mean of their own window: a shift of the window then shifts the forecast alike."""


class Forecaster(nn.Module):
    """`(batch, length, 1)` raw values to the next one `(batch, 1)`: a linear forecast plus what the network adds.

    Absolute, the network sees each value and its distance from the mean of the window; relative, the distance alone.
    The linear part starts as the best baseline and the network's head at zero, so training starts at that baseline and
    keeping the best epoch on validation can only improve on it there.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.network = TemporalNetwork(
            1 if architecture.relative else 2, architecture.channels, architecture.kernel, architecture.dropout
        )
        self.head = nn.Linear(architecture.channels[-1], 1)
        self.linear = nn.Linear(architecture.length, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def start_from(self, baseline: LinearForecast) -> None:
        """Sets the linear part to `baseline`, on the standardised series; a relative one must have weights of sum 1."""
        mean, deviation = self.architecture.mean, self.architecture.deviation
        bias = (baseline.bias + mean * (baseline.weights.sum() - 1)) / deviation
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(baseline.weights).unsqueeze(0))
            self.linear.bias.fill_(bias)

    def standardised(self, window: Tensor) -> Tensor:
        """The forecast `(batch, 1)` in standard deviations from the mean, the scale of the loss."""
        features, middle = self._features(window)
        offset = (middle - self.architecture.mean) / self.architecture.deviation if self.architecture.relative else 0.0
        return self._combine(features, 1.0) + offset

    def forward(self, window: Tensor) -> Tensor:
        """The forecast `(batch, 1)` in the metric's unit."""
        features, middle = self._features(window)
        offset = middle if self.architecture.relative else self.architecture.mean
        return self._combine(features, self.architecture.deviation) + offset

    def _features(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """What the network makes of the window beside its standardised values, and the mean of the window, raw."""
        architecture, scaling = self.architecture, self.architecture.scaling
        values = window.flatten(1)
        middle = values.mean(dim=1, keepdim=True)
        around = values - middle
        seen = (around * (1 / scaling.scale)).unsqueeze(1)
        if not architecture.relative:
            seen = torch.cat([((values - scaling.center) * (1 / scaling.scale)).unsqueeze(1), seen], dim=1)
        if scaling.kind == "log":
            seen = torch.sign(seen) * torch.log1p(torch.abs(seen))
        plain = (around if architecture.relative else values - architecture.mean) * (1 / architecture.deviation)
        return torch.cat([self.network(seen), plain], dim=1), middle

    def _combine(self, features: Tensor, unit: float) -> Tensor:
        """Head and linear part as one product, in `unit`: the fewest steps in the exported graph."""
        weight = torch.cat([self.head.weight, self.linear.weight], dim=1) * unit
        return functional.linear(features, weight, (self.head.bias + self.linear.bias) * unit)


def build(architecture: Architecture, baseline: LinearForecast, seed: int) -> Forecaster:
    """A forecaster with weights drawn from `seed` and its linear part at `baseline`."""
    torch.manual_seed(seed)
    forecaster = Forecaster(architecture)
    forecaster.start_from(baseline)
    return forecaster


def save_forecaster(path: Path, forecaster: Forecaster, metric: str) -> None:
    """Writes architecture and weights to `path`; `load_forecaster` needs nothing else."""
    save_checkpoint(
        path, {"metric": metric, "architecture": asdict(forecaster.architecture), "model": forecaster.state_dict()}
    )


def load_forecaster(path: Path) -> tuple[Forecaster, str]:
    """The forecaster in `path`, ready to answer, and its metric; raises `CheckpointError` when there is none."""
    saved = load_checkpoint(path)
    try:
        values: dict[str, Any] = saved["architecture"]
        scaling, channels = Scaling(**values["scaling"]), tuple(values["channels"])
        forecaster = Forecaster(Architecture(**(values | {"scaling": scaling, "channels": channels})))
        forecaster.load_state_dict(saved["model"])
    except (KeyError, TypeError, RuntimeError):
        raise CheckpointError(
            f"`{path}` holds no forecaster of this plugin", "give a `model.pth` that the plugin `tcn` exported"
        ) from None
    return forecaster.eval(), str(saved.get("metric", ""))
