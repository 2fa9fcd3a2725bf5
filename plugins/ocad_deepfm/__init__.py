"""The plugin `deepfm`: factorization machine and deep network over one embedding table (Guo et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocad.clicks.plugin import ClickPlugin

if TYPE_CHECKING:
    from ocad.clicks.model import Learner
    from ocad_deepfm.config import DeepFmConfig


class DeepFm(ClickPlugin):
    """The hooks; torch is imported when one runs."""

    name = "deepfm"
    summary = "DeepFM: calibrated click probability from a factorization machine and a deep network"

    def config(self) -> type[DeepFmConfig]:
        """See `ClickPlugin`."""
        from ocad_deepfm.config import DeepFmConfig

        return DeepFmConfig

    def learner(self) -> Learner:
        """See `ClickPlugin`."""
        from ocad.clicks.torch_learner import TorchLearner
        from ocad_deepfm.network import build

        return TorchLearner(build)


plugin = DeepFm()
