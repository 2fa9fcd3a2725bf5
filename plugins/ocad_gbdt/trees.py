"""LightGBM's trees as one TreeEnsemble operator (ai.onnx.ml 5) between the served inputs and the calibrator."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ocad.clicks.model import IDS, LOGIT, NUMERICS, PROBABILITY, InputShape
from ocad.export.onnx import export_onnx, write_onnx

if TYPE_CHECKING:
    from ocad.calibration.calibrators import Calibrator
    from ocad.contexts import Artifact

OPSET, TREE_OPSET = 20, 5
AT_MOST, MEMBER = 0, 6
"""The node modes BRANCH_LEQ and BRANCH_MEMBER."""


def export_trees(model: Mapping[str, Any], shape: InputShape, calibrator: Calibrator, folder: Path) -> list[Artifact]:
    """Writes `model.onnx`, from `ids` and `numerics` to `logit` and `probability` `(n, 1)`; `model` is LightGBM's dump."""
    ensemble = Ensemble()
    for tree in model["tree_info"]:
        ensemble.add_tree(tree["tree_structure"])
    nodes, constants = _features(shape)
    nodes.append(helper.make_node("TreeEnsemble", ["features"], [LOGIT], domain="ai.onnx.ml", **ensemble.attributes()))
    inputs = {
        IDS: helper.make_tensor_value_info(IDS, TensorProto.INT64, ["batch", len(shape.offsets)]),
        NUMERICS: helper.make_tensor_value_info(NUMERICS, TensorProto.FLOAT, ["batch", len(shape.fills)]),
    }
    output = helper.make_tensor_value_info(LOGIT, TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph(nodes, "trees", [inputs[name] for name in shape.inputs], [output], constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREE_OPSET)]
    trees = helper.make_model(graph, opset_imports=opsets)
    whole = onnx.compose.merge_models(
        trees,
        _calibrator_graph(calibrator, trees.ir_version),
        io_map=[(LOGIT, "uncalibrated")],
        outputs=[LOGIT, PROBABILITY],
    )
    return write_onnx(whole, folder / "model.onnx")


@dataclass
class Ensemble:
    """The flat arrays of a TreeEnsemble; a child is a node or, where its flag is 1, a leaf."""

    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    children: list[list[tuple[int, int]]] = field(default_factory=list)
    """For each node its child if the test holds and its child if not: index and flag."""
    leaves: list[float] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    """The sets of the MEMBER nodes in order, NaN after each."""

    def add_tree(self, root: Mapping[str, Any]) -> None:
        """Takes in one tree of LightGBM's dump; a tree of a single leaf becomes a node with that leaf on both sides."""
        self.roots.append(len(self.features))
        if "leaf_value" in root:
            self._add_node(0, AT_MOST, 0.0)
            leaf = self._add_leaf(root)
            self.children[-1] = [leaf, leaf]
        else:
            self._add(root)

    def attributes(self) -> dict[str, Any]:
        """The operator's attributes."""
        holds, fails = ([pair[side] for pair in self.children] for side in (0, 1))
        return {
            "aggregate_function": 1,
            "post_transform": 0,
            "n_targets": 1,
            "tree_roots": self.roots,
            "nodes_featureids": self.features,
            "nodes_modes": numpy_helper.from_array(np.asarray(self.modes, np.uint8), "modes"),
            "nodes_splits": numpy_helper.from_array(np.asarray(self.splits, np.float32), "splits"),
            "nodes_truenodeids": [index for index, _ in holds],
            "nodes_trueleafs": [flag for _, flag in holds],
            "nodes_falsenodeids": [index for index, _ in fails],
            "nodes_falseleafs": [flag for _, flag in fails],
            "leaf_targetids": [0] * len(self.leaves),
            "leaf_weights": numpy_helper.from_array(np.asarray(self.leaves, np.float32), "leaves"),
            **self._membership(),
        }

    def _membership(self) -> dict[str, Any]:
        if not self.members:
            return {}
        return {"membership_values": numpy_helper.from_array(np.asarray(self.members, np.float32), "members")}

    def _add(self, node: Mapping[str, Any]) -> tuple[int, int]:
        if "leaf_value" in node:
            return self._add_leaf(node)
        feature = int(node["split_feature"])
        if node["decision_type"] == "==":
            index = self._add_node(feature, MEMBER, 0.0)
            self.members += [*map(float, str(node["threshold"]).split("||")), float("nan")]
        else:
            index = self._add_node(feature, AT_MOST, float(rounded_down(float(node["threshold"]))))
        self.children[index] = [self._add(node["left_child"]), self._add(node["right_child"])]
        return index, 0

    def _add_node(self, feature: int, mode: int, split: float) -> int:
        self.features.append(feature)
        self.modes.append(mode)
        self.splits.append(split)
        self.children.append([])
        return len(self.features) - 1

    def _add_leaf(self, node: Mapping[str, Any]) -> tuple[int, int]:
        self.leaves.append(float(node["leaf_value"]))
        return len(self.leaves) - 1, 1


def rounded_down(threshold: float) -> np.float32:
    """The largest float32 that is not above `threshold`: `x <= threshold` decides the same for every float32 `x`."""
    nearest = np.float32(threshold)
    return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > threshold else nearest


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
