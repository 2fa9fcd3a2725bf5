"""The plugin `subspace`: what several metrics usually do together, by T² and Q on principal components or by ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ocad.detection.plugin import DetectorPlugin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ocad.contexts import RunContext
    from ocad.detection.detector import SeriesDetector
    from ocad_subspace.config import SubspaceConfig


class Subspace(DetectorPlugin):
    """The hooks; numpy is imported when one runs."""

    name = "subspace"
    summary = "windowed T² and Q on principal components of all metrics together, or ranks among what was seen before"

    def config(self) -> type[SubspaceConfig]:
        """See `DetectorPlugin`."""
        from ocad_subspace.config import SubspaceConfig

        return SubspaceConfig

    def build(self, context: RunContext, metrics: Sequence[str]) -> SeriesDetector:
        """See `DetectorPlugin`."""
        return self.make(cast("SubspaceConfig", context.config), metrics)

    def make(self, config: SubspaceConfig, metrics: Sequence[str]) -> SeriesDetector:
        """See `DetectorPlugin`."""
        from ocad_subspace.build import build_detector

        return build_detector(config, metrics)

    def read(self, value: Mapping[str, Any]) -> SeriesDetector:
        """See `DetectorPlugin`."""
        from ocad_subspace.build import read_detector

        return read_detector(value)


plugin = Subspace()
globals().update(plugin.hooks())
