"""What can be set for every click-through plugin; light to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ocad.config import GateSettings, PluginConfig, Settings
from ocad.metrics.distribution import distribution_gates
from ocad.tabular.spec import AutoFeatures, DataSettings, Features, Split

SMALL_ROWS = 300_000
"""With more rows a tenth of them more changes little, and training twice costs much."""


class CalibrationSettings(Settings):
    """How log-odds become probabilities; fitted on the validation part alone."""

    method: Literal["auto", "identity", "temperature", "platt", "isotonic"] = Field(
        default="auto", description="`auto` keeps the one of lowest cross-validated log loss, and only if it helps"
    )


class ExportSettings(Settings):
    """What is registered beside the served graph."""

    raw: bool = Field(
        default=False, description="also register `NAME-raw`, a graph that takes the raw columns of the log"
    )


class ClickConfig(PluginConfig):
    """The sections that every click-through plugin has; its own come beside them."""

    gates: tuple[GateSettings, ...] = distribution_gates()
    features: AutoFeatures = Features(auto=True)
    split: Split = Split()
    data: DataSettings = DataSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    export: ExportSettings = ExportSettings()
    refit: bool | Literal["auto"] = Field(
        default="auto",
        description="whether the model is trained again on training and validation rows together, for as long as "
        f"validation found best; `auto`: where they are at most {SMALL_ROWS:,}",
    )
    click_value: float | None = Field(
        default=None, gt=0, description="what a click is worth, in the currency of `features.price`"
    )
