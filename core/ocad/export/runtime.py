"""An ONNX graph in process, checked against its signature: what `ocad.load` answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.errors import DataError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from ocad.protocols import Arrays
    from ocad_registry import Signature, Tensor

NUMPY_TYPES: Mapping[str, type] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
"""The Open Inference Protocol's type names in numpy's terms."""


class OnnxPredictor:
    """The `graph`, a file or its bytes, in one onnxruntime session with `threads` intra-op threads."""

    def __init__(self, graph: Path | bytes, signature: Signature, threads: int = 1) -> None:
        self.signature = signature
        self._session = open_session(graph, threads)
        self._outputs = [tensor.name for tensor in signature.outputs]

    def predict(self, inputs: Arrays | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name for `inputs`, cast safely to the signature's dtypes; see `Predictor.predict`."""
        feeds = check_inputs(self.signature, inputs)
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))


def open_session(graph: Path | bytes, threads: int = 1, inner: Sequence[str] = ()) -> InferenceSession:
    """The graph, a file or its bytes, in onnxruntime; of a file, values named in `inner`, float32 inside it, are outputs too."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model_or_path = graph if isinstance(graph, bytes) else str(graph)
    if inner and isinstance(graph, Path):
        import onnx

        model = onnx.load(graph, load_external_data=False)
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inner
        )
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
        model_or_path = model.SerializeToString()
    return onnxruntime.InferenceSession(model_or_path, options, providers=["CPUExecutionProvider"])


def check_inputs(signature: Signature, inputs: Arrays | NDArray[Any]) -> dict[str, NDArray[Any]]:
    """`inputs` as arrays of the signature's dtypes; raises `DataError` naming the input that does not fit."""
    if not isinstance(inputs, Mapping):
        if len(signature.inputs) != 1:
            names = ", ".join(f"`{tensor.name}`" for tensor in signature.inputs)
            raise DataError("a bare array fits only a model of one input", f"give a dict with {names}")
        inputs = {signature.inputs[0].name: inputs}
    known = {tensor.name for tensor in signature.inputs}
    for name in inputs:
        if name not in known:
            raise DataError(f"unknown input `{name}`", "known: " + ", ".join(f"`{n}`" for n in sorted(known)))
    return {tensor.name: _check_input(tensor, inputs) for tensor in signature.inputs}


def _check_input(tensor: Tensor, inputs: Arrays) -> NDArray[Any]:
    if tensor.name not in inputs:
        raise DataError(f"missing input `{tensor.name}`", f"give {tensor.dtype} of shape {tuple(tensor.shape)}")
    array = np.asarray(inputs[tensor.name])
    shape = tuple(tensor.shape)
    if array.ndim != len(shape) or any(want not in (-1, got) for want, got in zip(shape, array.shape, strict=True)):
        raise DataError(f"input `{tensor.name}` has shape {array.shape}", f"give {shape}, where -1 is any size")
    wanted = np.dtype(NUMPY_TYPES[tensor.dtype])
    if array.dtype == wanted:
        return array
    if not np.can_cast(array.dtype, wanted, casting="same_kind"):
        raise DataError(f"input `{tensor.name}` has dtype {array.dtype}", f"give {wanted.name}")
    return array.astype(wanted)
