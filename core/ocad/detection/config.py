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
"""A default gate: of the normal test rows at most 5 % score what 1 % of the held-out rows reached."""
FINDS_OUTAGES = GateSettings(name="outages are found", metric="power_loss", op=">=", threshold=0.9)
"""A default gate: of outages put into the test part at least nine in ten are found."""
FINDS_SHIFTS = GateSettings(name="shifts are found", metric="power_shift", op=">=", threshold=0.25)
"""A default gate: of shifts by 12 local noise units put into the test part at least a quarter is found, or it is no detector."""
ENOUGH_HELD_OUT = GateSettings(
    name="enough held-out rows to calibrate on", metric="held_out_rows", op=">=", threshold=100
)
"""A default gate: what fewer rows say of rare scores is worth nothing."""
DETECTOR_GATES = (FEW_FALSE_ALARMS, FINDS_OUTAGES, FINDS_SHIFTS, ENOUGH_HELD_OUT)


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


Direction = Literal["auto", "both", "up"]
"""Which values out of the ordinary count: `auto` only high ones of delays and shares, either of any other metric."""


class LevelSettings(Settings):
    """How the level and the deviation that are normal now move along; see `ocad.detection.level`."""

    floor: float = Field(default=0.0, ge=0, description="the least deviation, as a share of the level")
    block: int = Field(default=6, ge=2, description="rows whose median is one vote on the level")
    memory: int = Field(
        default=10, ge=0, description="votes that the level is the median of; 0: the level never moves after training"
    )
    trust: int = Field(default=3, ge=1, description="votes that the fitted level has when scoring begins")
    season: bool = Field(
        default=True, description="take off the rhythm of the day where fitted days foretell each other"
    )
    log: bool = Field(
        default=True, description="read delays that are always above 0 as their logarithm, as they vary by factors"
    )
    direction: Direction = Field(
        default="auto", description="`auto`: only high values of delays and shares count, either of other metrics"
    )


class DetectorConfig(PluginConfig):
    """What the configuration of every detector has."""

    gates: tuple[GateSettings, ...] = DETECTOR_GATES
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
