"""The plugin `logistic`: logistic regression over ids and numbers, the baseline that every click model must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocad.clicks.plugin import ClickPlugin

if TYPE_CHECKING:
    from ocad.clicks.model import Learner
    from ocad_logistic.config import LogisticConfig


class Logistic(ClickPlugin):
    """The hooks; torch is imported when one runs."""

    name = "logistic"
    summary = "logistic regression: calibrated click probability from one weight for each value"

    def config(self) -> type[LogisticConfig]:
        """See `ClickPlugin`."""
        from ocad_logistic.config import LogisticConfig

        return LogisticConfig

    def learner(self) -> Learner:
        """See `ClickPlugin`."""
        from ocad.clicks.torch_learner import TorchLearner
        from ocad_logistic.network import build

        return TorchLearner(build)


plugin = Logistic()
