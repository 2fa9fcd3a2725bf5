"""The part of a click model's configuration that preparing needs."""

from __future__ import annotations

from pydantic import ConfigDict

from ocad.config import PluginConfig
from ocad.tabular.spec import AutoFeatures, DataSettings, Features, Split


class PrepareConfig(PluginConfig):
    """`features`, `split`, `data` and `seed` of a configuration; a model's other sections are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    features: AutoFeatures = Features(auto=True)
    split: Split = Split()
    data: DataSettings = DataSettings()
