"""What can be set for the plugin `isolation_forest`; each key is a line of `configs/isolation_forest/*.yaml` or a `--set`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ocad.config import Settings
from ocad.detection.config import DetectorConfig

CONTAMINATIONS = (0.05, 0.1, 0.15)
"""What `auto` chooses from."""
DEFAULT_CONTAMINATION = 0.1
"""What `auto` means where the validation part has no labels of both classes."""


class ForestSettings(Settings):
    """The forest (Liu, Ting and Zhou 2008)."""

    n_estimators: int = Field(default=100, ge=1, le=1000, description="trees")
    max_samples: int = Field(default=256, ge=2, description="rows that each tree is grown on")
    contamination: Annotated[float, Field(gt=0, le=0.5)] | Literal["auto"] = Field(
        default="auto",
        description="share of rows given a value out of the ordinary before the trees are grown; `auto` chooses 0.05, 0.1 or"
        " 0.15 by average precision where the validation part is labelled, and else takes 0.1",
    )


class IsolationForestConfig(DetectorConfig):
    """The configuration of the plugin `isolation_forest`."""

    forest: ForestSettings = ForestSettings()
