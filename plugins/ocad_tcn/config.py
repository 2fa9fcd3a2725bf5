"""What can be set for the plugin `tcn`; each key is a line of `configs/tcn/*.yaml` or a `--set`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ocad.config import GateSettings, PluginConfig, Settings
from ocad.training.options import TrainOptions

NOT_WORSE = GateSettings(
    name="not worse than the best baseline", metric="skill_vs_best_baseline_high", op=">", threshold=0.0
)
"""The 95 % interval of the skill over the best baseline reaches above zero."""
TYPICAL_NOT_WORSE = GateSettings(
    name="on typical rows not worse than the best baseline",
    metric="typical_skill_vs_best_baseline_high",
    op=">",
    threshold=0.0,
)
"""The same without the rows around values that are out of all proportion, which own a squared error."""
BETTER_THAN_NAIVE = GateSettings(
    name="on typical rows better than the last value", metric="typical_skill_vs_naive", op=">", threshold=0.0
)
"""A model that only repeats what it saw last is no model."""


class WindowSettings(Settings):
    """Windows and the split in time order, the same for each endpoint."""

    length: int = Field(default=10, ge=2, description="values that a forecast is made from")
    train: float = Field(default=0.7, gt=0, lt=1, description="share of each endpoint's rows, the oldest")
    validation: float = Field(
        default=0.15, gt=0, lt=1, description="share of the rows that follow; the rest is for test"
    )
    gap: int = Field(default=20, ge=0, description="rows left out between two parts")
    incidents: bool = Field(
        default=True,
        description="whether windows may hold rows labelled 1; without them a forecaster learns what is normal",
    )

    @model_validator(mode="after")
    def _room_for_test(self) -> WindowSettings:
        if self.train + self.validation >= 1:
            raise ValueError("`train` and `validation` leave no rows for test: their sum must be below 1")
        return self

    @property
    def shares(self) -> tuple[float, float, float]:
        """The shares of training, validation and test part."""
        return self.train, self.validation, 1 - self.train - self.validation


class NetworkSettings(Settings):
    """The network: a block of two convolutions for each entry of `channels`, with dilations 1, 2, 4, …"""

    channels: tuple[int, ...] = Field(default=(32, 32, 32), min_length=1, description="width of each block")
    kernel: int = Field(default=3, ge=2, description="taps of each convolution")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of hidden values dropped in training")
    scaling: Literal["auto", "standard", "robust", "log"] = Field(
        default="auto", description="how the network sees values; `auto` chooses on validation"
    )
    view: Literal["auto", "absolute", "relative"] = Field(
        default="auto",
        description="whether the level of a window counts, or only its shape; `auto` chooses on validation",
    )
    trial_epochs: int = Field(default=5, ge=1, description="epochs of each trial of `auto`")


class TcnConfig(PluginConfig):
    """The configuration of the plugin `tcn`."""

    gates: tuple[GateSettings, ...] = (NOT_WORSE, TYPICAL_NOT_WORSE, BETTER_THAN_NAIVE)
    windows: WindowSettings = WindowSettings()
    network: NetworkSettings = NetworkSettings()
    train: TrainOptions = TrainOptions(epochs=30, batch_size=512, learning_rate=2e-3, patience=8)
