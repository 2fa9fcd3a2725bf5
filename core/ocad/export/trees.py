"""Decision trees as one TreeEnsemble operator (ai.onnx.ml 5), whoever grew them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET, TREE_OPSET = 20, 5
AT_MOST, MEMBER = 0, 6
"""The node modes BRANCH_LEQ and BRANCH_MEMBER."""

Child = tuple[int, int]
"""Where a branch leads: the index of a node and 0, or of a leaf and 1."""


@dataclass
class Ensemble:
    """The flat arrays of a TreeEnsemble that sums the leaves its trees lead to."""

    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    children: list[tuple[Child, Child]] = field(default_factory=list)
    """For each node its child if the test holds and its child if not."""
    leaves: list[float] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    """The sets of the MEMBER nodes in order, NaN after each."""

    def add_tree(self) -> None:
        """Begins a tree: the next node that is added is its root."""
        self.roots.append(len(self.features))

    def add_threshold(self, feature: int, threshold: float) -> int:
        """A node that asks whether `feature` is at most `threshold`; answers with its index, its children still open."""
        return self._add_node(feature, AT_MOST, float(rounded_down(threshold)))

    def add_membership(self, feature: int, values: list[float]) -> int:
        """A node that asks whether `feature` is one of `values`; answers with its index, its children still open."""
        self.members += [*values, float("nan")]
        return self._add_node(feature, MEMBER, 0.0)

    def add_leaf(self, weight: float) -> Child:
        """A leaf, as a child."""
        self.leaves.append(weight)
        return len(self.leaves) - 1, 1

    def connect(self, node: int, holds: Child, fails: Child) -> Child:
        """Sets the children of `node` and answers with it as a child."""
        self.children[node] = (holds, fails)
        return node, 0

    def add_constant(self, weight: float) -> None:
        """A tree of a single leaf, which the operator does not know: a node with that leaf on both sides."""
        self.add_tree()
        node, leaf = self.add_threshold(0, 0.0), self.add_leaf(weight)
        self.connect(node, leaf, leaf)

    def node(self, features: str, output: str) -> onnx.NodeProto:
        """The operator, from `features` `(n, k)` float32 to the sums `output` `(n, 1)`."""
        return helper.make_node("TreeEnsemble", [features], [output], domain="ai.onnx.ml", **self._attributes())

    def _attributes(self) -> dict[str, Any]:
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

    def _add_node(self, feature: int, mode: int, split: float) -> int:
        self.features.append(feature)
        self.modes.append(mode)
        self.splits.append(split)
        self.children.append(((0, 0), (0, 0)))
        return len(self.features) - 1


def tree_opsets() -> list[onnx.OperatorSetIdProto]:
    """The operator sets of a graph with a TreeEnsemble."""
    return [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREE_OPSET)]


def rounded_down(threshold: float) -> np.float32:
    """The largest float32 that is not above `threshold`: `x <= threshold` decides the same for every float32 `x`."""
    nearest = np.float32(threshold)
    return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > threshold else nearest
