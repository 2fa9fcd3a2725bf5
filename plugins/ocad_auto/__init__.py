"""The plugin `auto`: the detector to begin with. It needs no labels and no choices, and says what it chose and why.

Only the hooks stand here; pandas and the rest are imported when a hook runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ocad.contexts import PluginInfo
from ocad.hookspecs import hookimpl

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ocad.contexts import Evaluation, Export, HostContext, PreparedData, RunContext, Trained
    from ocad.protocols import Detector, Predictor
    from ocad_registry import Version


@hookimpl
def ocad_plugin_info() -> PluginInfo:
    """See `ocad.hookspecs`."""
    from ocad_auto.config import AutoConfig

    summary = "the one to begin with: picks and weights detectors without labels, by injected incidents and agreement"
    return PluginInfo(name="auto", task="detect", summary=summary, config=AutoConfig)


@hookimpl
def ocad_prepare_data(context: RunContext) -> PreparedData:
    """See `ocad.hookspecs`."""
    from ocad.detection.training import prepare

    return prepare(context)


@hookimpl
def ocad_train(context: RunContext, data: PreparedData) -> Trained:
    """See `ocad.hookspecs`."""
    from ocad_auto.training import train

    return train(context, data)


@hookimpl
def ocad_evaluate(context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
    """See `ocad.hookspecs`."""
    from ocad_auto.training import evaluate_auto

    return evaluate_auto(context, trained, data)


@hookimpl
def ocad_export(context: RunContext, trained: Trained) -> Export:
    """See `ocad.hookspecs`."""
    from ocad_auto.stored import export

    return export(context, trained)


@hookimpl
def ocad_load(context: HostContext, version: Version) -> Detector:
    """See `ocad.hookspecs`."""
    from ocad_auto.stored import load

    return load(context, version)


@hookimpl
def ocad_detect(model: Predictor | Detector, frame: pd.DataFrame) -> NDArray[np.float64]:
    """See `ocad.hookspecs`."""
    return cast("Detector", model).score(frame)
