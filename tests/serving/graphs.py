"""Small ONNX graphs for the server's tests, and the element types that ONNX and the protocol share."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


class ElementType(NamedTuple):
    """An element type: the protocol's name, ONNX's number, numpy's type, and values worth sending."""

    name: str
    onnx: int
    numpy: Any
    values: list[Any]


ELEMENT_TYPES = [
    ElementType("BOOL", TensorProto.BOOL, np.bool_, [True, False, True, True]),
    ElementType("INT8", TensorProto.INT8, np.int8, [-128, -1, 0, 127]),
    ElementType("INT16", TensorProto.INT16, np.int16, [-32768, -1, 0, 32767]),
    ElementType("INT32", TensorProto.INT32, np.int32, [-(2**31), -1, 0, 2**31 - 1]),
    ElementType("INT64", TensorProto.INT64, np.int64, [-(2**63), -1, 2**53 + 1, 2**63 - 1]),
    ElementType("UINT8", TensorProto.UINT8, np.uint8, [0, 1, 128, 255]),
    ElementType("UINT16", TensorProto.UINT16, np.uint16, [0, 1, 32768, 65535]),
    ElementType("UINT32", TensorProto.UINT32, np.uint32, [0, 1, 2**31, 2**32 - 1]),
    ElementType("UINT64", TensorProto.UINT64, np.uint64, [0, 1, 2**53 + 1, 2**64 - 1]),
    ElementType("FP16", TensorProto.FLOAT16, np.float16, [-65504.0, 6.1e-5, 0.1, 65504.0]),
    ElementType("FP32", TensorProto.FLOAT, np.float32, [-3.4e38, 1e-45, 0.1, 3.4e38]),
    ElementType("FP64", TensorProto.DOUBLE, np.float64, [-1.7e308, 5e-324, 0.1, 1.7e308]),
    ElementType("BYTES", TensorProto.STRING, np.object_, ["", "a", "déjà vu", '"quoted"\n\t']),
]
BY_NAME = {element.name: element for element in ELEMENT_TYPES}


class Port(NamedTuple):
    """An input or output of a graph; -1 is a free dimension."""

    name: str
    datatype: str
    shape: list[int]

    def value_info(self) -> Any:
        """As ONNX writes it; the free dimension is the batch."""
        dimensions = ["batch" if size < 0 else size for size in self.shape]
        return helper.make_tensor_value_info(self.name, BY_NAME[self.datatype].onnx, dimensions)


class Graph(NamedTuple):
    """A model with its signature."""

    model: onnx.ModelProto
    inputs: list[Port]
    outputs: list[Port]


def graph(nodes: list[Any], inputs: list[Port], outputs: list[Port], weights: dict[str, Array] | None = None) -> Graph:
    """Builds and checks a model."""
    made = helper.make_graph(
        nodes,
        "test",
        [port.value_info() for port in inputs],
        [port.value_info() for port in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return Graph(model, inputs, outputs)


def echo(datatype: str) -> Graph:
    """`y` = `x`, rows of any number of elements fixed at 4."""
    return graph(
        [helper.make_node("Identity", ["x"], ["y"])], [Port("x", datatype, [-1, 4])], [Port("y", datatype, [-1, 4])]
    )


def scale(factor: float) -> Graph:
    """`y` = `factor` · `x`, `(batch, 2)`: the factor tells versions apart."""
    return graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [Port("x", "FP32", [-1, 2])],
        [Port("y", "FP32", [-1, 2])],
        {"factor": np.array(factor, np.float32)},
    )


def heavy_scale(factor: float, rounds: int = 5) -> Graph:
    """`scale` after `rounds` rounds of work (some 0.1 ms each), so that a client in Python can bring a load."""
    nodes = [
        helper.make_node("Loop", ["rounds", "always", "eye"], ["worked"], body=_work()),
        helper.make_node("ReduceMin", ["worked"], ["zero"], keepdims=0),
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "zero"], ["y"]),
    ]
    weights = _work_weights() | {"factor": np.array(factor, np.float32), "rounds": np.array(rounds, np.int64)}
    return graph(nodes, [Port("x", "FP32", [-1, 2])], [Port("y", "FP32", [-1, 2])], weights)


def mixed() -> Graph:
    """Several inputs and outputs: `sum` = a + b, `difference` = a − b, `flags` = a > b, `names` = name."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
        helper.make_node("Greater", ["a", "b"], ["flags"]),
        helper.make_node("Identity", ["name"], ["names"]),
    ]
    inputs = [Port("a", "FP32", [-1, 2]), Port("b", "FP32", [-1, 2]), Port("name", "BYTES", [-1, 1])]
    outputs = [Port("sum", "FP32", [-1, 2]), Port("difference", "FP32", [-1, 2])]
    return graph(nodes, inputs, [*outputs, Port("flags", "BOOL", [-1, 2]), Port("names", "BYTES", [-1, 1])])


def tower(seed: int = 7, width: int = 640) -> Graph:
    """A ReLU network `(batch, 16)` → `(batch, 1)` with more than 1 MiB of weights, so that they lie in external data."""
    random = np.random.default_rng(seed)
    sizes = [16, width, width, 1]
    weights = {
        f"w{layer}": random.normal(0, before**-0.5, (before, after)).astype(np.float32)
        for layer, (before, after) in enumerate(itertools.pairwise(sizes))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["m0"]),
        helper.make_node("Relu", ["m0"], ["r0"]),
        helper.make_node("MatMul", ["r0", "w1"], ["m1"]),
        helper.make_node("Relu", ["m1"], ["r1"]),
        helper.make_node("MatMul", ["r1", "w2"], ["m2"]),
        helper.make_node("Sigmoid", ["m2"], ["y"]),
    ]
    return graph(nodes, [Port("x", "FP32", [-1, 16])], [Port("y", "FP32", [-1, 1])], weights)


def lookup(size: int = 100) -> Graph:
    """`y` = the row of a table for an id: an id that is out of range fails inside the runtime."""
    table = np.random.default_rng(3).normal(size=(size, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "id"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["y"], axes=[1], keepdims=0),
    ]
    return graph(nodes, [Port("id", "INT64", [-1, 1])], [Port("y", "FP32", [-1, 3])], {"table": table})


def quantised() -> Graph:
    """`y` = `x` through a quantisation whose range is that of the whole batch, so that rows may not be joined."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "step", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"]),
    ]
    return graph(nodes, [Port("x", "FP32", [-1, 2])], [Port("y", "FP32", [-1, 2])])


def centred() -> Graph:
    """`y` = `x` less the mean of the batch: what one client is answered depends on who shares its run."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return graph(nodes, [Port("x", "FP32", [-1, 2])], [Port("y", "FP32", [-1, 2])])


def fixed() -> Graph:
    """`y` = sum of a `(3,)` vector: a graph without a batch dimension."""
    return graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)], [Port("x", "FP32", [3])], [Port("y", "FP32", [1])]
    )


def busy() -> Graph:
    """`y` = `x` after as many rounds of work as the largest value of `x` says; a round takes some 0.1 ms."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Loop", ["most", "always", "eye"], ["worked"], body=_work()),
        helper.make_node("ReduceMin", ["worked"], ["least"], keepdims=0),
        helper.make_node("Cast", ["least"], ["zero"], to=TensorProto.INT64),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    return graph(nodes, [Port("x", "INT64", [-1, 1])], [Port("y", "INT64", [-1, 1])], _work_weights())


def identity(shape: list[int], declared: list[int] | None = None) -> Graph:
    """`y` = `x` of `shape`; its signature says `declared`, where that is not the same."""
    ports = [Port("x", "FP32", shape)], [Port("y", "FP32", shape)]
    made = graph([helper.make_node("Identity", ["x"], ["y"])], *ports)
    return Graph(made.model, *[[port._replace(shape=declared or shape) for port in side] for side in ports])


def endless() -> Graph:
    """`y` = `x` after 2^63 − 1 rounds that do nothing."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["go"]), helper.make_node("Identity", ["before"], ["after"])],
        "round",
        [
            value("count", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, ["batch", 2]),
        ],
        [value("go", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, ["batch", 2])],
    )
    nodes = [helper.make_node("Loop", ["rounds", "always", "x"], ["y"], body=body)]
    weights: dict[str, Array] = {"rounds": np.array(2**63 - 1, np.int64), "always": np.array(True)}
    return graph(nodes, [Port("x", "FP32", [-1, 2])], [Port("y", "FP32", [-1, 2])], weights)


def doubling(times: int) -> Graph:
    """`y` = `x` through functions of which each calls the one before twice: a small file of 2^`times` nodes."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]

    def function(number: int) -> Any:
        inner = f"f{number - 1}"
        if number == 0:
            nodes = [helper.make_node("Identity", ["a"], ["c"])]
        else:
            calls = [("a", "b"), ("b", "c")]
            nodes = [helper.make_node(inner, [before], [after], domain="own") for before, after in calls]
        return helper.make_function("own", f"f{number}", ["a"], ["c"], nodes, opsets)

    inputs, outputs = [Port("x", "FP32", [-1, 2])], [Port("y", "FP32", [-1, 2])]
    call = helper.make_node(f"f{times - 1}", ["x"], ["y"], domain="own")
    made = helper.make_graph([call], "test", [inputs[0].value_info()], [outputs[0].value_info()])
    functions = [function(number) for number in range(times)]
    return Graph(helper.make_model(made, opset_imports=opsets, ir_version=9, functions=functions), inputs, outputs)


_WIDTH = 192


def _work() -> Any:
    """The body of a loop: a product of two unit matrices."""
    matrix = [_WIDTH, _WIDTH]
    return helper.make_graph(
        [helper.make_node("Identity", ["going"], ["go"]), helper.make_node("MatMul", ["before", "eye"], ["after"])],
        "round",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, matrix),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, matrix),
        ],
    )


def _work_weights() -> dict[str, Array]:
    return {"eye": np.eye(_WIDTH, dtype=np.float32), "always": np.array(True)}
