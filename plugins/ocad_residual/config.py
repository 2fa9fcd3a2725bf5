"""What can be set for the plugin `residual`; each key is a line of `configs/residual/*.yaml` or a `--set`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ocad.config import Settings
from ocad.detection.config import DetectorConfig


class EvidenceSettings(Settings):
    """How residuals become one raw score."""

    normal_share: float | None = Field(
        default=0.98,
        gt=0,
        le=1,
        description="central share of the training values that forecasters see, values beyond it at its borders; null: all",
    )
    smoothing: float = Field(default=0.2, gt=0, le=1, description="weight of the newest residual in their average")
    limit: float = Field(default=8.0, gt=0, description="robust deviations at which a residual enters the average")
    combine: Literal["max", "root_sum"] = Field(
        default="max", description="over metrics: the strongest, or the root of the sum of squares"
    )


class ThresholdSettings(Settings):
    """Scores by a threshold that follows the stream, which is then an alarm; `none` leaves them in robust deviations."""

    kind: Literal["none", "spot", "dspot"] = Field(
        default="none", description="`dspot` follows a level that drifts (Siffer et al., KDD 2017)"
    )
    probability: float = Field(default=1e-3, gt=0, lt=0.02, description="share of normal rows above the threshold")
    depth: int = Field(default=50, ge=1, description="rows of the local mean of `dspot`")


class ResidualConfig(DetectorConfig):
    """The configuration of the plugin `residual`."""

    forecasters: tuple[str, ...] = Field(
        default=(),
        description="registered forecasters, at most one for each metric; others are forecast by an autoregression",
    )
    length: int = Field(default=10, ge=2, description="values that the autoregression forecasts from")
    evidence: EvidenceSettings = EvidenceSettings()
    threshold: ThresholdSettings = ThresholdSettings()

    @model_validator(mode="after")
    def _named_once(self) -> ResidualConfig:
        if len(set(self.forecasters)) < len(self.forecasters):
            raise ValueError("a forecaster is named twice in `forecasters`")
        return self
