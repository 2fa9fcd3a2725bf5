"""The rules, one section each; a row that reaches a threshold scores the alarm level, and others in proportion."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from ocad.config import Settings
from ocad.detection.config import DetectorConfig, LevelSettings
from ocad.detection.units import ALARM


class LevelRule(LevelSettings):
    """Distance from the level that is normal now, in robust deviations, of one row and of several.

    A single row counts less on a link where spikes are usual, so that they are no alarms.
    """

    sigmas: float = Field(default=ALARM, gt=0, description="deviations of a single row that are an alarm")
    lasting: float = Field(
        default=3.5, gt=0, description="deviations that are an alarm when `k` of the last `n` rows have them"
    )
    k: int = Field(default=3, ge=1, le=30, description="rows of the last `n` that must be that far out")
    n: int = Field(default=5, ge=1, le=30, description="rows that `k` is counted in")

    @model_validator(mode="after")
    def _in_order(self) -> LevelRule:
        if self.k > self.n:
            raise ValueError("`k` must not be above `n`")
        return self


class JumpRule(Settings):
    """Difference from the last measured value, in robust deviations of the fitted differences."""

    sigmas: float | None = Field(default=None, gt=0, description="deviations that are an alarm; none: no such rule")


class LossRule(Settings):
    """Share of lost measurements among the last rows."""

    window: int = Field(default=10, ge=1, le=1000, description="rows that are looked back on")
    share: float = Field(default=0.3, gt=0, le=1, description="share of them lost that is an alarm, whatever is usual")


class Limits(Settings):
    """Absolute thresholds of a metric, in its unit; a value beyond one is an alarm at once, whatever is usual."""

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
        description="metrics that are shares of missed messages, each with the share that is an alarm",
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
