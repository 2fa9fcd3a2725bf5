"""What can be set for the plugin `logistic`."""

from __future__ import annotations

from pydantic import Field

from ocad.clicks.torch_config import ClickTraining, TorchClickConfig
from ocad.training.options import ScheduleName


class LogisticTraining(ClickTraining):
    """Training to convergence: the rate falls whenever an epoch brings nothing, until that brings nothing either."""

    epochs: int = Field(default=100, ge=1, description="the most passes over the training rows")
    learning_rate: float = Field(default=0.01, gt=0, description="the highest learning rate, reached after warm-up")
    schedule: ScheduleName = Field(default="plateau", description="how the learning rate falls")
    plateau_factor: float = Field(default=0.3, gt=0, lt=1, description="what `plateau` multiplies the rate by")
    plateau_patience: int = Field(default=0, ge=0, description="epochs without improvement that `plateau` forgives")


class LogisticConfig(TorchClickConfig):
    """The configuration of the plugin `logistic`."""

    train: LogisticTraining = LogisticTraining()
