"""Attacks on the network side of the server with its default limits: what each costs in memory and time, and whom."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.frames import Connection
from tests.serving.registries import publish
from tests.serving.servers import Server, tensor, wait_for
from tritonclient.grpc import service_pb2

CODES = grpc.StatusCode
INFER = "/inference.GRPCInferenceService/ModelInfer"
MOST_MB = 512
"""The memory above that of the ready server that no attacker may cost."""


def attacked(server: Server, message: bytes) -> Any:
    """The code that a call of `message`, compressed, gets."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options=options, compression=grpc.Compression.Gzip) as channel:
        call = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=60)
    return caught.value.code()


def varied(tag: int, length: int) -> bytes:
    """The tag and length of a field of protobuf."""
    written = bytearray([tag])
    while length > 0x7F:
        written.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(written) + bytes([length])


@pytest.mark.parametrize("tag", [0x2A, 0x32, 0x3A, 0x22], ids=["inputs", "outputs", "raw", "parameters"])
def test_small_messages_that_grow_are_refused(launch: Launch, models: Path, tag: int) -> None:
    server = launch(models)
    ready = server.peak_mb()
    # 8 MB of two bytes each are some 8 kB of gzip
    assert attacked(server, bytes([tag, 0]) * 4_000_000) == CODES.INVALID_ARGUMENT
    assert server.peak_mb() - ready < 64
    assert server.get("/v2/health/ready").status == 200


def test_numbers_that_grow_stay_within_the_budget(launch: Launch, models: Path) -> None:
    server = launch(models)
    ready = server.peak_mb()
    # 20 MB of one byte each, packed, into 160 MB of numbers in a list that has room for twice as many
    packed = bytes([1]) * 20_000_000
    head, contents = service_pb2.ModelInferRequest(model_name="scale"), varied(0x2A, len(packed)) + packed
    given = b"\x0a\x01x\x12\x06UINT64" + varied(0x2A, len(contents)) + contents
    message = head.SerializeToString() + varied(0x2A, len(given)) + given
    assert attacked(server, message) == CODES.RESOURCE_EXHAUSTED
    assert server.peak_mb() - ready < MOST_MB
    assert server.get("/v2/health/ready").status == 200


def test_the_token_comes_before_the_message(launch: Launch, models: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret", encoding="utf-8")
    server = launch(models, "--token-file", str(token))
    ready = server.peak_mb()
    for _ in range(3):
        assert attacked(server, b"\x2a\x00" * 4_000_000) == CODES.UNAUTHENTICATED
    assert server.peak_mb() - ready < 32
    # and so where the client sends on and the server has answered already
    plain = grpc.insecure_channel(server.grpc, options=[("grpc.max_send_message_length", -1)])
    with plain as channel:
        call = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as caught:
                call(bytes(10_000_000), timeout=60)
            assert caught.value.code() == CODES.UNAUTHENTICATED, caught.value.details()


def test_unfinished_messages_stay_within_the_budget(launch: Launch, models: Path) -> None:
    server = launch(models, "--client-memory-mb", "64")
    ready = server.peak_mb()
    part = bytes(4_000_000)
    with Connection(server.grpc) as attacker:
        for _ in range(48):
            stream = attacker.call("ModelInfer")
            attacker.send(stream, b"\x00" + (60_000_000).to_bytes(4, "big") + part, 0.2)
        assert server.peak_mb() - ready < 2 * 64
        assert server.metrics()["ocad_server_inflight_bytes"] <= 64 << 20
        body = json.dumps({"inputs": [tensor("x", "FP32", [[1.0, 2.0]])]})
        host, port = server.http.split(":")
        with socket.create_connection((host, int(port)), source_address=("127.0.0.2", 0), timeout=30) as honest:
            text = f"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            honest.sendall(text.encode())
            assert honest.recv(65536).split(b" ")[1] == b"200", "another client is served all the same"


def test_clients_that_never_read_are_cut_off(launch: Launch, models: Path) -> None:
    publish(models, "echo", graphs.echo("BYTES"))
    server = launch(models, "--read-timeout", "1", "--model-threads", "1")
    files = server.open_files()
    host, port = server.http.split(":")
    text = "x" * 200_000
    body = json.dumps({"inputs": [tensor("x", "BYTES", [[text, "", "", ""]])]}).encode()
    asked = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with ExitStack() as stack:
        for _ in range(20):
            attacker = stack.enter_context(socket.socket())
            attacker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            attacker.settimeout(0.2)
            attacker.connect((host, int(port)))
            try:
                for _ in range(50):  # answers that nobody takes fill its socket
                    attacker.sendall(asked)
            except OSError:
                pass
        begun = time.monotonic()
        assert server.infer("scale", [tensor("x", "FP32", [[1.0, 2.0]])]).status == 200
        assert time.monotonic() - begun < 5
        wait_for(lambda: server.open_files() <= files + 5, "those that do not read to be cut off", 60)
    assert server.metrics()["ocad_server_inflight_bytes"] < 100_000


def test_long_texts_do_not_fill_the_log(launch: Launch, models: Path) -> None:
    server = launch(models)
    long = "\x1b[2J" * 1_000_000
    inputs = [tensor("x", "FP32", [[1.0, 2.0]])]
    bodies: list[dict[str, Any]] = [
        {"inputs": [inputs[0] | {"shape": [1] * 2_000_000}]},
        {"inputs": [inputs[0] | {"name": long}]},
        {"inputs": [inputs[0] | {"datatype": long}]},
        {"inputs": inputs, "outputs": [{"name": long}]},
    ]
    for body in bodies:
        answer = server.request("POST", "/v2/models/scale/infer", json.dumps(body))
        assert answer.status == 400
        assert len(answer.body) < 2500
    request = service_pb2.ModelInferRequest(model_name=long)
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(request.SerializeToString(), timeout=60)
    assert caught.value.code() == CODES.NOT_FOUND
    assert max(map(len, server.log_text().splitlines())) < 6000
    assert "\x1b" not in server.log_text()


def test_health_answers_while_large_bodies_are_read(launch: Launch, models: Path) -> None:
    server = launch(models)
    values = ",".join(["1.5"] * 4_000_000)
    body = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [2000000, 2], "data": [{values}]}}]}}'.encode()
    head = b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    host, port = server.http.split(":")
    slowest = 0.0
    with socket.create_connection((host, int(port)), timeout=60) as attacker:
        attacker.sendall(head + body)
        attacker.settimeout(0.001)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            begun = time.monotonic()
            assert server.get("/v2/health/ready").status == 200
            slowest = max(slowest, time.monotonic() - begun)
            try:
                answer = attacker.recv(12)
                break
            except TimeoutError:
                continue
    assert answer.split(b" ")[1] == b"200"
    assert slowest < 0.5, "reading it takes longer than that"


def test_early_answers_reach_their_clients(launch: Launch, models: Path) -> None:
    server = launch(models)
    body = bytes(10_000_000)
    for _ in range(20):
        answer = server.request("POST", "/v2/models/nothing/infer", body)
        assert (answer.status, answer.headers["connection"]) == (404, "close")
