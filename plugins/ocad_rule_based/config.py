"""The rules, one section each; a rule's ratio is 1 where its threshold is reached, and a row scores its largest ratio."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from ocad.config import Settings
from ocad.detection.config import DetectorConfig


class LevelRule(Settings):
    """Distance from the endpoint's median, in robust deviations (1.4826 · MAD), as fitted for the hour of the day (UTC)."""

    sigmas: float = Field(default=6.0, gt=0, description="deviations at which the ratio is 1")
    floor: float = Field(default=0.01, ge=0, description="the least deviation, as a share of the median")
    hour_rows: int = Field(default=200, ge=1, description="fitted rows from which an hour has its own median")
    hour_days: int = Field(default=3, ge=1, description="days that those rows must come from")
    endpoint_rows: int = Field(default=50, ge=1, description="fitted rows from which an endpoint has its own median")


class JumpRule(Settings):
    """Difference from the last measured value, in robust deviations of the fitted differences."""

    sigmas: float = Field(default=8.0, gt=0, description="deviations at which the ratio is 1")


class LossRule(Settings):
    """Share of lost measurements among the last rows."""

    window: int = Field(default=10, ge=1, le=1000, description="rows that are looked back on")
    share: float = Field(default=0.3, gt=0, le=1, description="share of them lost at which the ratio is 1")


class Limits(Settings):
    """Absolute thresholds of a metric, in its unit; a value beyond one has a ratio above 1, whatever is usual."""

    low: float | None = Field(default=None, description="the lowest value that is allowed")
    high: float | None = Field(default=None, description="the highest value that is allowed")

    @model_validator(mode="after")
    def _in_order(self) -> Limits:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("`low` must be below `high`")
        return self


class RuleSettings(Settings):
    """All rules."""

    level: LevelRule = LevelRule()
    jump: JumpRule = JumpRule()
    loss: LossRule = LossRule()
    missed: Mapping[str, float] = Field(
        default={"ccm": 0.25},
        description="metrics that are shares of missed messages, each with the share at which the ratio is 1",
    )
    limits: Mapping[str, Limits] = Field(default={}, description="absolute thresholds by metric")

    @model_validator(mode="after")
    def _positive_shares(self) -> RuleSettings:
        for metric, share in self.missed.items():
            if not 0 < share <= 1:
                raise ValueError(f"the share of `{metric}` must be above 0 and at most 1")
        return self


class RuleConfig(DetectorConfig):
    """The configuration of the plugin `rule_based`."""

    rules: RuleSettings = RuleSettings()
