"""The registered form of a click-through model: served graph, weights, encoder. `ocad_export` and `ocad_reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ocad.clicks.model import LOGIT, PROBABILITY
from ocad.clicks.training import TrainedClicks, calibrator_facts
from ocad.contexts import Artifact, Export
from ocad.export.onnx import hide_output
from ocad.tabular.encoder import PREPROCESS_FILE, VOCABULARY_FILE

if TYPE_CHECKING:
    from ocad.clicks.config import ClickConfig
    from ocad.contexts import RunContext, Trained
    from ocad.protocols import Arrays

RAW = "raw"
"""The model that takes raw columns is registered as `NAME-raw`."""


def export(context: RunContext, trained: Trained) -> Export:
    """`model.onnx` with the weights, `preprocess.json` and `vocab.json`; with `export.raw` the graph over raw columns too."""
    handle = cast("TrainedClicks", trained.model)
    folder = context.run / "export"
    artifacts = handle.scorer.export(handle.calibrator, folder)
    graph = next(artifact.path for artifact in artifacts if artifact.role == "onnx")
    hide_output(graph, LOGIT)
    preprocessing = [Artifact(handle.data / name, "preprocess") for name in (PREPROCESS_FILE, VOCABULARY_FILE)]
    also = {}
    if cast("ClickConfig", context.config).export.raw:
        from ocad.clicks.raw import export_raw

        also[RAW] = export_raw(context, handle, graph, preprocessing)
    return Export(
        artifacts=[*artifacts, *preprocessing],
        signature=handle.shape.signature(),
        samples=handle.samples,
        description=f"probability of a click, {calibrator_facts(handle)}",
        also=also,
    )


def reference(trained: Trained, inputs: Arrays) -> dict[str, NDArray[np.float64]]:
    """The calibrated probability by the trained model itself, in float64; raw columns go through the encoder first."""
    handle = cast("TrainedClicks", trained.model)
    if set(inputs) != set(handle.shape.inputs):
        from ocad.clicks.raw import encode_raw

        inputs = encode_raw(handle, inputs)
    return {PROBABILITY: handle.calibrator.apply(handle.scorer.exact_logit(inputs))[:, None]}
