"""The plugin `subspace`: what several metrics usually do together, by T² and Q on principal components or by ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ocad.detection.plugin import DetectorPlugin
from ocad.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocad.contexts import HostContext, RunContext
    from ocad.detection.detector import SeriesDetector
    from ocad_registry import Version
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

    def detector_type(self) -> type[SeriesDetector]:
        """See `DetectorPlugin`: that of the default method."""
        from ocad_subspace.detector import SubspaceDetector

        return SubspaceDetector

    @hookimpl
    def ocad_load(self, context: HostContext, version: Version) -> SeriesDetector:
        """See `ocad.hookspecs`; the version's settings say which of the two methods wrote its file."""
        from ocad.detection.training import load
        from ocad_subspace.build import DETECTORS

        settings = self.config().model_validate(dict(version.manifest.params))
        return load(version, DETECTORS[settings.method])


plugin = Subspace()
globals().update(plugin.hooks())
