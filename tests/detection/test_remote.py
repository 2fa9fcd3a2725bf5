"""A version asked over the Open Inference Protocol: the real server's answers, its refusals, and what a bad network does."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.alerts.receivers import dripping, free_port
from tests.serving import graphs
from tests.serving.registries import publish, publish_without_graph
from tests.serving.servers import Server

from ocad.detection.remote import BINARY_HEADER, RemotePredictor, ServerError
from ocad.detection.served import Patient
from ocad.errors import DataError, UsageError, VerificationError
from ocad.export.runtime import OnnxPredictor
from ocad_registry import Registry, Version


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Every element type, several inputs, weights in external data, and two versions of `scale`."""
    root = tmp_path_factory.mktemp("remote") / "models"
    for element in graphs.ELEMENT_TYPES:
        publish(root, f"echo-{element.name.lower()}", graphs.echo(element.name))
    publish(root, "mixed", graphs.mixed())
    publish(root, "tower", graphs.tower())
    publish(root, "lookup", graphs.lookup())
    publish(root, "scale", graphs.scale(1.0))
    publish(root, "scale", graphs.scale(2.0))
    publish_without_graph(root, "estimator")
    return Registry(root)


@pytest.fixture(scope="module")
def server(registry: Registry) -> Iterator[Server]:
    with Server(registry.resolve("scale@1.0.0").path.parents[1]) as running:
        running.wait_ready()
        yield running


def remote(server: Server, version: Version, **options: float) -> RemotePredictor:
    return RemotePredictor(f"http://{server.http}", version, **options)  # type: ignore[arg-type]


def local(version: Version) -> OnnxPredictor:
    assert version.manifest.signature is not None
    return OnnxPredictor(version.file("onnx"), version.manifest.signature)


@pytest.mark.parametrize("element", graphs.ELEMENT_TYPES, ids=lambda element: element.name)
def test_every_element_type_comes_back_to_the_bit(
    registry: Registry, server: Server, element: graphs.ElementType
) -> None:
    version = registry.resolve(f"echo-{element.name.lower()}")
    values = np.array([element.values, element.values[::-1]], element.numpy)
    answer = remote(server, version).predict({"x": values})["y"]
    assert answer.dtype == values.dtype
    assert answer.tolist() == values.tolist()


def test_nan_and_infinities_come_back(registry: Registry, server: Server) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    answer = remote(server, registry.resolve("echo-fp32")).predict(values)["y"]
    assert answer.tobytes() == values.tobytes()


@pytest.mark.parametrize("rows", [1, 2, 100, 5000])
def test_answers_equal_the_graph_in_this_process(registry: Registry, server: Server, rows: int) -> None:
    version = registry.resolve("tower")
    values = np.random.default_rng(rows).normal(size=(rows, 16)).astype(np.float32)
    np.testing.assert_allclose(remote(server, version).predict(values)["y"], local(version).predict(values)["y"], 1e-6)


def test_several_inputs_and_outputs(registry: Registry, server: Server) -> None:
    version = registry.resolve("mixed")
    inputs = {
        "name": np.array([["one"], ["zwölf"]], dtype=object),
        "b": np.array([[1, 5], [2, 1]], np.float32),
        "a": np.array([[3, 4], [5, 6]], np.float64),  # cast to the signature's FP32, as in process
    }
    answer, expected = remote(server, version).predict(inputs), local(version).predict(inputs)
    assert {name: array.tolist() for name, array in answer.items()} == {
        name: array.tolist() for name, array in expected.items()
    }


def test_the_exact_version_answers(registry: Registry, server: Server) -> None:
    row = np.array([[1.0, 3.0]], np.float32)
    answers = [remote(server, registry.resolve(f"scale@{version}")).predict(row)["y"] for version in ("1.0.0", "1.1.0")]
    assert [answer.tolist() for answer in answers] == [[[1.0, 3.0]], [[2.0, 6.0]]]


def test_one_connection_serves_many_calls(registry: Registry, server: Server) -> None:
    predictor, row = remote(server, registry.resolve("scale@1.0.0")), np.ones((1, 2), np.float32)
    predictor.predict(row)
    port = predictor._connection.sock.getsockname()[1]
    for _ in range(20):
        predictor.predict(row)
    assert predictor._connection.sock.getsockname()[1] == port
    predictor.close()
    assert predictor.predict(row)["y"].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.ones((1, 3), np.float32), "input `x` has shape (1, 3)"),
        ({"y": np.ones((1, 2), np.float32)}, "unknown input `y`"),
        (np.array([["a", "b"]]), "input `x` has dtype <U1"),
    ],
)
def test_inputs_that_do_not_fit_never_leave(registry: Registry, inputs: np.ndarray, said: str) -> None:
    predictor = RemotePredictor("http://127.0.0.1:1", registry.resolve("scale@1.0.0"))
    with pytest.raises(DataError) as caught:
        predictor.predict(inputs)
    assert caught.value.message == said


def test_what_the_graph_refuses_is_told(registry: Registry, server: Server) -> None:
    with pytest.raises(DataError, match=r"refused `lookup@1\.0\.0` \(") as caught:
        remote(server, registry.resolve("lookup")).predict(np.array([[10**6]]))
    assert "\n" not in str(caught.value)


def test_a_version_that_the_server_does_not_hold(server: Server, tmp_path: Path) -> None:
    absent = publish(tmp_path / "models", "absent", graphs.scale(1.0))
    newer = publish(tmp_path / "models", "scale", graphs.scale(1.0), "7.0.0")
    for version in (absent, newer):
        with pytest.raises(ServerError, match=f"refused `{version.ref}` .* let it serve the registry"):
            remote(server, version).predict(np.ones((1, 2), np.float32))


def test_other_files_under_the_same_version_are_noticed(server: Server, tmp_path: Path) -> None:
    other = publish(tmp_path / "models", "scale", graphs.scale(5.0))
    with pytest.raises(VerificationError, match=r"holds another `scale@1\.0\.0`"):
        remote(server, other).predict(np.ones((1, 2), np.float32))


def test_a_version_without_a_graph(registry: Registry, server: Server) -> None:
    with pytest.raises(UsageError, match="no graph that a server could run: let it run in process"):
        remote(server, registry.resolve("estimator"))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:port"])
def test_bad_addresses(registry: Registry, url: str) -> None:
    with pytest.raises(UsageError, match=r"bad server address .* `http://HOST:PORT`"):
        RemotePredictor(url, registry.resolve("scale@1.0.0"))


def test_a_server_that_is_not_there(registry: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # closed below: nobody listens there
    predictor = RemotePredictor(f"http://127.0.0.1:{port}", registry.resolve("scale@1.0.0"), retries=1)
    with pytest.raises(ServerError, match=r"does not answer \(connection refused; 2 attempts\): start it"):
        predictor.predict(np.ones((1, 2), np.float32))


def test_a_server_that_is_silent(registry: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, never answers
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        predictor = RemotePredictor(url, registry.resolve("scale@1.0.0"), timeout=0.05, retries=1)
        with pytest.raises(ServerError, match=r"does not answer \(timed out; 2 attempts\)"):
            predictor.predict(np.ones((1, 2), np.float32))


def answering(*answers: bytes, port: int = 0) -> tuple[str, threading.Thread]:
    """A listener that gives each connection the next of `answers` and closes it."""
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        with listener:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread


def http_answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def an_answer(version: Version) -> bytes:
    """What a server would say of `version` for one row: 3 and 4."""
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    head = json.dumps({"outputs": [output], "parameters": {"metadata_sha256": version.metadata_sha256}}).encode()
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(head) + 8}", f"{BINARY_HEADER}: {len(head)}", "", ""]
    return "\r\n".join(lines).encode() + head + np.array([[3.0, 4.0]], np.float32).tobytes()


def test_a_kept_connection_that_the_server_closed_is_opened_again(registry: Registry) -> None:
    version = registry.resolve("scale@1.0.0")
    url, _ = answering(an_answer(version), an_answer(version))
    predictor = RemotePredictor(url, version, retries=1)
    for _ in range(2):
        assert predictor.predict(np.ones((1, 2), np.float32))["y"].tolist() == [[3.0, 4.0]]


BUSY = http_answer("429 Too Many Requests", b'{"error": "the queue is full"}', "Retry-After: 0")


def test_a_busy_server_is_asked_again_and_not_for_ever(registry: Registry) -> None:
    url, thread = answering(BUSY, BUSY, BUSY)
    predictor = RemotePredictor(url, registry.resolve("scale@1.0.0"), retries=2)
    with pytest.raises(ServerError, match=r"\(the queue is full\): it stayed busy for 3 attempts"):
        predictor.predict(np.ones((1, 2), np.float32))
    thread.join(5)
    assert not thread.is_alive(), "the predictor asked fewer than 3 times"


def an_output(**changes: object) -> bytes:
    output = {"name": "y", "datatype": "FP32", "shape": [0], "parameters": {"binary_data_size": 0}} | changes
    return json.dumps({"outputs": [output]}).encode()


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"<html>",
            b"[]",
            b'{"outputs": [{"name": "y"}]}',
            b'{"outputs": 1}',
            b'{"outputs": [null]}',
            b"\xff\xfe\x00",
        ),
        *(b"[" * 20_000, b'{"outputs": [], "parameters": [1]}', b'{"outputs": [], "parameters": "x"}'),
        *(an_output(shape=[2**70]), an_output(shape=[-1, -1]), an_output(shape=["x"]), an_output(datatype=[1])),
        an_output(parameters={"binary_data_size": math.inf}),
    ],
)
def test_an_answer_of_something_else(registry: Registry, body: bytes) -> None:
    url, _ = answering(http_answer("200 OK", body))
    predictor = RemotePredictor(url, registry.resolve("scale@1.0.0"), retries=0)
    with pytest.raises(ServerError, match=r"answers no inference for `scale@1\.0\.0`"):
        predictor.predict(np.ones((1, 2), np.float32))


def test_an_output_of_another_type_is_refused(registry: Registry) -> None:
    version = registry.resolve("scale@1.0.0")
    digest = f'"parameters": {{"metadata_sha256": "{version.metadata_sha256}"}}'
    body = b"{" + digest.encode() + b", " + an_output(datatype="INT64")[1:]
    url, _ = answering(http_answer("200 OK", body))
    with pytest.raises(ServerError, match="answers the output `y` in another type"):
        RemotePredictor(url, version, retries=0).predict(np.ones((1, 2), np.float32))


def test_what_a_server_says_is_cut_and_harmless(registry: Registry) -> None:
    """A page of text, colours and forged lines, and a wait that is no number."""
    said = json.dumps({"error": "\x1b[31mno\nerror: forged " + "A" * 10_000}).encode()
    url, _ = answering(*[http_answer("503 Busy", said, "Retry-After: nan")] * 2)
    with pytest.raises(ServerError) as caught:
        RemotePredictor(url, registry.resolve("scale@1.0.0"), retries=1).predict(np.ones((1, 2), np.float32))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


def test_a_left_out_output(registry: Registry) -> None:
    version = registry.resolve("scale@1.0.0")
    body = json.dumps({"outputs": [], "parameters": {"metadata_sha256": version.metadata_sha256}}).encode()
    url, _ = answering(http_answer("200 OK", body))
    with pytest.raises(ServerError, match="left out the output `y`"):
        RemotePredictor(url, version, retries=0).predict(np.ones((1, 2), np.float32))


def test_an_answer_that_does_not_say_from_which_files_is_refused(registry: Registry) -> None:
    url, _ = answering(http_answer("200 OK", b'{"outputs": []}'))
    with pytest.raises(VerificationError, match=r"does not say from which files it answered `scale@1\.0\.0`"):
        RemotePredictor(url, registry.resolve("scale@1.0.0"), retries=0).predict(np.ones((1, 2), np.float32))


@pytest.mark.parametrize("part", ["status", "headers", "body"])
def test_a_server_that_drips_is_left_after_the_timeout(registry: Registry, part: str) -> None:
    with dripping(part) as port:
        predictor = RemotePredictor(f"http://127.0.0.1:{port}", registry.resolve("scale@1.0.0"), timeout=0.3, retries=1)
        with pytest.raises(ServerError, match=r"does not answer \(timed out; 2 attempts\)"):
            predictor.predict(np.ones((1, 2), np.float32))


def test_a_patient_one_asks_until_the_server_is_back(registry: Registry) -> None:
    """It is away, and comes back at the same port while it is asked: the row is answered."""
    version, failures = registry.resolve("scale@1.0.0"), list[str]()
    port = free_port()

    def failed(error: ServerError, seconds: float) -> None:
        failures.append(error.message)
        if len(failures) == 3:
            answering(an_answer(version), port=port)

    remote_one = RemotePredictor(f"http://127.0.0.1:{port}", version, retries=0)
    answered: list[bool] = []
    patient = Patient(remote_one, failed, lambda: answered.append(True))
    assert patient.predict(np.ones((1, 2), np.float32))["y"].tolist() == [[3.0, 4.0]]
    assert (len(failures), answered) == (3, [True])
    assert "connection refused" in failures[0]


def test_a_token_is_sent(registry: Registry, tmp_path: Path) -> None:
    version, row = registry.resolve("scale@1.0.0"), np.ones((1, 2), np.float32)
    secret = tmp_path / "token"
    secret.write_text("open sesame\n")
    with Server(version.path.parents[1], "--token-file", str(secret)) as guarded:
        guarded.wait_ready()
        url = f"http://{guarded.http}"
        assert RemotePredictor(url, version, token="open sesame").predict(row)["y"].tolist() == [[1.0, 1.0]]
        with pytest.raises(ServerError, match="give the server's token"):
            RemotePredictor(url, version).predict(row)
