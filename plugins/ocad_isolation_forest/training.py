"""From a frame to a registered forest: the hooks' bodies that differ from those of every detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.contexts import Export
from ocad.detection import training
from ocad.detection.detector import normal_rows
from ocad.export.onnx import write_onnx
from ocad.export.runtime import OnnxPredictor
from ocad.metrics.ranking import average_precision
from ocad_isolation_forest.config import CONTAMINATIONS, DEFAULT_CONTAMINATION, IsolationForestConfig
from ocad_isolation_forest.detector import Growth, IsolationForestDetector
from ocad_isolation_forest.graph import FEATURES, SCORE, make_graph, signature

if TYPE_CHECKING:
    from ocad.contexts import RunContext, Trained
    from ocad.protocols import Arrays
    from ocad_registry import Version

PARITY_SAMPLES = 1024
"""Validation rows that parity is measured on, spread evenly over the part; training rows join where they are fewer."""


def learn(
    context: RunContext, metrics: Sequence[str], train: pd.DataFrame, validation: pd.DataFrame
) -> IsolationForestDetector:
    """Fitted on the normal rows of `train`, calibrated on those of `validation`.

    A contamination of `auto` is the one with the best average precision on `validation` where its labels have both classes.
    """
    config = cast("IsolationForestConfig", context.config)
    forest, contamination = config.forest, config.forest.contamination
    start = Growth(forest.n_estimators, forest.max_samples, DEFAULT_CONTAMINATION, config.seed)
    if contamination != "auto":
        start = replace(start, contamination=contamination)
    candidates = [start]
    if contamination == "auto" and "label" in validation and validation["label"].nunique() == 2:
        candidates = [replace(start, contamination=value) for value in CONTAMINATIONS]
    grown = []
    for growth in candidates:
        units = {metric: context.data.unit_of(metric) for metric in metrics}
        detector = IsolationForestDetector(metrics, growth).use_units(units).use_scales(config.scales)
        detector.fit(normal_rows(train))
        grown.append(detector)
    best = grown[0] if len(grown) == 1 else max(grown, key=lambda detector: _precision(detector, validation))
    best.calibrate(normal_rows(validation), config.pooled)
    return best


def export(context: RunContext, trained: Trained) -> Export:
    """`model.onnx` and `detector.json` under `run/export`; real rows of the run to prove the graph on."""
    detector = cast("IsolationForestDetector", trained.model)
    folder = context.run / "export"
    artifacts = [
        *write_onnx(make_graph(detector.forest), folder / "model.onnx"),
        training.write_detector(folder, detector),
    ]
    samples = _samples(context, detector)
    growth = detector.growth
    return Export(
        artifacts=artifacts,
        signature=signature(samples.shape[1]),
        samples={FEATURES: samples},
        description=f"{growth.n_estimators} trees over {samples.shape[1]} rolling features of {', '.join(detector.metrics)}",
    )


def reference(trained: Trained, inputs: Arrays) -> dict[str, NDArray[np.float64]]:
    """The scores of scikit-learn's own forest."""
    forest = cast("IsolationForestDetector", trained.model).forest
    return {SCORE: -forest.score_samples(np.asarray(inputs[FEATURES]))[:, None]}


def load(version: Version) -> IsolationForestDetector:
    """The registered detector with its graph in this process."""
    detector = training.load(version, IsolationForestDetector.from_json)
    detector.use_graph(
        version.ref, OnnxPredictor(version.file("onnx"), signature(len(detector.fitted_features().names)))
    )
    return detector


def _precision(detector: IsolationForestDetector, validation: pd.DataFrame) -> float:
    """Average precision of the raw scores, from a fresh state and to a fresh one."""
    detector.forget()
    scores = detector.raw(validation)
    detector.forget()
    return average_precision(validation["label"].to_numpy(), scores)


def _samples(context: RunContext, detector: IsolationForestDetector) -> NDArray[np.float32]:
    rows: list[NDArray[np.float32]] = []
    for part in ("validation", "train"):
        detector.forget()
        frame = pd.read_parquet(context.run / "data" / f"{part}.parquet")
        rows += [detector.feature_rows(one.endpoint, one.times, one.values) for one in detector.series(frame)]
        if sum(map(len, rows)) >= PARITY_SAMPLES:
            break
    detector.forget()
    found = np.concatenate(rows)
    return found[np.unique(np.linspace(0, len(found) - 1, PARITY_SAMPLES).astype(np.int64))]
