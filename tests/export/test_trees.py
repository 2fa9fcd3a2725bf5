"""Trees as one operator: thresholds that decide the same in float32, and ensembles made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from ocad.export.onnx import write_onnx
from ocad.export.trees import Ensemble, rounded_down, tree_opsets


def test_thresholds_decide_the_same_in_float32() -> None:
    generator = np.random.default_rng(0)
    for threshold in generator.normal(size=1000):
        low = rounded_down(float(threshold))
        assert float(low) <= threshold < float(np.nextafter(low, np.float32(np.inf)))


def test_leaves_are_summed_over_trees(tmp_path: Path) -> None:
    """A tree of a threshold above a set, and one of a single leaf; the values on a threshold go with those below it."""
    ensemble = Ensemble()
    ensemble.add_tree()
    root = ensemble.add_threshold(1, 0.5)
    inner = ensemble.add_membership(0, [2.0, 3.0])
    below = ensemble.connect(inner, ensemble.add_leaf(1.0), ensemble.add_leaf(2.0))
    ensemble.connect(root, below, ensemble.add_leaf(4.0))
    ensemble.add_constant(0.25)
    session = onnxruntime.InferenceSession(str(_write(ensemble, tmp_path)))
    rows = np.asarray([[2.0, 0.5], [3.0, -9.0], [1.0, 0.0], [2.0, 0.6]], np.float32)
    assert session.run(None, {"features": rows})[0][:, 0].tolist() == [1.25, 1.25, 2.25, 4.25]


def _write(ensemble: Ensemble, folder: Path) -> Path:
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 2])
    output = helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph([ensemble.node("features", "sum")], "trees", [features], [output])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=tree_opsets())
    return write_onnx(model, folder / "model.onnx")[0].path
