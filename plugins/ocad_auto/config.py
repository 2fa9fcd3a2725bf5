"""What can be set for the plugin `auto`; each key is a line of `configs/auto/*.yaml` or a `--set`."""

from __future__ import annotations

from pydantic import Field

from ocad.config import Settings
from ocad.detection.config import DetectorConfig


class ChoiceSettings(Settings):
    """How detectors are picked and weighted."""

    detectors: tuple[str, ...] = Field(
        default=("changepoint", "rule_based", "residual", "subspace"),
        min_length=1,
        description="plugins that are tried; the first is what stays where no mixture is shown to be better",
    )
    other_than_links: str | None = Field(
        default="subspace",
        description="the one of them that goes first where no metric is a delay or a share of losses",
    )
    magnitude: float = Field(default=8.0, gt=0, description="noise units of the incidents that are injected")
    prevalence: float = Field(default=0.1, gt=0, le=0.1, description="most rows that an injected incident may touch")
    folds: int = Field(default=4, ge=2, description="blocks of time that rules are chosen without and judged on")
    joint_metrics: int = Field(default=3, ge=2, description="metrics of links from which `subspace` is tried")


class AutoConfig(DetectorConfig):
    """The configuration of the plugin `auto`."""

    choice: ChoiceSettings = ChoiceSettings()
