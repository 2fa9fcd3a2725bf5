"""Answers equal onnxruntime's in Python to 1e-6 of the output's scale: every model, every batch size, both protocols."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.serving.graphs import BY_NAME, Array
from tests.serving.servers import Server, tensor

from ocad_registry import Registry, Version

PROTOCOLS = ("http", "grpc")
BATCHES = (1, 2, 3, 7, 16, 31, 64, 100, 128, 129, 200, 255, 256)
TOLERANCE = 1e-6
SEED = 20_240_817
LIMITS = {"lookup": 100, "busy": 3}
"""Integers stay below these, where a graph takes no others."""

Ask = Callable[[str, dict[str, Array]], dict[str, Array]]


def versions(root: Path) -> list[Version]:
    """Every version with a graph."""
    store = Registry(root)
    found = [store.resolve(entry.ref) for entry in store.list()]
    return [version for version in found if any(file.role == "onnx" for file in version.files)]


def sample(version: Version, rows: int, random: np.random.Generator) -> dict[str, Array]:
    """Random inputs that fit the signature."""
    signature = version.manifest.signature
    assert signature is not None
    return {
        port.name: _values(port.dtype, [rows if size < 0 else size for size in port.shape], version.name, random)
        for port in signature.inputs
    }


def _values(datatype: str, shape: list[int], model: str, random: np.random.Generator) -> Array:
    numpy = BY_NAME[datatype].numpy
    if datatype == "BYTES":
        return random.choice(np.array([b"", b"a", "é".encode()], dtype=object), shape)
    if datatype.startswith("FP"):
        return random.normal(size=shape).astype(numpy)
    if datatype == "BOOL":
        return random.integers(0, 2, shape).astype(numpy)
    return random.integers(0, LIMITS.get(model, 100), shape).astype(numpy)


def client(server: Server, protocol: str) -> Ask:
    """Asks for all outputs of a reference over `protocol`, with one connection for each call."""
    module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc

    def ask(ref: str, inputs: dict[str, Array]) -> dict[str, Array]:
        name, version = ref.split("@")
        tensors = []
        for key, values in inputs.items():
            datatype = next(e.name for e in BY_NAME.values() if e.numpy == values.dtype.type)
            tensors.append(module.InferInput(key, list(values.shape), datatype))
            tensors[-1].set_data_from_numpy(values)
        with module.InferenceServerClient(getattr(server, protocol)) as connection:
            answer = connection.infer(name, tensors, model_version=version)
            response = answer.get_response()
            outputs = response["outputs"] if protocol == "http" else response.outputs
            names = [output["name"] if protocol == "http" else output.name for output in outputs]
            return {name: answer.as_numpy(name) for name in names}

    return ask


def expected(version: Version, inputs: dict[str, Array]) -> dict[str, Array]:
    """What onnxruntime answers in this process."""
    session = onnxruntime.InferenceSession(str(version.file("onnx")), providers=["CPUExecutionProvider"])
    texts = {name: _decoded(values) for name, values in inputs.items()}
    return {output.name: values for output, values in zip(session.get_outputs(), session.run(None, texts), strict=True)}


def _decoded(values: Array) -> Array:
    if values.dtype != np.object_:
        return values
    return np.array([text.decode() for text in values.ravel()], dtype=object).reshape(values.shape)


def compare(version: Version, given: dict[str, Array], wanted: dict[str, Array]) -> None:
    """DESIGN's bar: 1e-6 of the output's scale and two float32 ulps of the reference, divided by the scale."""
    assert list(given) == list(wanted)
    signature = version.manifest.signature
    assert signature is not None
    for port in signature.outputs:
        found, reference = given[port.name], wanted[port.name]
        assert found.shape == reference.shape
        if not port.dtype.startswith("FP"):
            assert _decoded(found).tolist() == reference.tolist()
            continue
        scale = port.scale or 1.0
        allowed = TOLERANCE + 2 * np.spacing(np.abs(reference).astype(np.float32)) / scale
        assert (np.abs(found.astype(np.float64) - reference) / scale <= allowed).all(), (version.ref, port.name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_model_alone(server: Server, registry: Path, protocol: str) -> None:
    ask, random = client(server, protocol), np.random.default_rng(SEED)
    for version in versions(registry):
        for rows in (1, 7, 256):
            inputs = sample(version, rows, random)
            compare(version, ask(version.ref, inputs), expected(version, inputs))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", ["tower@1.0.0", "mixed@1.0.0"])
def test_every_batch_size_among_others(server: Server, registry: Path, protocol: str, model: str) -> None:
    """Requests of all sizes at once, so that the server joins them: each gets its own rows, in its own order."""
    ask, random, version = client(server, protocol), np.random.default_rng(SEED), Registry(registry).resolve(model)
    requests = [sample(version, rows, random) for rows in (*BATCHES, *[1] * 64)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda inputs: ask(model, inputs), requests))
    for inputs, answer in zip(requests, answers, strict=True):
        compare(version, answer, expected(version, inputs))
    series = server.metrics()
    answered = [f'ocad_server_requests_total{{protocol="{p}",model="{version.name}",outcome="ok"}}' for p in PROTOCOLS]
    runs = series[f'ocad_server_batch_rows_count{{model="{version.name}"}}']
    assert runs < sum(series[name] for name in answered), "none of them was batched with another"


def test_rows_that_would_change_each_other_are_not_joined(server: Server, registry: Path) -> None:
    """Dynamic quantisation takes its range from the whole batch: small rows beside large ones would become zero."""
    ask, version = client(server, "http"), Registry(registry).resolve("quantised@1.0.0")
    requests = [{"x": np.array([[10.0**power, -(10.0**power)]], np.float32)} for power in range(-8, 9)] * 4
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda inputs: ask(version.ref, inputs), requests))
    for inputs, answer in zip(requests, answers, strict=True):
        compare(version, answer, expected(version, inputs))


def test_one_bad_row_does_not_fail_its_neighbours(server: Server) -> None:
    ids = [[number % 100 if number % 5 else 10**6] for number in range(200)]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda row: server.infer("lookup", [tensor("id", "INT64", [row])]).status, ids))
    assert statuses == [400 if row == [10**6] else 200 for row in ids]
