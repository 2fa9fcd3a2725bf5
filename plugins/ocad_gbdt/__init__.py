"""The plugin `gbdt`: gradient-boosted trees by LightGBM (Ke et al. 2017), served as one TreeEnsemble operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocad.clicks.plugin import ClickPlugin

if TYPE_CHECKING:
    from ocad.clicks.model import Learner
    from ocad_gbdt.config import GbdtConfig


class Gbdt(ClickPlugin):
    """The hooks; LightGBM is imported when one runs."""

    name = "gbdt"
    summary = "gradient-boosted trees (LightGBM): calibrated click probability"

    def config(self) -> type[GbdtConfig]:
        """See `ClickPlugin`."""
        from ocad_gbdt.config import GbdtConfig

        return GbdtConfig

    def learner(self) -> Learner:
        """See `ClickPlugin`."""
        from ocad_gbdt.learner import GbdtLearner

        return GbdtLearner()


plugin = Gbdt()
