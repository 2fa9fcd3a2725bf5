"""The plugin `changepoint`: a streaming two-sided CUSUM (Page 1954) of each metric around its own slowly moving level."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ocad.detection.plugin import DetectorPlugin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocad.contexts import RunContext
    from ocad_changepoint.config import ChangepointConfig
    from ocad_changepoint.detector import ChangepointDetector


class Changepoint(DetectorPlugin):
    """The hooks; numpy is imported when one runs."""

    name = "changepoint"
    summary = "two-sided CUSUM of every metric and of lost replies: finds small shifts that last"

    def config(self) -> type[ChangepointConfig]:
        """See `DetectorPlugin`."""
        from ocad_changepoint.config import ChangepointConfig

        return ChangepointConfig

    def build(self, context: RunContext, metrics: Sequence[str]) -> ChangepointDetector:
        """See `DetectorPlugin`."""
        return self.make(cast("ChangepointConfig", context.config), metrics)

    def make(self, config: ChangepointConfig, metrics: Sequence[str]) -> ChangepointDetector:
        """See `DetectorPlugin`."""
        from ocad_changepoint.detector import ChangepointDetector

        return ChangepointDetector(metrics, config.cusum)

    def detector_type(self) -> type[ChangepointDetector]:
        """See `DetectorPlugin`."""
        from ocad_changepoint.detector import ChangepointDetector

        return ChangepointDetector


plugin = Changepoint()
globals().update(plugin.hooks())
