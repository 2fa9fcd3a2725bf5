"""The error table: everything that is wrong with a request has one clear status and message, and never ends the server."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from tests.serving.servers import Server, tensor
from tritonclient.grpc import service_pb2, service_pb2_grpc

GOOD = tensor("x", "FP32", [[1.0, 2.0]])
HUGE = {"name": "x", "datatype": "FP32", "shape": [2**62, 2**62], "data": [1.0]}
BINARY = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}


class Case(NamedTuple):
    """A request over HTTP, the status it gets, and a part of its message."""

    name: str
    status: int
    message: str
    body: Any
    path: str = "/v2/models/scale/infer"
    headers: dict[str, str] | None = None
    method: str = "POST"


def infer(*tensors: Any, **more: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"inputs": list(tensors), **more}


def strings(name: str, text: str, content: bytes) -> Case:
    """A request for strings whose binary `content` is wrong."""
    given = {"name": "x", "datatype": "BYTES", "shape": [1, 4], "parameters": {"binary_data_size": len(content)}}
    head = json.dumps(infer(given)).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    return Case(name, 400, text, head + content, "/v2/models/echo-bytes/infer", length)


MIXED = [tensor("a", "FP32", [[1.0, 2.0]] * 2), tensor("b", "FP32", [[1.0, 2.0]]), tensor("name", "BYTES", [["n"]] * 2)]
CASES = [
    Case("wrong name", 404, "`scael`", infer(GOOD), "/v2/models/scael/infer"),
    Case("illegal name", 404, "model", infer(GOOD), "/v2/models/..%2Fscale/infer"),
    Case("wrong version", 404, "9.9.9", infer(GOOD), "/v2/models/scale/versions/9.9.9/infer"),
    Case("wrong alias", 404, "canary", infer(GOOD), "/v2/models/scale/versions/canary/infer"),
    Case("no graph", 404, "`detect`", infer(GOOD), "/v2/models/detector/infer"),
    Case("never passed", 404, "`failed`", infer(GOOD), "/v2/models/failed/infer"),
    Case("wrong path", 404, "/openapi.json", None, "/v3/models", method="GET"),
    Case("wrong method", 405, "GET", None, method="GET"),
    Case("wrong type", 400, "FP32", infer(tensor("x", "FP64", [[1.0, 2.0]]))),
    Case("unknown type", 400, "FP99", infer(GOOD | {"datatype": "FP99"})),
    Case("wrong shape", 400, "[-1, 2]", infer(tensor("x", "FP32", [[1.0, 2.0, 3.0]]))),
    Case("wrong rank", 400, "[-1, 2]", infer(GOOD | {"shape": [2]})),
    Case("negative dimension", 400, "shape", infer(GOOD | {"shape": [-1, 2]})),
    Case("too few values", 400, "values", infer(GOOD | {"shape": [2, 2]})),
    Case("too many values", 400, "values", infer(GOOD | {"data": [1.0, 2.0, 3.0]})),
    Case("huge shape", 400, "shape", infer(HUGE)),
    Case("overflowing shape", 400, "shape", infer(HUGE | {"shape": [2**63 - 1, 2]})),
    Case("dimension over int64", 400, "", infer(HUGE | {"shape": [2**64, 2]})),
    Case("no rows", 400, "no rows", infer(GOOD | {"shape": [0, 2], "data": []})),
    Case("missing input", 400, "`x` is missing", infer()),
    Case("extra input", 400, "`z`", infer(GOOD, GOOD | {"name": "z"})),
    Case("input twice", 400, "twice", infer(GOOD, GOOD)),
    Case("rows disagree", 400, "rows", infer(*MIXED), "/v2/models/mixed/infer"),
    Case("unknown output", 400, "`z`", infer(GOOD, outputs=[{"name": "z"}])),
    Case("output twice", 400, "`y`", infer(GOOD, outputs=[{"name": "y"}, {"name": "y"}])),
    Case("NaN in an id", 400, "", '{"inputs":[{"name":"id","datatype":"INT64","shape":[1,1],"data":[NaN]}]}',
         "/v2/models/lookup/infer"),
    Case("fraction in an id", 400, "INT64", infer(tensor("id", "INT64", [[1.5]])), "/v2/models/lookup/infer"),
    Case("id over int64", 400, "INT64", infer(tensor("id", "INT64", [[2**63]])), "/v2/models/lookup/infer"),
    Case("text for a number", 400, "FP32", infer(tensor("x", "FP32", [["1", "2"]]))),
    Case("null for an id", 400, "INT64", infer(tensor("id", "INT64", [[None]])), "/v2/models/lookup/infer"),
    Case("number for a text", 400, "BYTES", infer(tensor("x", "BYTES", [[1, 2, 3, 4]])), "/v2/models/echo-bytes/infer"),
    Case("number over uint8", 400, "UINT8", infer(tensor("x", "UINT8", [[256, 0, 0, 0]])), "/v2/models/echo-uint8/infer"),
    Case("no JSON", 400, "inference request", "{"),
    Case("empty body", 400, "inference request", ""),
    Case("no object", 400, "inference request", "[]"),
    Case("inputs are no list", 400, "inference request", {"inputs": {}}),
    Case("JSON that is too deep", 400, "inference request", '{"inputs":' + "[" * 5000),
    Case("invalid UTF-8", 400, "", b'{"inputs":[{"name":"\xff\xfe","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'),
    Case("NUL in a string", 400, "NUL", infer(tensor("x", "BYTES", [["a\0b", "", "", ""]])), "/v2/models/echo-bytes/infer"),
    strings("invalid UTF-8 in a string", "UTF-8", b"\x01\0\0\0\xff" * 4),
    strings("string longer than the body", "x", b"\xff\xff\xff\xff "),
    strings("string without its length", "x", b"\x01"),
    Case("header past the end", 400, "Inference-Header-Content-Length", infer(GOOD), headers={
         "Inference-Header-Content-Length": "99999"}),
    Case("header is no number", 400, "inference-header-content-length", infer(GOOD), headers={
         "Inference-Header-Content-Length": "ten"}),
    Case("binary is cut", 400, "8 binary bytes", infer(BINARY)),
    Case("bytes that nobody claims", 400, "bytes follow", json.dumps(infer(GOOD)).encode() + b"12345678", headers={
         "Inference-Header-Content-Length": str(len(json.dumps(infer(GOOD))))}),
    Case("data and binary", 400, "both", infer(BINARY | {"data": [1, 2]})),
    Case("neither data nor binary", 400, "no values", infer({"name": "x", "datatype": "FP32", "shape": [1, 2]})),
    Case("shared memory", 400, "shared memory", infer(BINARY | {"parameters": {"shared_memory_region": "r"}})),
    Case("unknown encoding", 415, "gzip", infer(GOOD), headers={"Content-Encoding": "br"}),
    Case("broken gzip", 400, "decompressed", b"\x1f\x8bnot gzip", headers={"Content-Encoding": "gzip"}),
    Case("broken zstd", 400, "decompressed", b"(\xb5/\xfdnot zstd", headers={"Content-Encoding": "zstd"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_http(server: Server, case: Case) -> None:
    body = json.dumps(case.body) if isinstance(case.body, dict) else case.body
    answer = server.request(case.method, case.path, body, case.headers)
    assert answer.status == case.status, answer.body
    assert case.message in answer.error
    assert answer.headers["content-type"] == "application/json"
    assert "\n" not in answer.error
    assert server.get("/v2/health/ready").status == 200


def test_an_id_that_is_out_of_range_fails_alone_and_its_details_stay_in_the_log(server: Server) -> None:
    answer = server.infer("lookup", [tensor("id", "INT64", [[10**6]])])
    assert answer.status == 400
    assert "vocabulary" in answer.error
    assert "Gather" not in answer.error
    assert "Gather" in server.log_text()
    assert server.infer("lookup", [tensor("id", "INT64", [[5]])]).status == 200


def test_a_null_is_not_a_number_both_ways(server: Server) -> None:
    answer = server.infer("scale", [tensor("x", "FP32", [[None, 2.0]])])
    assert answer.json()["outputs"][0]["data"] == [None, 4.0]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n", b"400"),
        (b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(500)) + b"\r\n", b"431"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"y" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"4"),
    ],
    ids=["length-text", "length-negative", "garbage", "version", "many-headers", "long-header", "long-path"],
)
def test_what_is_no_http_is_refused(server: Server, sent: bytes, status: bytes) -> None:
    assert exchange(server, sent).split(b" ")[1].startswith(status)
    assert server.get("/v2/health/ready").status == 200


def test_a_body_that_ends_early_is_refused(server: Server) -> None:
    body = json.dumps(infer(GOOD)).encode()
    head = b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (len(body) + 10)
    answer = exchange(server, head + body, end=True)
    assert answer in {b""} or answer.split(b" ")[1] == b"400"
    assert server.get("/v2/health/ready").status == 200


def exchange(server: Server, sent: bytes, end: bool = False) -> bytes:
    """What the server answers to raw bytes before it closes or falls silent for a second."""
    host, port = server.http.split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=300) as raw:
        try:
            raw.sendall(sent)
            if end:
                raw.shutdown(socket.SHUT_WR)
            while b"\r\n\r\n" not in received and (part := raw.recv(65536)):
                received += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # the server may close before it has read all that it refuses
    return received


def message(model: str = "scale", version: str = "", **change: Any) -> Any:
    """A gRPC request for one row, changed as a case says."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    given = request.inputs.add()
    given.name, given.datatype = change.get("name", "x"), change.get("datatype", "FP32")
    given.shape.extend(change.get("shape", [1, 2]))
    raw = change.get("raw", np.ones(2, np.float32).tobytes())
    if raw is not None:
        request.raw_input_contents.append(raw)
    for name in change.get("outputs", []):
        request.outputs.add().name = name
    return request


CODES = grpc.StatusCode
GRPC_CASES: list[tuple[str, Any, Any, str]] = [
    ("wrong name", message("scael"), CODES.NOT_FOUND, "`scael`"),
    ("wrong version", message(version="9.9.9"), CODES.NOT_FOUND, "9.9.9"),
    ("no graph", message("detector"), CODES.NOT_FOUND, "`detect`"),
    ("wrong type", message(datatype="FP64"), CODES.INVALID_ARGUMENT, "FP32"),
    ("unknown type", message(datatype="FP99"), CODES.INVALID_ARGUMENT, "FP99"),
    ("wrong shape", message(shape=[1, 3], raw=bytes(12)), CODES.INVALID_ARGUMENT, "[-1, 2]"),
    ("huge shape", message(shape=[2**62, 2**62]), CODES.INVALID_ARGUMENT, "x"),
    ("negative shape", message(shape=[-1, 2]), CODES.INVALID_ARGUMENT, "shape"),
    ("no rows", message(shape=[0, 2], raw=b""), CODES.INVALID_ARGUMENT, "no rows"),
    ("cut", message(raw=b"123"), CODES.INVALID_ARGUMENT, "bytes"),
    ("too few values", message(raw=bytes(4)), CODES.INVALID_ARGUMENT, "values"),
    ("no values", message(raw=None), CODES.INVALID_ARGUMENT, "x"),
    ("missing input", service_pb2.ModelInferRequest(model_name="scale"), CODES.INVALID_ARGUMENT, "`x` is missing"),
    ("extra input", message(name="z"), CODES.INVALID_ARGUMENT, "`x` is missing"),
    ("unknown output", message(outputs=["z"]), CODES.INVALID_ARGUMENT, "`z`"),
    ("bytes that are no text", message("echo-bytes", datatype="BYTES", shape=[1, 4], raw=b"\1\0\0\0\xff" * 4),
     CODES.INVALID_ARGUMENT, "UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "code", "text"), [case[1:] for case in GRPC_CASES], ids=[c[0] for c in GRPC_CASES]
)
def test_grpc(server: Server, request_: Any, code: Any, text: str) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request_, timeout=300)
        assert (caught.value.code(), text in caught.value.details()) == (code, True), caught.value.details()
        assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready


def test_grpc_answers_typed_contents(server: Server) -> None:
    request = message(raw=None)
    request.inputs[0].contents.fp32_contents.extend([1.5, 2.5])
    with grpc.insecure_channel(server.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=300)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [3.0, 5.0]


def test_grpc_without_a_method_is_unimplemented(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"", timeout=300)
    assert caught.value.code() == CODES.UNIMPLEMENTED
