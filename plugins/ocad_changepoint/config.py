"""What can be set for the plugin `changepoint`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ocad.config import Settings
from ocad.detection.config import DetectorConfig


class CusumSettings(Settings):
    """The sums and the level that they are taken around."""

    window: int = Field(
        default=30,
        ge=2,
        le=500,
        description="rows that a sum looks back on at most, so that it ends soon after the change",
    )
    drift: float = Field(
        default=1.0, gt=0, description="deviations that each row must exceed to add to a sum: half the shift sought"
    )
    clip: float = Field(default=6.0, gt=0, description="the most deviations that one row counts for")
    floor: float = Field(default=0.01, ge=0, description="the least deviation, as a share of the level")
    direction: Literal["both", "up"] = Field(
        default="both", description="`up`: only values above the level count, as of delays; lost rows always do"
    )
    lost_share: float = Field(default=0.2, gt=0, lt=1, description="the share of lost rows that is sought, at least")
    block: int = Field(default=30, ge=2, description="rows whose median is one vote on the level")
    memory: int = Field(
        default=20, ge=0, description="votes that the level is the median of; 0: the level never moves after training"
    )
    trust: int = Field(default=3, ge=1, description="votes that the fitted level has when scoring begins")


class ChangepointConfig(DetectorConfig):
    """The configuration of the plugin `changepoint`."""

    cusum: CusumSettings = CusumSettings()
