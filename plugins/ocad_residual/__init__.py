"""The plugin `residual`: what a forecaster did not expect; any registered forecaster, or an autoregression of its own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

from ocad.detection.plugin import DetectorPlugin
from ocad.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocad.contexts import Export, HostContext, RunContext, Trained
    from ocad.protocols import Detector
    from ocad_registry import Version
    from ocad_residual.config import ResidualConfig
    from ocad_residual.detector import ResidualDetector


class ResidualPlugin(DetectorPlugin):
    """The hooks; numpy, pandas and onnxruntime are imported when one runs."""

    name = "residual"
    summary = "residuals of any registered forecaster, each and on average; SPOT thresholds as an option"

    def config(self) -> type[ResidualConfig]:
        """See `DetectorPlugin`."""
        from ocad_residual.config import ResidualConfig

        return ResidualConfig

    def detector_type(self) -> type[ResidualDetector]:
        """See `DetectorPlugin`."""
        from ocad_residual.detector import ResidualDetector

        return ResidualDetector

    def build(self, context: RunContext, metrics: Sequence[str]) -> ResidualDetector:
        """See `DetectorPlugin`; resolves the forecasters to exact versions and loads them."""
        from ocad_residual.detector import ResidualDetector
        from ocad_residual.forecasters import resolve_forecasters

        config = cast("ResidualConfig", context.config)
        units = {metric: context.data.unit_of(metric) for metric in metrics}
        found = resolve_forecasters(context, config.forecasters, units)
        return ResidualDetector(metrics, found, config.length, config.evidence, config.threshold)

    def make(self, config: ResidualConfig, metrics: Sequence[str]) -> ResidualDetector:
        """See `DetectorPlugin`: with autoregressions of its own."""
        from ocad_residual.detector import ResidualDetector

        return ResidualDetector(metrics, {}, config.length, config.evidence, config.threshold)

    @hookimpl
    def ocad_export(self, context: RunContext, trained: Trained) -> Export:
        """See `ocad.hookspecs`; the forecasters are the version's parents."""
        from ocad.detection.training import export

        detector = cast("ResidualDetector", trained.model)
        parents = [forecaster.ref for forecaster in detector.references()]
        own = [metric for metric in detector.metrics if "weights" in detector.forecasters[metric].to_json()]
        told = [f"`{ref}`" for ref in parents] + [f"an autoregression of `{metric}`" for metric in own]
        description = f"residuals of {', '.join(told)}"
        return dataclasses.replace(export(context, trained), parents=parents, description=description)

    @hookimpl
    def ocad_load(self, context: HostContext, version: Version) -> Detector:
        """See `ocad.hookspecs`; raises `DataError` naming a forecaster that is missing, damaged or another one."""
        from ocad.detection.training import load
        from ocad_residual.forecasters import load_forecaster

        detector = load(version, self.detector_type().from_json)
        for forecaster in detector.references():
            detector.use_graph(forecaster.ref, load_forecaster(context, forecaster, version.ref))
        return detector


plugin = ResidualPlugin()
globals().update(plugin.hooks())
