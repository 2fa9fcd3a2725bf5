"""`NAME-raw`: the served graph behind its own preprocessing, so that a client sends the columns of the log as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray

from ocad.clicks.model import probability_tensor
from ocad.clicks.training import PARITY_SAMPLES, TrainedClicks
from ocad.contexts import Artifact, Export
from ocad.export.onnx import write_onnx
from ocad.tabular.raw_graph import MISSING_INTEGER, raw_columns, raw_graph, raw_inputs
from ocad.tabular.sources import Log
from ocad_registry import Signature, Tensor

if TYPE_CHECKING:
    from ocad.contexts import RunContext
    from ocad.protocols import Arrays
    from ocad.tabular.encoder import Encoder


def export_raw(context: RunContext, handle: TrainedClicks, graph: Path, preprocessing: Sequence[Artifact]) -> Export:
    """The graph at `graph` over raw columns; raises `UsageError` where ONNX cannot express the preprocessing."""
    model = raw_graph(onnx.load(graph), handle.encoder)
    artifacts = write_onnx(model, context.run / "export-raw" / graph.name)
    return Export(
        artifacts=[*artifacts, *preprocessing],
        signature=raw_signature(handle.encoder),
        samples=raw_samples(context, handle.encoder),
        description="probability of a click from the raw columns of the log",
    )


def raw_signature(encoder: Encoder) -> Signature:
    """One input `(-1, 1)` for each raw column, to `probability` `(-1, 1)`."""
    inputs = [
        Tensor.model_validate({"name": name, "dtype": kind, "shape": [-1, 1]})
        for name, kind in raw_inputs(encoder).items()
    ]
    return Signature(inputs=inputs, outputs=[probability_tensor()])


def raw_samples(context: RunContext, encoder: Encoder) -> dict[str, NDArray[Any]]:
    """Rows of the log for parity, spread evenly over its first batch; text as fixed-width unicode, which needs no pickle."""
    source = context.data
    table = next(Log(source, source.path, encoder.features, kinds=encoder.kinds).tables(encoder.columns))
    chosen = np.unique(np.linspace(0, len(table) - 1, PARITY_SAMPLES).astype(int))
    columns = raw_columns(table.take(chosen), encoder)
    return {name: array.astype(str) if array.dtype == np.object_ else array for name, array in columns.items()}


def encode_raw(handle: TrainedClicks, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Raw columns `(n, 1)` through the trained encoder."""
    encoded = handle.encoder.transform(rows_of(inputs, handle.encoder))
    return cast("dict[str, NDArray[Any]]", handle.shape.arrays(encoded.ids, encoded.numerics))


def rows_of(inputs: Arrays, encoder: Encoder) -> pa.Table:
    """Raw columns `(n, 1)` as rows of a log: what `raw_columns` made of them, the other way round."""
    times = {time.column for time in encoder.features.temporal}
    columns: dict[str, pa.Array] = {}
    for name, array in inputs.items():
        flat = array[:, 0]
        missing = flat == MISSING_INTEGER if flat.dtype == np.int64 else None
        columns[name] = pa.array(flat.tolist() if flat.dtype.kind in "UO" else flat, mask=missing)
        if name in times:
            columns[name] = columns[name].cast(pa.timestamp("s"))
    return pa.table(columns)
