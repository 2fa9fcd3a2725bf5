"""What can be set for every detector: the metrics that it reads and the split in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from ocad.config import GateSettings, PluginConfig, Settings

Scale = Literal["log", "root"]
"""How a metric can be read; see `ocad.detection.scaling`."""

FEW_FALSE_ALARMS = GateSettings(
    name="held-out calibration holds on the test part", metric="false_alarm_rate_1pct", op="<=", threshold=0.05
)
"""The default gate: of the normal test rows at most 5 % are as surprising as 1 % of the held-out rows were."""


class SplitSettings(Settings):
    """Shares of each endpoint's rows in time order: the detector is fitted, then calibrated and tuned, then measured."""

    train: float = Field(default=0.4, gt=0, lt=1, description="share of each endpoint's rows, the oldest")
    validation: float = Field(default=0.2, gt=0, lt=1, description="share of the rows that follow, for the calibration")

    @model_validator(mode="after")
    def _room_for_test(self) -> SplitSettings:
        if self.train + self.validation >= 1:
            raise ValueError("`train` and `validation` leave no rows for test: their sum must be below 1")
        return self

    @property
    def shares(self) -> tuple[float, float, float]:
        """The shares of training, validation and test part."""
        return self.train, self.validation, 1 - self.train - self.validation


class DetectorConfig(PluginConfig):
    """What the configuration of every detector has."""

    gates: tuple[GateSettings, ...] = (FEW_FALSE_ALARMS,)
    metrics: tuple[str, ...] = Field(
        default=(), description="the columns that are read; empty: the one that `--metric` names"
    )
    split: SplitSettings = SplitSettings()
    pooled: bool = Field(
        default=False,
        description="one calibration for all endpoints together, where scores are relative to each already",
    )
    scales: Mapping[str, Scale] = Field(
        default={}, description="metrics that are read as `log`, as suits delays, or `root`, as suits shares of losses"
    )
