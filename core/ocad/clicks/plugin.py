"""The hooks of every click-through plugin: a subclass names itself, its configuration and its learner.

>>> class Example(ClickPlugin):
...     name, summary = "example", "an example"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocad.contexts import PluginInfo
from ocad.hookspecs import hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ocad.clicks.config import ClickConfig
    from ocad.clicks.model import Learner
    from ocad.contexts import Evaluation, Export, PreparedData, RunContext, Trained
    from ocad.protocols import Arrays, Predictor
    from ocad_registry import Version


class ClickPlugin:
    """Prepare, train, calibrate on validation, evaluate, export and load; light to import.

    An instance is what the entry point names: `example = "ocad_example:plugin"`.
    """

    name: str
    summary: str

    def config(self) -> type[ClickConfig]:
        """The configuration model."""
        from ocad.clicks.config import ClickConfig

        return ClickConfig

    def learner(self) -> Learner:
        """What trains the model; its modules are imported here and not before."""
        raise TypeError(f"`{type(self).__name__}` has no learner: define `learner`")

    @hookimpl
    def ocad_plugin_info(self) -> PluginInfo:
        """See `ocad.hookspecs`."""
        return PluginInfo(name=self.name, task="ctr", summary=self.summary, config=self.config())

    @hookimpl
    def ocad_prepare_data(self, context: RunContext) -> PreparedData:
        """See `ocad.hookspecs`."""
        from ocad.clicks.training import prepare

        return prepare(context)

    @hookimpl
    def ocad_train(self, context: RunContext, data: PreparedData) -> Trained:
        """See `ocad.hookspecs`."""
        from ocad.clicks.training import train

        return train(context, data, self.learner())

    @hookimpl
    def ocad_evaluate(self, context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
        """See `ocad.hookspecs`."""
        from ocad.clicks.evaluate import evaluate

        return evaluate(context, trained, data)

    @hookimpl
    def ocad_export(self, context: RunContext, trained: Trained) -> Export:
        """See `ocad.hookspecs`."""
        from ocad.clicks.export import export

        return export(context, trained)

    @hookimpl
    def ocad_reference(self, trained: Trained, inputs: Arrays) -> dict[str, NDArray[np.float64]]:
        """See `ocad.hookspecs`."""
        from ocad.clicks.export import reference

        return reference(trained, inputs)

    @hookimpl
    def ocad_load(self, version: Version) -> Predictor:
        """See `ocad.hookspecs`."""
        from ocad.clicks.predictor import load

        return load(version)
