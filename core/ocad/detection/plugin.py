"""The hooks of every detector plugin: a subclass names itself, its configuration, and the detector that it builds.

>>> class Example(DetectorPlugin):
...     name, summary = "example", "an example"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ocad.contexts import PluginInfo
from ocad.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ocad.contexts import Evaluation, Export, HostContext, PreparedData, RunContext, Trained
    from ocad.detection.config import DetectorConfig
    from ocad.detection.detector import SeriesDetector
    from ocad.protocols import Detector, Predictor
    from ocad_registry import Version


class DetectorPlugin:
    """Prepare, fit, calibrate on held-out rows, evaluate, export, load and detect; light to import.

    An instance is what the entry point names: `example = "ocad_example:plugin"`; where it names the module alone, the
    module says `globals().update(plugin.hooks())`. Any hook can be overridden (mark it with `@hookimpl` again); the
    bodies stand in `ocad.detection.training`.
    """

    name: str
    summary: str

    def config(self) -> type[DetectorConfig]:
        """The configuration model."""
        from ocad.detection.config import DetectorConfig

        return DetectorConfig

    def build(self, context: RunContext, metrics: Sequence[str]) -> SeriesDetector:
        """The detector that the run's settings describe, not fitted; its modules are imported here and not before."""
        raise TypeError(f"`{type(self).__name__}` builds no detector: define `build`")

    def make(self, config: Any, metrics: Sequence[str]) -> SeriesDetector | None:
        """The same from settings alone, where that is enough: a detector that others may combine with theirs."""
        return None

    def detector_type(self) -> type[SeriesDetector]:
        """The class whose `from_json` reads what the run wrote."""
        raise TypeError(f"`{type(self).__name__}` has no detector: define `detector_type`")

    def read(self, value: Mapping[str, Any]) -> SeriesDetector:
        """The detector that the JSON of a run describes; override where it may be of several classes."""
        return self.detector_type().from_json(value)

    def learn(
        self, context: RunContext, metrics: Sequence[str], train: pd.DataFrame, validation: pd.DataFrame
    ) -> SeriesDetector:
        """Fits on the normal rows of `train` and calibrates on those of `validation`; override to tune on validation."""
        from ocad.detection.training import fit_and_calibrate

        config = cast("DetectorConfig", context.config)
        units = {metric: context.data.unit_of(metric) for metric in metrics}
        detector = self.build(context, metrics).use_units(units).use_scales(config.scales)
        return fit_and_calibrate(detector, train, validation, config.pooled)

    def hooks(self) -> dict[str, Callable[..., Any]]:
        """The hooks by name, bound to this instance."""
        return {name: getattr(self, name) for name in dir(self) if name.startswith("ocad_")}

    @hookimpl
    def ocad_plugin_info(self) -> PluginInfo:
        """See `ocad.hookspecs`."""
        return PluginInfo(name=self.name, task="detect", summary=self.summary, config=self.config())

    @hookimpl
    def ocad_prepare_data(self, context: RunContext) -> PreparedData:
        """See `ocad.hookspecs`."""
        from ocad.detection.training import prepare

        return prepare(context)

    @hookimpl
    def ocad_train(self, context: RunContext, data: PreparedData) -> Trained:
        """See `ocad.hookspecs`."""
        from ocad.detection.training import train

        return train(context, data, self.learn)

    @hookimpl
    def ocad_evaluate(self, context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
        """See `ocad.hookspecs`."""
        from ocad.detection.training import evaluate

        return evaluate(context, trained, data)

    @hookimpl
    def ocad_export(self, context: RunContext, trained: Trained) -> Export:
        """See `ocad.hookspecs`."""
        from ocad.detection.training import export

        return export(context, trained)

    @hookimpl
    def ocad_load(self, context: HostContext, version: Version) -> Detector:
        """See `ocad.hookspecs`."""
        from ocad.detection.training import load

        return load(version, self.read)

    @hookimpl
    def ocad_detect(
        self, context: HostContext, model: Predictor | Detector, frame: pd.DataFrame
    ) -> NDArray[np.float64]:
        """See `ocad.hookspecs`."""
        return cast("Detector", model).score(frame)

    @hookimpl
    def ocad_new_detector(self, metrics: Sequence[str]) -> SeriesDetector | None:
        """See `ocad.hookspecs`; None where `make` is not there."""
        return self.make(self.config()(), metrics)

    @hookimpl
    def ocad_read_detector(self, value: Mapping[str, Any]) -> SeriesDetector:
        """See `ocad.hookspecs`."""
        return self.read(value)
