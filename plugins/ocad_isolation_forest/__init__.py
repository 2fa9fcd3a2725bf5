"""The plugin `isolation_forest`: rolling features of all metrics at once, scored by a forest that is one ONNX operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocad.detection.plugin import DetectorPlugin
from ocad.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ocad.contexts import Export, HostContext, RunContext, Trained
    from ocad.protocols import Arrays, Detector
    from ocad_isolation_forest.config import IsolationForestConfig
    from ocad_isolation_forest.detector import IsolationForestDetector
    from ocad_registry import Version


class IsolationForest(DetectorPlugin):
    """The hooks; scikit-learn and onnxruntime are imported when one runs."""

    name = "isolation_forest"
    summary = "isolation forest over rolling features of several metrics, served as one tree operator"

    def config(self) -> type[IsolationForestConfig]:
        """See `DetectorPlugin`."""
        from ocad_isolation_forest.config import IsolationForestConfig

        return IsolationForestConfig

    def detector_type(self) -> type[IsolationForestDetector]:
        """See `DetectorPlugin`."""
        from ocad_isolation_forest.detector import IsolationForestDetector

        return IsolationForestDetector

    def learn(
        self, context: RunContext, metrics: Sequence[str], train: pd.DataFrame, validation: pd.DataFrame
    ) -> IsolationForestDetector:
        """See `DetectorPlugin`; the contamination is tuned on `validation`."""
        from ocad_isolation_forest.training import learn

        return learn(context, metrics, train, validation)

    @hookimpl
    def ocad_export(self, context: RunContext, trained: Trained) -> Export:
        """See `ocad.hookspecs`."""
        from ocad_isolation_forest.training import export

        return export(context, trained)

    @hookimpl
    def ocad_reference(self, trained: Trained, inputs: Arrays) -> dict[str, NDArray[np.float64]]:
        """See `ocad.hookspecs`."""
        from ocad_isolation_forest.training import reference

        return reference(trained, inputs)

    @hookimpl
    def ocad_load(self, context: HostContext, version: Version) -> Detector:
        """See `ocad.hookspecs`."""
        from ocad_isolation_forest.training import load

        return load(version)


plugin = IsolationForest()
globals().update(plugin.hooks())
