"""The plugin `composite`: registered detectors under one alarm rule that is optimised on labelled incidents.

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
    from ocad_composite.config import CompositeConfig

    summary = "few and right alarms from several registered detectors, tuned on labelled incidents"
    return PluginInfo(name="composite", task="detect", summary=summary, config=CompositeConfig)


@hookimpl
def ocad_prepare_data(context: RunContext) -> PreparedData:
    """See `ocad.hookspecs`."""
    from ocad_composite.training import prepare_rows

    return prepare_rows(context)


@hookimpl
def ocad_train(context: RunContext, data: PreparedData) -> Trained:
    """See `ocad.hookspecs`."""
    from ocad_composite.training import train

    return train(context, data)


@hookimpl
def ocad_evaluate(context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
    """See `ocad.hookspecs`."""
    from ocad_composite.training import evaluate_composite

    return evaluate_composite(context, trained, data)


@hookimpl
def ocad_export(context: RunContext, trained: Trained) -> Export:
    """See `ocad.hookspecs`."""
    from ocad_composite.stored import export

    return export(context, trained)


@hookimpl
def ocad_load(context: HostContext, version: Version) -> Detector:
    """See `ocad.hookspecs`."""
    from ocad_composite.stored import load

    return load(context, version)


@hookimpl
def ocad_detect(model: Predictor | Detector, frame: pd.DataFrame) -> NDArray[np.float64]:
    """See `ocad.hookspecs`."""
    return cast("Detector", model).score(frame)
