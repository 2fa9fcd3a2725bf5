"""What can be set for the plugin `subspace`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ocad.config import Settings
from ocad.detection.config import DetectorConfig


class PcaSettings(Settings):
    """T² and Q on principal components, fitted once."""

    windows: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1,),
        min_length=1,
        description="rows that the averages of each metric span, one average each; 1: the row itself",
    )
    variance: float = Field(default=0.7, gt=0, lt=1, description="share of the variance that the components keep")
    clip: float = Field(default=20.0, gt=0, description="robust deviations beyond which a value says no more")
    missing: float = Field(default=5.0, ge=0, description="robust deviations that a missing value counts as")
    held_out: float = Field(
        default=0.25, gt=0, lt=1, description="share of the fitted rows, the newest, for the limits"
    )
    spans: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 4, 16, 64),
        min_length=1,
        description="rows that the averages of log φ span, from short to long; the one that says most counts",
    )

    @field_validator("spans")
    @classmethod
    def _rising(cls, spans: tuple[int, ...]) -> tuple[int, ...]:
        if list(spans) != sorted(set(spans)):
            raise ValueError(f"`spans` must rise: {', '.join(map(str, spans))}")
        return spans


class RankSettings(Settings):
    """Ranks of level, change and loss of each metric among those seen before, learning on as rows arrive."""

    smoothing: int = Field(default=20, ge=1, description="rows that the averages of level, change and loss span")
    memory: int = Field(default=10_000, ge=100, description="rows that a new one is compared with, the newest")


class SubspaceConfig(DetectorConfig):
    """The configuration of the plugin `subspace`."""

    method: Literal["auto", "pca", "rank"] = Field(
        default="auto",
        description="`pca` is fitted once; `rank` goes on learning, which suits series that change;"
        " `auto`: `rank` for one metric, which no other goes with, else `pca`",
    )
    pca: PcaSettings = PcaSettings()
    rank: RankSettings = RankSettings()
