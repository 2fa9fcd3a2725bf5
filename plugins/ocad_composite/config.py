"""What can be set for the plugin `composite`; each key is a line of `configs/composite/*.yaml` or a `--set`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ocad.config import GateSettings, Settings
from ocad.detection.config import FEW_FALSE_ALARMS, DetectorConfig

PRECISE = GateSettings(
    name="alarms are right on the validation part", metric="validation_event_precision", op=">=", threshold=0.9
)
"""The default gate: of the alerts in the rows that it was optimised on, nine of ten are right."""


class HoldSettings(Settings):
    """The hold-down that the search begins with, on the weighted mean of the members' surprises.

    The levels are not called `on` and `off`, which YAML reads as true and false.
    """

    raise_at: float = Field(default=2.0, gt=0, description="an alarm begins when `k` of the last `n` rows reach this")
    instant: float = Field(default=5.0, gt=0, description="an alarm begins at once when a row reaches this")
    k: int = Field(default=3, ge=1, description="rows of the last `n` that must reach `raise_at`")
    n: int = Field(default=5, ge=1, description="rows that `k` is counted in")
    clear_at: float = Field(default=1.0, ge=0, description="an alarm ends after `m` rows in a row below this")
    m: int = Field(default=5, ge=1, description="rows below `clear_at` that end an alarm")
    rest: int = Field(default=0, ge=0, description="rows in a row below `clear_at` before another alarm; kept as it is")


class SearchSettings(Settings):
    """The search for weights and thresholds: random rules, then small steps from the best of them."""

    candidates: int = Field(default=1500, ge=0, description="random rules that are tried")
    steps: int = Field(default=400, ge=0, description="small changes of the best rule that are tried")
    precision: float = Field(default=0.97, gt=0, le=1, description="event precision that a rule must have, if any has")
    recall: float = Field(
        default=0.2, ge=0, le=1, description="event recall below which that precision is not worth it"
    )
    point_fpr: float = Field(default=0.04, gt=0, le=1, description="share of normal rows in alarm that a rule may have")
    pull: float = Field(default=0.05, ge=0, description="F1 that weights wholly on one member must bring to be chosen")
    folds: int = Field(default=4, ge=2, description="blocks of time for cross-fitting and for the honest estimate")


class CompositeConfig(DetectorConfig):
    """The configuration of the plugin `composite`. `metrics` empty: those of all members."""

    gates: tuple[GateSettings, ...] = (PRECISE, FEW_FALSE_ALARMS)
    members: tuple[str, ...] = Field(
        default=(), description="references of registered detectors; their exact versions are kept"
    )
    optimise_on: tuple[Literal["train", "validation"], ...] = Field(
        default=("validation",), min_length=1, description="the parts whose labelled incidents decide"
    )
    weights: tuple[float, ...] = Field(
        default=(), description="where the search begins, in the order of members; empty: equal"
    )
    caps: tuple[float, ...] = Field(
        default=(), description="the most surprise that counts, by member; empty: 8 for each"
    )
    thresholds: tuple[float, ...] = Field(
        default=(), description="surprise from which a member agrees; empty: 2 for each"
    )
    agreement: int = Field(default=1, ge=1, description="members that must agree for an alarm to begin")
    hold: HoldSettings = HoldSettings()
    search: SearchSettings = SearchSettings()
