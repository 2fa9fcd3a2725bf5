"""The registered form of a forecaster: graph, weights, preprocessing, signature. `ocad_export` and `ocad_reference`."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ocad.contexts import Artifact, Export
from ocad.export.onnx import export_onnx
from ocad_tcn.forecaster import save_forecaster
from ocad_tcn.predictor import INPUT, OUTPUT, TorchForecaster

if TYPE_CHECKING:
    from ocad.contexts import RunContext, Trained
    from ocad.protocols import Arrays
    from ocad_tcn.train import TrainedForecaster

PARITY_SAMPLES = 1024
"""Validation windows that parity is measured on, spread evenly over the part; all of them where there are fewer."""


def export(context: RunContext, trained: Trained) -> Export:
    """`model.onnx`, `model.pth` and `preprocess.json` under `run/export`."""
    handle = cast("TrainedForecaster", trained.model)
    forecaster, folder = handle.forecaster, context.run / "export"
    sequence = handle.validation.sequence
    chosen = np.unique(np.linspace(0, len(sequence) - 1, PARITY_SAMPLES).astype(int))
    samples = sequence[chosen, :, None].astype(np.float32)
    artifacts = export_onnx(forecaster, {INPUT: torch.from_numpy(samples[:2].copy())}, folder, [OUTPUT])
    weights, preprocess = folder / "model.pth", folder / "preprocess.json"
    save_forecaster(weights, forecaster, handle.metric)
    architecture = forecaster.architecture
    facts = {
        "metric": handle.metric,
        "unit": handle.unit,
        "window": architecture.length,
        "mean": architecture.mean,
        "deviation": architecture.deviation,
        "scaling": architecture.scaling.to_dict(),
    }
    preprocess.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Export(
        artifacts=[*artifacts, Artifact(weights, "weights"), Artifact(preprocess, "preprocess")],
        signature=TorchForecaster(forecaster, handle.unit).signature,
        samples={INPUT: samples},
        description=f"forecasts the next `{handle.metric}` from the last {architecture.length} values",
    )


def reference(trained: Trained, inputs: Arrays) -> dict[str, NDArray[np.float64]]:
    """The forecasts of the trained module itself, computed in float64."""
    handle = cast("TrainedForecaster", trained.model)
    exact = copy.deepcopy(handle.forecaster).double().eval()
    with torch.inference_mode():
        return {OUTPUT: exact(torch.from_numpy(np.asarray(inputs[INPUT], dtype=np.float64))).numpy()}
