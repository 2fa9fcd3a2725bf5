"""What can be set for the plugin `composite`; each key is a line of `configs/composite/*.yaml` or a `--set`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ocad.config import GateSettings, Settings
from ocad.detection.config import DETECTOR_GATES, DetectorConfig
from ocad.detection.hold import REST
from ocad.detection.units import ALARM

PRECISE = GateSettings(
    name="alarms are right on the validation part", metric="validation_event_precision", op=">=", threshold=0.9
)
"""The default gate: of the alerts in the rows that it was optimised on, nine of ten are right."""


class HoldSettings(Settings):
    """The hold-down of the plain rule, which the search must beat, on the weighted mean of the members' scores.

    The levels are not called `on` and `off`, which YAML reads as true and false.
    """

    raise_at: float = Field(default=ALARM, gt=0, description="an alarm begins when `k` of the last `n` rows reach this")
    instant: float | None = Field(default=None, gt=0, description="an alarm begins at once at this; none: `raise_at`")
    k: int = Field(default=1, ge=1, description="rows of the last `n` that must reach `raise_at`")
    n: int = Field(default=1, ge=1, description="rows that `k` is counted in")
    clear_at: float | None = Field(
        default=None, ge=0, description="an alarm ends after `m` rows in a row below this; none: 3/4 of `raise_at`"
    )
    m: int = Field(default=1, ge=1, description="rows below `clear_at` that end an alarm")
    rest: int = Field(default=REST, ge=0, description="quiet rows until another alarm is another incident")


class SearchSettings(Settings):
    """The search for a rule that beats the plain one; see `ocad.detection.search`."""

    search: bool = Field(default=True, description="look for a better rule than the plain one")
    folds: int = Field(default=4, ge=2, description="blocks of time that rules are chosen without and judged on")


class CompositeConfig(DetectorConfig):
    """The configuration of the plugin `composite`. `metrics` empty: those of all members."""

    gates: tuple[GateSettings, ...] = (PRECISE, *DETECTOR_GATES)
    members: tuple[str, ...] = Field(
        default=(), description="references of registered detectors; their exact versions are kept"
    )
    optimise_on: tuple[Literal["train", "validation"], ...] = Field(
        default=("validation",), min_length=1, description="the parts whose labelled incidents decide"
    )
    weights: tuple[float, ...] = Field(
        default=(), description="of the plain rule, in the order of members; empty: the first member alone"
    )
    hold: HoldSettings = HoldSettings()
    rule: SearchSettings = SearchSettings()
