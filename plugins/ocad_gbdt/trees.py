"""LightGBM's trees as one TreeEnsemble operator (ai.onnx.ml 5) between the served inputs and the calibrator."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ocad.clicks.model import IDS, LOGIT, NUMERICS, PROBABILITY, InputShape
from ocad.export.onnx import export_onnx, write_onnx
from ocad.export.trees import Child, Ensemble, tree_opsets

if TYPE_CHECKING:
    from ocad.calibration.calibrators import Calibrator
    from ocad.contexts import Artifact


def export_trees(model: Mapping[str, Any], shape: InputShape, calibrator: Calibrator, folder: Path) -> list[Artifact]:
    """Writes `model.onnx`, from `ids` and `numerics` to `logit` and `probability` `(n, 1)`; `model` is LightGBM's dump."""
    ensemble = Ensemble()
    for tree in model["tree_info"]:
        _add_tree(ensemble, tree["tree_structure"])
    nodes, constants = _features(shape)
    nodes.append(ensemble.node("features", LOGIT))
    inputs = {
        IDS: helper.make_tensor_value_info(IDS, TensorProto.INT64, ["batch", len(shape.offsets)]),
        NUMERICS: helper.make_tensor_value_info(NUMERICS, TensorProto.FLOAT, ["batch", len(shape.fills)]),
    }
    output = helper.make_tensor_value_info(LOGIT, TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph(nodes, "trees", [inputs[name] for name in shape.inputs], [output], constants)
    trees = helper.make_model(graph, opset_imports=tree_opsets())
    whole = onnx.compose.merge_models(
        trees,
        _calibrator_graph(calibrator, trees.ir_version),
        io_map=[(LOGIT, "uncalibrated")],
        outputs=[LOGIT, PROBABILITY],
    )
    return write_onnx(whole, folder / "model.onnx")


def _add_tree(ensemble: Ensemble, root: Mapping[str, Any]) -> None:
    """Takes in one tree of LightGBM's dump."""
    if "leaf_value" in root:
        ensemble.add_constant(float(root["leaf_value"]))
    else:
        ensemble.add_tree()
        _add(ensemble, root)


def _add(ensemble: Ensemble, node: Mapping[str, Any]) -> Child:
    if "leaf_value" in node:
        return ensemble.add_leaf(float(node["leaf_value"]))
    feature = int(node["split_feature"])
    if node["decision_type"] == "==":
        index = ensemble.add_membership(feature, [*map(float, str(node["threshold"]).split("||"))])
    else:
        index = ensemble.add_threshold(feature, float(node["threshold"]))
    return ensemble.connect(index, _add(ensemble, node["left_child"]), _add(ensemble, node["right_child"]))


def _features(shape: InputShape) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Nodes that make `features` `(n, fields + m)` of the inputs.

    A Gather turns ids into each field's own numbers; negative ids, which it would count from the end, are sent to a row that
    its table does not have, so that they fail as those beyond the table do.
    """
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, NDArray[Any]] = {}
    parts = []
    if shape.offsets:
        constants["zero"] = np.asarray(0, np.int64)
        constants["beyond"] = np.asarray(shape.rows, np.int64)
        constants["numbers"] = _own_numbers(shape)
        nodes += [
            helper.make_node("Less", [IDS, "zero"], ["negative"]),
            helper.make_node("Where", ["negative", "beyond", IDS], ["rows"]),
            helper.make_node("Gather", ["numbers", "rows"], ["categories"]),
        ]
        parts.append("categories")
    if shape.fills:
        constants["fills"] = np.asarray(shape.fills, np.float32)
        nodes += [
            helper.make_node("IsNaN", [NUMERICS], ["missing"]),
            helper.make_node("Where", ["missing", "fills", NUMERICS], ["present"]),
        ]
        parts.append("present")
    nodes.append(helper.make_node("Concat", parts, ["features"], axis=1))
    return nodes, [numpy_helper.from_array(array, name) for name, array in constants.items()]


def _own_numbers(shape: InputShape) -> NDArray[np.float32]:
    """For each row of the fused table its number within its field, from 0."""
    numbers = np.zeros(shape.rows, np.float32)
    for offset, size in zip(shape.offsets, shape.sizes, strict=True):
        numbers[offset : offset + size] = np.arange(size)
    return numbers


def _calibrator_graph(calibrator: Calibrator, ir_version: int) -> onnx.ModelProto:
    """The calibrator from `uncalibrated` `(n, 1)` to `probability`, its inner names prefixed."""
    with tempfile.TemporaryDirectory() as folder:
        example = {"uncalibrated": torch.zeros(2, 1)}
        path = export_onnx(calibrator.as_module(), example, Path(folder), [PROBABILITY])[0].path
        model = onnx.load(path)
    model.ir_version = ir_version
    keep: Sequence[str] = ("uncalibrated", PROBABILITY)
    prefixed = onnx.compose.add_prefix(model, "calibrator_")
    for value in (*prefixed.graph.input, *prefixed.graph.output):
        value.name = value.name.removeprefix("calibrator_")
    for node in prefixed.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name.removeprefix("calibrator_") in keep:
                    names[place] = name.removeprefix("calibrator_")
    return prefixed
