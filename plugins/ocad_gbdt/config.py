"""What can be set for the plugin `gbdt`."""

from __future__ import annotations

from pydantic import Field

from ocad.clicks.config import ClickConfig
from ocad.config import Settings


class TreeSettings(Settings):
    """LightGBM's own parameters (Ke et al. 2017), under whole names."""

    trees: int = Field(
        default=1000, ge=1, description="the most trees; early stopping on validation keeps the best number"
    )
    leaves: int = Field(default=31, ge=2, description="leaves of a tree")
    learning_rate: float = Field(default=0.05, gt=0, description="weight of each new tree")
    leaf_rows: int = Field(default=20, ge=1, description="training rows that a leaf has at least")
    column_share: float = Field(default=1.0, gt=0, le=1, description="share of the columns that a tree may use")
    row_share: float = Field(default=1.0, gt=0, le=1, description="share of the rows that a tree is grown on")
    l2: float = Field(default=0.0, ge=0, description="L2 penalty on the values of leaves")
    patience: int = Field(default=50, ge=1, description="trees without a better validation AUC before training stops")
    positive_weight: float = Field(default=1.0, gt=0, description="weight of a click against a row without one")
    threads: int = Field(default=1, ge=1, description="threads; the result is the same for any number")


class GbdtConfig(ClickConfig):
    """The configuration of the plugin `gbdt`."""

    trees: TreeSettings = TreeSettings()
