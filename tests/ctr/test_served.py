"""`ocad predict` in Python and the Rust server over tritonclient: the same calibrated probability for the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.ctr.conftest import Bench
from tests.serving.servers import Server

from ocad.pipeline import TrainResult
from ocad.tabular.raw_graph import raw_columns
from ocad.versions import predict_file

ROWS = 300
SERVER_TOLERANCE = 1e-6
"""The server's bar of the design; two float32 ulps come on top."""


@pytest.fixture(scope="module")
def server(bench: Bench) -> Iterator[Server]:
    with Server(bench.folder / "models") as running:
        running.wait_ready()
        yield running


def test_the_server_answers_as_python_does(trained: TrainResult, bench: Bench, server: Server) -> None:
    (raw,) = trained.also
    rows = pd.read_parquet(bench.log)
    expected = predict_file(trained.version, bench.session, str(bench.log))["probability"].to_numpy()[:ROWS]
    model: Any = bench.session.load(trained.version.ref)
    encoded = model.encoder.transform(rows.head(ROWS))
    asked = {
        trained.version: model.shape.arrays(encoded.ids, encoded.numerics),
        raw: raw_columns(rows.head(ROWS), model.encoder),
    }
    allowed = SERVER_TOLERANCE + 2 * np.spacing(expected.astype(np.float32))
    for version, arrays in asked.items():
        for triton, address in ((tritonclient.http, server.http), (tritonclient.grpc, server.grpc)):
            answer = ask(triton, address, version, arrays)
            assert answer.shape == (ROWS, 1)
            assert (np.abs(answer[:, 0] - expected) <= allowed).all()


def test_the_server_refuses_ids_of_no_field(trained: TrainResult, bench: Bench, server: Server) -> None:
    model: Any = bench.session.load(trained.version.ref)
    encoded = model.encoder.transform(pd.read_parquet(bench.log).head(2))
    for wrong in (-1, model.encoder.table_rows):
        arrays = model.shape.arrays(encoded.ids.copy(), encoded.numerics)
        arrays["ids"][0, 0] = wrong
        with pytest.raises(Exception, match="check that ids are within the vocabulary"):
            ask(tritonclient.http, server.http, trained.version, arrays)


def ask(triton: Any, address: str, version: Any, arrays: dict[str, Any]) -> Any:
    """The version's `probability` over the wire."""
    types = {tensor.name: tensor.dtype for tensor in version.manifest.signature.inputs}
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, array.shape, types[name])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    with triton.InferenceServerClient(address) as client:
        return client.infer(version.name, inputs, model_version=version.version).as_numpy("probability")
