"""scikit-learn's isolation forest as a graph: one TreeEnsemble whose leaves sum to the logarithm of the score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ocad.export.onnx import IR_VERSION
from ocad.export.trees import Child, Ensemble, tree_opsets
from ocad_registry import Signature, Tensor

FEATURES, SCORE = "features", "score"


def make_graph(forest: Any) -> onnx.ModelProto:
    """From `features` `(n, k)` float32 to `score` `(n, 1)`: 2 ** (-mean path length / usual path length), in (0, 1).

    `forest` is a fitted `sklearn.ensemble.IsolationForest`, whose `score_samples` is the score's negative. A leaf weighs
    the path that ends there, its depth and the usual path length c(n) among its n rows, times -ln 2 / (trees · c(rows of
    a tree)), so that the graph needs no more than the exponential of their sum.
    """
    ensemble = Ensemble()
    unit = -math.log(2) / (len(forest.estimators_) * usual_path(forest.max_samples_))
    for tree, columns in zip(forest.estimators_, forest.estimators_features_, strict=True):
        _add_tree(ensemble, tree.tree_, columns, unit)
    inputs = [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", forest.n_features_in_])]
    outputs = [helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, ["batch", 1])]
    nodes = [ensemble.node(FEATURES, "logarithm"), helper.make_node("Exp", ["logarithm"], [SCORE])]
    graph = helper.make_graph(nodes, "forest", inputs, outputs)
    return helper.make_model(graph, opset_imports=tree_opsets(), ir_version=IR_VERSION)


def signature(features: int) -> Signature:
    """What the graph takes and gives: scores compare as they are."""
    inputs = [Tensor(name=FEATURES, dtype="FP32", shape=[-1, features])]
    return Signature(inputs=inputs, outputs=[Tensor(name=SCORE, dtype="FP32", shape=[-1, 1], scale=1.0)])


def usual_path(rows: int) -> float:
    """c(n): the mean path length of an unsuccessful search in a binary search tree of `rows` rows (Liu et al. 2008, eq. 1)."""
    if rows <= 1:
        return 0.0
    if rows == 2:
        return 1.0
    return 2 * (math.log(rows - 1) + np.euler_gamma) - 2 * (rows - 1) / rows


def _add_tree(ensemble: Ensemble, tree: Any, columns: NDArray[np.int64], unit: float) -> None:
    """Takes in one tree of scikit-learn, whose own features are `columns` of the rows."""

    def add(node: int, depth: int) -> Child:
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left < 0:
            return ensemble.add_leaf(unit * (depth + usual_path(int(tree.n_node_samples[node]))))
        index = ensemble.add_threshold(int(columns[tree.feature[node]]), float(tree.threshold[node]))
        return ensemble.connect(index, add(left, depth + 1), add(right, depth + 1))

    if tree.node_count == 1:
        ensemble.add_constant(unit * usual_path(int(tree.n_node_samples[0])))
        return
    ensemble.add_tree()
    add(0, 0)
