"""Load, deadlines and clients that misbehave: what is refused, how, and that the server stays well."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.registries import publish
from tests.serving.servers import Answer, Server, tensor, wait_for
from tritonclient.grpc import service_pb2, service_pb2_grpc

LONG = 3000
"""Rounds of work: some 0.5 s, far longer than any step of these tests."""
CODES = grpc.StatusCode
WAITING = 'ocad_server_queue_depth{model="busy"}'
RUNS = 'ocad_server_run_seconds_count{model="busy"}'


def work(rounds: int) -> list[dict[str, Any]]:
    """The input of `busy`."""
    return [tensor("x", "INT64", [[rounds]])]


def grpc_work(rounds: int) -> Any:
    request = service_pb2.ModelInferRequest(model_name="busy")
    given = request.inputs.add()
    given.name, given.datatype = "x", "INT64"
    given.shape.extend([1, 1])
    request.raw_input_contents.append(np.array([rounds], np.int64).tobytes())
    return request


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    """A registry with the one model `busy`."""
    root = tmp_path / "models"
    publish(root, "busy", graphs.busy())
    return root


def test_a_full_queue_answers_429_with_retry_after(launch: Launch, busy: Path) -> None:
    server = launch(busy, "--max-queue", "2", "--max-batch", "1", "--model-threads", "1")
    with ThreadPoolExecutor(16) as pool:
        answers: list[Answer] = list(pool.map(lambda _: server.infer("busy", work(LONG // 2)), range(16)))
    assert {answer.status for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert "try again" in refused.error
    assert server.metrics()['ocad_server_requests_total{protocol="http",model="busy",outcome="overloaded"}'] >= 1
    assert server.infer("busy", work(1)).status == 200, "it takes requests again at once"


def test_a_full_queue_answers_resource_exhausted(launch: Launch, busy: Path) -> None:
    server = launch(busy, "--max-queue", "2", "--max-batch", "1", "--model-threads", "1")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(grpc_work(LONG // 2), timeout=300) for _ in range(16)]
        codes = {call.code() for call in calls}
    assert codes == {CODES.OK, CODES.RESOURCE_EXHAUSTED}


@pytest.mark.parametrize(
    ("headers", "parameters"), [({"X-Request-Timeout-Ms": "50"}, {}), ({}, {"timeout": 50_000})], ids=["header", "body"]
)
def test_a_deadline_answers_504_while_the_work_goes_on(
    launch: Launch, busy: Path, headers: dict[str, str], parameters: dict[str, int]
) -> None:
    server = launch(busy)
    body = json.dumps({"inputs": work(10 * LONG), "parameters": parameters})
    answer = server.request("POST", "/v2/models/busy/infer", body, headers)
    assert server.metrics().get(RUNS, 0) == 0
    assert answer.status == 504
    assert "deadline" in answer.error


def test_the_servers_own_deadline_answers_504(launch: Launch, busy: Path) -> None:
    assert launch(busy, "--timeout", "0.05").infer("busy", work(LONG)).status == 504


def test_a_grpc_deadline_is_kept(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(grpc_work(LONG), timeout=0.05)
    assert caught.value.code() == CODES.DEADLINE_EXCEEDED


def test_the_work_of_clients_that_went_away_is_dropped(launch: Launch, busy: Path) -> None:
    server = launch(busy, "--max-batch", "1", "--model-threads", "1")
    body = json.dumps({"inputs": work(LONG)}).encode()
    head = b"POST /v2/models/busy/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    host, port = server.http.split(":")
    gone = [socket.create_connection((host, int(port))) for _ in range(20)]
    for connection in gone:
        connection.sendall(head + body)
    wait_for(lambda: server.metrics().get(WAITING, 0) >= 15, "the requests to be queued")
    for connection in gone:
        connection.close()
    done = server.metrics().get(RUNS, 0)
    assert server.infer("busy", work(1)).status == 200
    assert server.metrics()[RUNS] <= done + 3, "of the others only those that were already running"


def test_a_body_over_the_limit_is_refused_before_it_is_read(launch: Launch, models: Path) -> None:
    server = launch(models, "--max-body-mb", "1")
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=300) as raw:
        raw.sendall(b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert raw.recv(65536).split(b" ")[1] == b"413"
    with socket.create_connection((host, int(port)), timeout=300) as raw:
        raw.sendall(b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.sendall(b"100001\r\n" + b" " * 0x100001 + b"\r\n")
        answer = raw.recv(65536)
    assert answer.split(b" ")[1] == b"413"
    assert b"1048576 bytes" in answer


def test_a_body_that_grows_when_decompressed_is_refused(launch: Launch, models: Path) -> None:
    import gzip

    server = launch(models, "--max-body-mb", "1")
    bomb = gzip.compress(b" " * 50_000_000)
    answer = server.request("POST", "/v2/models/scale/infer", bomb, {"Content-Encoding": "gzip"})
    assert answer.status == 413
    assert server.resident_mb() < 120


def test_a_grpc_message_over_the_limit_is_refused(launch: Launch, models: Path) -> None:
    server = launch(models, "--max-body-mb", "1")
    request = service_pb2.ModelInferRequest(model_name="scale")
    request.raw_input_contents.append(bytes(2_000_000))
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=300)
    assert caught.value.code() in {CODES.RESOURCE_EXHAUSTED, CODES.OUT_OF_RANGE}


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nContent-Len",
        b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        b"",
    ],
    ids=["head", "body", "silence"],
)
def test_a_slow_client_is_cut_off(launch: Launch, models: Path, sent: bytes) -> None:
    server = launch(models, "--read-timeout", "0.3")
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=300) as raw:
        raw.sendall(sent)
        received = b""
        while part := raw.recv(65536):  # fails when the server keeps the connection for ten seconds
            received += part
    assert received == b"" or received.split(b" ")[1] == b"408"
    assert server.get("/v2/health/ready").status == 200


def test_ten_thousand_open_connections(launch: Launch, models: Path) -> None:
    """As many as this process may open; the server says no to those over its limit and answers the others."""
    limit = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    options = ["--max-connections", str(limit - 100), "--client-connections", str(limit)]
    server = launch(models, *options, "--read-timeout", "60")
    host, port = server.http.split(":")
    held: list[socket.socket] = []
    try:
        for _ in range(limit - 200):
            held.append(socket.create_connection((host, int(port)), timeout=300))
        body = {"inputs": [tensor("x", "FP32", [[1.0, 2.0]])]}
        assert server.request("POST", "/v2/models/scale/infer", json.dumps(body)).status == 200
        assert server.metrics()['ocad_server_connections{protocol="http"}'] >= limit - 200
        assert server.resident_mb() < 400
        for _ in range(150):
            held.append(socket.create_connection((host, int(port)), timeout=300))
        refused = held[-1].recv(65536)
        assert refused.split(b" ")[1] == b"503"
        assert b"too many connections" in refused
    finally:
        for connection in held:
            connection.close()
    wait_for(lambda: server.open_files() < 200, "the descriptors to be given back")
    assert server.get("/v2/health/ready").status == 200


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_sigterm_lets_running_requests_finish(launch: Launch, busy: Path, protocol: str) -> None:
    server = launch(busy)
    answers: list[Any] = []
    channel = grpc.insecure_channel(server.grpc)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    ask = {
        "http": lambda: answers.append(server.infer("busy", work(LONG)).json()["outputs"][0]["data"][0]),
        "grpc": lambda: answers.append(
            int(np.frombuffer(stub.ModelInfer(grpc_work(LONG), timeout=300).raw_output_contents[0], np.int64)[0])
        ),
    }[protocol]
    channel_ready = grpc.channel_ready_future(channel)
    channel_ready.result(timeout=300)
    idle = server.connection()
    idle.request("GET", "/v2/health/live")
    idle.getresponse().read()
    thread = threading.Thread(target=ask)
    thread.start()
    runs = f'ocad_server_requests_total{{protocol="{protocol}",model="busy",outcome="ok"}}'
    before = server.metrics().get(runs, 0)
    wait_for(server.is_inferring, "the run to begin")
    assert server.metrics().get(runs, 0) == before, "it still runs"
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(300) == 0
    thread.join()
    channel.close()
    idle.close()
    assert answers == [LONG]
    assert '"draining"' in server.log_text()


def test_a_hang_up_drains_too(launch: Launch, busy: Path) -> None:
    server = launch(busy)
    wait_for(lambda: not server.is_inferring(), "its further sessions to be warm")
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(server.infer("busy", work(LONG))))
    thread.start()
    wait_for(server.is_inferring, "the run to begin")
    server.process.send_signal(signal.SIGHUP)
    assert server.process.wait(300) == 0
    thread.join()
    assert answers[0].status == 200
    assert '"SIGHUP"' in server.log_text()


def test_a_drain_that_takes_too_long_ends_all_the_same(launch: Launch, busy: Path) -> None:
    server = launch(busy, "--drain-timeout", "0.2")
    answers: list[Answer] = []

    def ask() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers.append(server.infer("busy", work(20 * LONG)))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(server.is_inferring, "the run to begin")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(300)
    thread.join()
    assert answers == [], "the request was cut off"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_bearer_token_is_asked_for(launch: Launch, models: Path, tmp_path: Path, protocol: str) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n", encoding="utf-8")
    server = launch(models, "--token-file", str(token))
    right, wrong = ({"Authorization": f"Bearer {text}"} for text in ("s3cret", "guess"))
    if protocol == "http":
        path = "/v2/models/scale"
        refused = [server.request("GET", path, headers=headers) for headers in ({}, wrong)]
        assert [answer.status for answer in refused] == [401, 401]
        assert refused[0].headers["www-authenticate"] == "Bearer"
        assert server.request("GET", path, headers=right).status == 200
        assert server.get("/metrics").status == 401
        assert server.get("/v2/health/ready").status == 200, "probes need no secret"
    else:
        with grpc.insecure_channel(server.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = service_pb2.ModelMetadataRequest(name="scale")
            for headers in ({}, wrong):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ModelMetadata(request, metadata=[(k.lower(), v) for k, v in headers.items()], timeout=300)
                assert caught.value.code() == CODES.UNAUTHENTICATED
            found = stub.ModelMetadata(request, metadata=[(k.lower(), v) for k, v in right.items()], timeout=300)
            assert found.name == "scale"
            assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=300).ready
    assert "s3cret" not in server.log_text()
