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
    bins: int = Field(default=255, ge=2, description="bins of a column of numbers, at most")
    bin_rows: int = Field(
        default=3, ge=1, description="training rows that a bin, or a value of a category, has at least"
    )
    category_smoothing: float = Field(
        default=10.0, ge=0, description="rows that a value's rate is drawn to the mean by"
    )
    category_l2: float = Field(default=10.0, ge=0, description="L2 penalty on splits by a set of values")
    category_rows: int = Field(default=100, ge=1, description="training rows that a side of such a split has at least")
    category_set: int = Field(default=32, ge=1, description="values on the smaller side of such a split, at most")
    category_single: int = Field(
        default=4, ge=1, description="with so many values or fewer, one is split from the rest"
    )
    patience: int = Field(
        default=50, ge=1, description="trees without a lower validation log loss before training stops"
    )
    positive_weight: float = Field(default=1.0, gt=0, description="weight of a click against a row without one")
    threads: int = Field(default=1, ge=1, description="threads; the result is the same for any number")


class GbdtConfig(ClickConfig):
    """The configuration of the plugin `gbdt`."""

    trees: TreeSettings = TreeSettings()
