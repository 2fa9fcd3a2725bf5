"""Export of torch modules to ONNX, in the one form that the registry stores and the servers read."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ocad.contexts import Artifact

if TYPE_CHECKING:
    import onnx
    import torch

EXTERNAL_DATA_BYTES = 1 << 20
"""Graphs with more weights than this keep them in `NAME.onnx.data`, which runtimes memory-map (DESIGN §4)."""
_ALIGNMENT = 4096
IR_VERSION = 10
"""The newest file format that is written: the `onnx` package writes newer ones than runtimes read."""


def export_onnx(
    module: torch.nn.Module,
    example: Mapping[str, torch.Tensor],
    folder: Path,
    outputs: Sequence[str],
    name: str = "model",
) -> list[Artifact]:
    """Exports `module` to `folder/NAME.onnx` with a free batch dimension and returns the artifacts, the graph first.

    `example` gives one tensor for each argument of `forward`, in its order and named as the graph's inputs; the first
    axis of every input and output is the batch. Uses torch's dynamo exporter. The module is exported in evaluation mode.
    """
    import torch

    module.eval()
    batch = torch.export.Dim("batch", min=1)
    # two rows: an example batch of one would be specialised to one by the exporter
    tensors = tuple(
        tensor.repeat(2, *[1] * (tensor.dim() - 1)) if tensor.shape[0] == 1 else tensor for tensor in example.values()
    )
    with _quiet():
        program = torch.onnx.export(
            module,
            tensors,
            dynamo=True,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in tensors),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    return write_onnx(program.model_proto, folder / f"{name}.onnx")


def write_onnx(model: onnx.ModelProto, path: Path) -> list[Artifact]:
    """Writes `model`, its weights beside it as aligned external data when they exceed 1 MiB, checks it, lists the files."""
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    model.ir_version = min(model.ir_version, IR_VERSION)
    _strip_build_traces(model)
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    artifacts = [Artifact(path, "onnx", "application/onnx")]
    if weights > EXTERNAL_DATA_BYTES:
        _write_external_data(model, data)
        artifacts.append(Artifact(data, "onnx-data", "application/octet-stream"))
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    return artifacts


def hide_output(path: Path, name: str) -> None:
    """Takes `name` off the outputs of the graph at `path`; the value stays inside, for `open_session` to bring out."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    kept = [output for output in model.graph.output if output.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _write_external_data(model: onnx.ModelProto, data: Path) -> None:
    """Moves tensors of a page or more to `data`, each aligned to a page so that a runtime can map it."""
    import onnx

    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < _ALIGNMENT:
                continue
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            content = tensor.raw_data
            onnx.external_data_helper.set_external_data(tensor, data.name, offset=file.tell(), length=len(content))
            file.write(content)
            tensor.ClearField("raw_data")


def _strip_build_traces(model: onnx.ModelProto) -> None:
    """Removes the exporter's stack traces: they carry paths of the building machine and change the digest from run to run."""
    del model.metadata_props[:]
    model.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks on stdout and through warnings; stdout belongs to the answer."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
