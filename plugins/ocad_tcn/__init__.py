"""The plugin `tcn`: a temporal convolutional network that forecasts the next value of a series from the last ten.

Only the hooks stand here; torch, pandas and the rest are imported when a hook runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocad.contexts import PluginInfo
from ocad.hookspecs import hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ocad.contexts import Evaluation, Export, PreparedData, RunContext, Trained
    from ocad.protocols import Arrays, Predictor
    from ocad_registry import Version


@hookimpl
def ocad_plugin_info() -> PluginInfo:
    """See `ocad.hookspecs`."""
    from ocad_tcn.config import TcnConfig

    summary = "temporal convolutional network, forecasts the next value of any numeric series"
    return PluginInfo(name="tcn", task="forecast", summary=summary, config=TcnConfig)


@hookimpl
def ocad_prepare_data(context: RunContext) -> PreparedData:
    """See `ocad.hookspecs`."""
    from ocad_tcn.prepare import prepare

    return prepare(context)


@hookimpl
def ocad_train(context: RunContext, data: PreparedData) -> Trained:
    """See `ocad.hookspecs`."""
    from ocad_tcn.train import train

    return train(context, data)


@hookimpl
def ocad_evaluate(context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
    """See `ocad.hookspecs`."""
    from ocad_tcn.evaluate import evaluate

    return evaluate(context, trained, data)


@hookimpl
def ocad_export(context: RunContext, trained: Trained) -> Export:
    """See `ocad.hookspecs`."""
    from ocad_tcn.export import export

    return export(context, trained)


@hookimpl
def ocad_reference(trained: Trained, inputs: Arrays) -> dict[str, NDArray[np.float64]]:
    """See `ocad.hookspecs`."""
    from ocad_tcn.export import reference

    return reference(trained, inputs)


@hookimpl
def ocad_load(version: Version) -> Predictor:
    """See `ocad.hookspecs`."""
    from ocad_tcn.predictor import StoredForecaster

    return StoredForecaster(version)
