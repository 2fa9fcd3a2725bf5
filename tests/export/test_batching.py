"""Rows that depend on each other are found at export, however they do, and rows that do not never are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ocad.export.batching import is_batchable
from ocad.export.runtime import OnnxPredictor
from ocad_registry import Signature, Tensor

Array = NDArray[Any]


def signature(free: int = -1) -> Signature:
    return Signature(
        inputs=[Tensor(name="x", dtype="FP32", shape=[free, 3])],
        outputs=[Tensor(name="y", dtype="FP32", shape=[free, 3])],
    )


def predictor(*nodes: onnx.NodeProto, **weights: Array) -> OnnxPredictor:
    """A graph from `x` to `y`, both `(n, 3)`."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    initial = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    made = helper.make_graph(list(nodes), "g", ports[:1], ports[1:], initial)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return OnnxPredictor(model.SerializeToString(), signature())


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


SQUARE = np.eye(3, dtype=np.float32) * 2
INDEPENDENT = {
    "identity": predictor(node("Identity", "x", "y")),
    "matrix": predictor(node("MatMul", "x w", "y"), w=SQUARE),
    "softmax of a row": predictor(node("Softmax", "x", "y", axis=1)),
    "mean of a row": predictor(node("ReduceMean", "x", "m", axes=[1]), node("Sub", "x m", "y")),
    "clipped": predictor(node("Sigmoid", "x", "y")),
}
DEPENDENT = {
    "mean over the batch": predictor(node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m", "y")),
    "softmax over axis 0": predictor(node("Softmax", "x", "y", axis=0)),
    "largest of the batch": predictor(
        node("ReduceMax", "x", "m", axes=[0]), node("Mul", "m tiny", "s"), node("Add", "x s", "y"),
        tiny=np.array(1e-6, np.float32),
    ),
    "running sum": predictor(node("CumSum", "x axis", "y"), axis=np.array(0)),
    "quantised by the batch": predictor(
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("DequantizeLinear", "q s z", "y")
    ),
    "the first row": predictor(
        node("Gather", "x zero", "f", axis=0), node("Add", "x f", "y"), zero=np.array([0]),
    ),
    "rows reversed": predictor(
        node("Slice", "x s e a p", "y"), s=np.array([-1]), e=np.array([-(2**62)]), a=np.array([0]), p=np.array([-1]),
    ),
}  # fmt: skip


def samples(rows: int, constant: bool = False) -> dict[str, Array]:
    values = np.random.default_rng(5).normal(size=(rows, 3)).astype(np.float32)
    return {"x": np.ones_like(values) if constant else values}


@pytest.mark.parametrize("rows", [1, 2, 40, 700])
@pytest.mark.parametrize("kind", INDEPENDENT)
def test_rows_on_their_own_are_batchable(kind: str, rows: int) -> None:
    assert is_batchable(INDEPENDENT[kind].predict, signature(), samples(rows))


@pytest.mark.parametrize("constant", [False, True], ids=["varied", "constant samples"])
@pytest.mark.parametrize("rows", [2, 40, 700])
@pytest.mark.parametrize("kind", DEPENDENT)
def test_rows_that_depend_on_each_other_are_found(kind: str, rows: int, constant: bool) -> None:
    assert not is_batchable(DEPENDENT[kind].predict, signature(), samples(rows, constant))


def test_without_a_free_dimension_or_a_row_there_is_no_batch() -> None:
    identity = INDEPENDENT["identity"].predict
    assert not is_batchable(identity, signature(3), samples(3))
    assert not is_batchable(identity, signature(), samples(0))


def test_a_graph_that_refuses_a_batch_takes_rows_alone() -> None:
    def one_row(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if len(inputs["x"]) > 1:
            raise ValueError("one row at a time")
        return {"y": inputs["x"]}

    assert not is_batchable(one_row, signature(), samples(5))


def test_only_values_that_no_row_had_may_be_refused() -> None:
    def bounded(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if not (np.abs(inputs["x"]) < 100).all():
            raise ValueError("out of the table")
        return {"y": inputs["x"]}

    assert is_batchable(bounded, signature(), samples(20))


@pytest.mark.parametrize("dtype", [np.int64, np.object_, np.bool_])
def test_ids_and_words_are_compared_too(dtype: type) -> None:
    ports = [Tensor(name="x", dtype="INT64", shape=[-1, 1])]
    both = Signature(inputs=ports, outputs=[Tensor(name="y", dtype="BYTES", shape=[-1, 1])])
    values = {"x": np.arange(6).reshape(6, 1)}
    assert is_batchable(lambda inputs: {"y": inputs["x"].astype(dtype)}, both, values)
    swapped = lambda inputs: {"y": np.roll(inputs["x"], 1, axis=0).astype(dtype)}  # noqa: E731
    assert not is_batchable(swapped, both, values)
