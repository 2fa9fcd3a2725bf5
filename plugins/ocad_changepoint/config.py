"""What can be set for the plugin `changepoint`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from ocad.detection.config import DetectorConfig, LevelSettings


class CusumSettings(LevelSettings):
    """The sums and the level that they are taken around."""

    window: int = Field(
        default=15,
        ge=2,
        le=500,
        description="rows that a sum looks back on at most, so that it ends soon after the change",
    )
    shortest: int = Field(
        default=1, ge=1, description="rows that a sum spans at least, so that one or two far ones alone mean little"
    )
    drift: float = Field(
        default=1.5, gt=0, description="deviations that each row must exceed to add to a sum: half the shift sought"
    )
    clip: float = Field(default=6.0, gt=0, description="the most deviations that one row counts for")
    together: tuple[tuple[str, ...], ...] = Field(
        default=(),
        description="groups of metrics whose deviations are summed up together as well, so that little in each is seen",
    )
    peers: Mapping[str, float] = Field(
        default={},
        description="metrics that the endpoints share a cause for, such as their prober's host, each with the share of the"
        " others' deviation that is taken off an endpoint's own",
    )
    peer_weight: float = Field(
        default=0.3, gt=0, le=1, description="weight of the newest row in the average of the others' deviations"
    )
    prompt: bool = Field(
        default=True,
        description="a sum to which the row itself adds nothing counts for nothing, so that alarms end soon",
    )
    least: Mapping[str, float] = Field(
        default={}, description="the least deviation of a metric, in the unit or scale that it is read in"
    )

    @model_validator(mode="after")
    def _in_order(self) -> CusumSettings:
        if self.shortest > self.window:
            raise ValueError("`shortest` must not be above `window`")
        return self


class ChangepointConfig(DetectorConfig):
    """The configuration of the plugin `changepoint`."""

    cusum: CusumSettings = CusumSettings()
