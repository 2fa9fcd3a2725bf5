"""The forest behind the real server: the registered graph as it is, and a detector that asks it there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.isolation_forest.conftest import Bench
from tests.serving.servers import Server

from ocad.detection.remote import RemotePredictor
from ocad.export.parity import load_samples
from ocad_isolation_forest.detector import IsolationForestDetector
from ocad_isolation_forest.graph import FEATURES, SCORE

SERVER_TOLERANCE = 1e-6
"""The server's bar of the design; two float32 ulps come on top."""


@pytest.mark.parametrize("triton", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_the_server_answers_as_python_does(bench: Bench, server: Server, triton: Any) -> None:
    version = bench.result.version
    samples, reference = load_samples(version.path / "parity.npz")
    model: Any = bench.session.load(version.ref)
    expected = model.predict(samples)[SCORE]
    tensor = triton.InferInput(FEATURES, samples[FEATURES].shape, "FP32")
    tensor.set_data_from_numpy(samples[FEATURES])
    address = server.http if triton is tritonclient.http else server.grpc
    with triton.InferenceServerClient(address) as client:
        answer = client.infer(version.name, [tensor], model_version=version.version).as_numpy(SCORE)
    assert answer.shape == (len(expected), 1)
    allowed = SERVER_TOLERANCE + 2 * np.spacing(expected)
    assert (np.abs(answer - expected) <= allowed).all()
    np.testing.assert_allclose(answer, reference[SCORE], rtol=0, atol=1e-5)


def test_a_detector_that_asks_the_server_scores_as_one_in_process(bench: Bench, server: Server) -> None:
    version, frame = bench.result.version, bench.links.head(400)
    here, there = (bench.session.load(version.ref) for _ in range(2))
    assert isinstance(here, IsolationForestDetector)
    assert isinstance(there, IsolationForestDetector)
    remote = RemotePredictor(f"http://{server.http}", version)
    there.use_graph(version.ref, remote)
    assert there.graphs() == {version.ref: remote}
    np.testing.assert_allclose(there.raw(frame), here.raw(frame), rtol=0, atol=SERVER_TOLERANCE)
    here.forget()
    there.forget()
    row = frame.iloc[0]
    values = [float(row[metric]) for metric in here.metrics]
    assert there.score_point("north", 5, values) == pytest.approx(here.score_point("north", 5, values), abs=1e-6)
