"""The configuration of the report, `configs/detection/report.yaml`: what the measured figures are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self, cast

from pydantic import model_validator

from ocad.config import PluginConfig, Settings, load_config
from ocad.project import project_root

CONFIG_FILE = "configs/detection/report.yaml"
Figure = Literal["event_precision", "event_recall", "event_f1", "point_fpr", "latency_p99_us"]


class Goal(Settings):
    """A bound that a figure must be `above` or `below`; one of the two."""

    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("give either `above` or `below`")
        return self

    def met(self, value: float) -> bool:
        """Whether `value` is on the right side."""
        return value > self.above if self.above is not None else self.below is not None and value < self.below

    def __str__(self) -> str:
        return f"> {self.above:g}" if self.above is not None else f"< {self.below:g}"


class ReportSettings(Settings):
    """`goals` by figure; a figure without one is shown without a verdict."""

    goals: Mapping[Figure, Goal] = {
        "event_precision": Goal(above=0.95),
        "event_recall": Goal(above=0.85),
        "event_f1": Goal(above=0.9),
        "point_fpr": Goal(below=0.05),
        "latency_p99_us": Goal(below=1000),
    }


def report_settings() -> ReportSettings:
    """The settings in the project's file, else the defaults; raises `ConfigError` naming the key that does not fit."""
    file = project_root() / CONFIG_FILE
    # load_config reads any Settings; its signature names the subclass that most of its callers have
    return cast(ReportSettings, load_config(cast(type[PluginConfig], ReportSettings), file if file.is_file() else None))
