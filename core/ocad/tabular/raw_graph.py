"""The encoder as ONNX operators before a model's graph, so that a client sends raw columns and needs no Python.

Every raw input has shape (-1, 1): text as BYTES ("" is missing), whole numbers and times (seconds since 1970, UTC) as INT64
(-2⁶³ is missing), other numbers as FP32 (NaN is missing). What operators cannot express is a `UsageError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.errors import UsageError
from ocad.tabular.columns import as_table, column_of, seconds, try_categories, try_numbers
from ocad.tabular.encoder import Encoder, Field
from ocad.tabular.scalers import Scaler
from ocad.tabular.spec import Categorical
from ocad.tabular.temporal import DAY, HOUR
from ocad.tabular.vocabulary import MULTIPLIER, PRIME, Vocabulary

if TYPE_CHECKING:
    import onnx
    import pyarrow as pa

MISSING_INTEGER = -(1 << 63)
RARE_INTEGER = MISSING_INTEGER + 1
"""What no log holds: a value that is no whole number, which training never had."""
BYTES, INT64, FP32 = "BYTES", "INT64", "FP32"
_ML_VERSION = 4
_OLDEST_OPSET = 20
"""IsNaN of doubles and StringSplit came with it."""


def raw_inputs(encoder: Encoder) -> dict[str, str]:
    """The raw columns in order, each with its type in the Open Inference Protocol's terms."""
    kinds: dict[str, str] = {}
    for item in encoder.features.categorical:
        kinds[item.column] = BYTES if encoder.vocabularies[item.share or item.column].is_text else INT64
    for time in encoder.features.temporal:
        kinds.setdefault(time.column, INT64)
    for number in encoder.features.numeric:
        kinds.setdefault(number.column, FP32)
    return {name: kinds[name] for name in encoder.columns}


def raw_columns(rows: pa.Table | pd.DataFrame, encoder: Encoder) -> dict[str, NDArray[Any]]:
    """The columns of `rows` as the raw graph takes them, (n, 1) each."""
    table = as_table(rows)
    times = {time.column: time.clock() for time in encoder.features.temporal}
    arrays: dict[str, NDArray[Any]] = {}
    for name, kind in raw_inputs(encoder).items():
        column = column_of(table, name)
        if kind == FP32:
            array: NDArray[Any] = try_numbers(column, name)[0]
        elif name in times:
            array = seconds(column, name, times[name])
        else:
            values, odd = try_categories(column, name, encoder.kinds[name])
            array = values.fill_null(MISSING_INTEGER if kind == INT64 else "").to_numpy(zero_copy_only=False)
            if odd.any():
                array = np.where(odd, RARE_INTEGER, array)
        arrays[name] = array[:, None]
    return arrays


def raw_graph(graph: onnx.ModelProto, encoder: Encoder) -> onnx.ModelProto:
    """`graph`, which takes `ids` and `numerics`, with the encoder before it: raw columns in, the same outputs.

    Raises `UsageError` for hashed text, `historical_ctr`, and an operator set older than 20.
    """
    import onnx
    from onnx import compose, helper

    model = compose.add_prefix(graph, "model/", rename_outputs=False)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", 0) < _OLDEST_OPSET:
        raise UsageError(f"a graph of operator set {versions.get('', 0)} cannot take raw columns", "export it with 20")
    taken = {output.name for output in model.graph.output}
    builder = _Builder(encoder)
    for name in builder.inputs:
        if name in taken:
            raise UsageError(f"the column `{name}` is named as an output of the graph", "rename the column")
    builder.build(present={value.name for value in model.graph.input})
    types = {BYTES: onnx.TensorProto.STRING, INT64: onnx.TensorProto.INT64, FP32: onnx.TensorProto.FLOAT}
    joined = helper.make_graph(
        [*builder.nodes, *model.graph.node],
        "raw",
        [helper.make_tensor_value_info(name, types[kind], ["batch", 1]) for name, kind in builder.inputs.items()],
        list(model.graph.output),
        [*builder.constants, *model.graph.initializer],
    )
    opsets = {"ai.onnx.ml": _ML_VERSION, **versions}
    result = helper.make_model(
        joined,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        functions=list(model.functions),
    )
    result.ir_version = graph.ir_version
    return result


class _Builder:
    """Collects nodes and constants; values are named `raw/N`."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.inputs = raw_inputs(encoder)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._count = 0
        self._slots: dict[str, str] = {}

    def build(self, present: set[str]) -> None:
        """Adds the nodes that end in `model/ids` and `model/numerics`, those of the two that are `present`."""
        ends = {"model/ids": self._ids, "model/numerics": self._numerics}
        for name, columns in ends.items():
            if name in present:
                self._node("Concat", *columns(), output=name, axis=1)

    def _ids(self) -> list[str]:
        categorical = {item.column: item for item in self.encoder.features.categorical}
        return [
            self._time_part(field) if field.part else self._code(field, categorical) for field in self.encoder.fields
        ]

    def _code(self, field: Field, categorical: dict[str, Categorical]) -> str:
        vocabulary = self.encoder.vocabularies[field.group]
        item = categorical[field.column]
        value = field.column if field.slot is None else self._slot(item, field.slot)
        if vocabulary.buckets:
            return self._hashed(vocabulary, value)
        codes = vocabulary.offset + 1 + np.arange(len(vocabulary.values))
        missing = vocabulary.offset + vocabulary.missing_code
        keys = [*vocabulary.values.to_pylist(), "" if vocabulary.is_text else MISSING_INTEGER]
        attributes: dict[str, Any] = {"keys_strings" if vocabulary.is_text else "keys_int64s": keys}
        return self._node(
            "LabelEncoder",
            value,
            domain="ai.onnx.ml",
            values_int64s=[*codes.tolist(), missing],
            default_int64=vocabulary.offset,
            **attributes,
        )

    def _slot(self, item: Categorical, slot: int) -> str:
        """One of the values in a cell; "" where it has fewer."""
        if item.column not in self._slots:
            flat = self._node("Squeeze", item.column, self._constant([1]))
            split = self._node("StringSplit", flat, outputs=2, delimiter=item.separator)
            rows = self._node("Shape", flat)
            shape = self._node("Concat", rows, self._constant([item.slots]), axis=0)
            blank = self._node("Expand", self._constant([""], np.object_), shape)
            self._slots[item.column] = self._node("Concat", split, blank, axis=1)
        columns = self._slots[item.column]
        return self._node("Slice", columns, self._constant([slot]), self._constant([slot + 1]), self._constant([1]))

    def _hashed(self, vocabulary: Vocabulary, value: str) -> str:
        if vocabulary.is_text:
            raise UsageError(
                f"the column `{vocabulary.name}` is text that is hashed, which no ONNX operator does",
                f"raise its `max_values` above {vocabulary.statistics['values']}, or leave the raw graph out",
            )
        prime = self._constant([PRIME])
        mixed = self._node("Mul", self._node("Mod", value, prime), self._constant([MULTIPLIER]))
        bucket = self._node("Mod", self._node("Mod", mixed, prime), self._constant([vocabulary.buckets]))
        code = self._node("Add", bucket, self._constant([vocabulary.offset + 1]))
        absent = self._node("Equal", value, self._constant([MISSING_INTEGER]))
        return self._node("Where", absent, self._constant([vocabulary.offset + vocabulary.missing_code]), code)

    def _time_part(self, field: Field) -> str:
        second = self._node("Mod", field.column, self._constant([DAY]))
        if field.part == "hour":
            part = self._node("Div", second, self._constant([HOUR]))
        else:
            day = self._node("Div", self._node("Sub", field.column, second), self._constant([DAY]))
            part = self._node("Mod", self._node("Add", day, self._constant([3])), self._constant([7]))
        return self._node("Add", part, self._constant([field.offset + 1]))

    def _numerics(self) -> list[str]:
        columns = []
        for item in self.encoder.features.numeric:
            single = self._cast(item.column, FP32) if self.inputs[item.column] == INT64 else item.column
            columns.append(self._scaled(single, self.encoder.scalers[item.column]))
            if item.indicator:
                columns.append(self._cast(self._node("IsNaN", single), FP32))
        for time in self.encoder.features.temporal:
            for part in time.parts:
                name = f"{time.column}_{part}"
                if name in self.encoder.scalers:
                    columns.append(self._scaled(self._recency(time.column, part), self.encoder.scalers[name]))
        return columns

    def _recency(self, column: str, part: str) -> str:
        if part != "recency":
            raise UsageError(f"`{part}` of the column `{column}` depends on the log's past", "leave the raw graph out")
        ago = self._node("Sub", self._constant([self.encoder.times[column].newest]), column)
        days = self._node("Div", self._cast(self._node("Max", ago, self._constant([0])), "FP64"), self._double([DAY]))
        return self._cast(self._node("Log", self._node("Add", days, self._double([1]))), FP32)

    def _scaled(self, single: str, scaler: Scaler) -> str:
        """What `Scaler.apply` does, in float64 as there."""
        value = self._cast(single, "FP64")
        if scaler.transform == "log":
            size = self._node("Log", self._node("Add", self._node("Abs", value), self._double([1])))
            value = self._node("Mul", self._node("Sign", value), size)
        if scaler.transform == "quantile" and len(scaler.knots) > 1:
            value = self._interpolated(value, np.asarray(scaler.knots), np.asarray(scaler.levels))
        elif scaler.transform == "quantile":
            value = self._node("Add", self._node("Mul", value, self._double([0])), self._double(scaler.levels))
        fallback = scaler.mean if scaler.transform == "none" else 0.0
        if scaler.transform != "none":
            centred = self._node("Sub", value, self._double([scaler.mean]))
            value = self._node("Div", centred, self._double([scaler.scale]))
        chosen = self._node("Where", self._node("IsNaN", single), self._double([fallback]), value)
        return self._cast(chosen, FP32)

    def _interpolated(self, value: str, knots: NDArray[np.float64], levels: NDArray[np.float64]) -> str:
        """Piecewise linear: the first level, and each segment's slope times how much of it lies below the value."""
        widths = np.diff(knots)
        beyond = self._node("Sub", value, self._double(knots[:-1]))
        inside = self._node("Max", self._node("Min", beyond, self._double(widths)), self._double([0]))
        slopes = self._double((np.diff(levels) / widths)[:, None])
        return self._node("Add", self._node("MatMul", inside, slopes), self._double([levels[0]]))

    def _node(self, kind: str, *inputs: str, output: str = "", outputs: int = 1, **attributes: Any) -> str:
        from onnx import helper

        names = [output or self._name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def _cast(self, value: str, kind: str) -> str:
        import onnx

        types = {FP32: onnx.TensorProto.FLOAT, "FP64": onnx.TensorProto.DOUBLE}
        return self._node("Cast", value, to=types[kind])

    def _double(self, values: Any) -> str:
        return self._constant(values, np.float64)

    def _constant(self, values: Any, kind: Any = np.int64) -> str:
        from onnx import numpy_helper

        name = self._name()
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"raw/{self._count}"
