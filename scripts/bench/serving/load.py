"""Load: request bodies of the Open Inference Protocol, sent by wrk (HTTP), ghz and `grpcload` (gRPC)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from serving.fixture import FIELDS, Ids, ids

BODIES = 64
"""Different bodies of one load, sent in turn, so that no cache of answers could help."""


class Load(NamedTuple):
    """What a run of load saw: `requests` answered well, latencies in µs seen by the client, CPU seconds of the server."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def cpu_per_thousand(self) -> float:
        """CPU seconds of the server per 1,000 requests."""
        return self.cpu / self.requests * 1e3


class Bodies(NamedTuple):
    """A folder of request bodies `0`, `1`, … with the headers that they need."""

    folder: Path
    headers: list[str]
    total: int


def json_body(rows: Ids) -> bytes:
    """The rows as the protocol's JSON."""
    tensor = {"name": "ids", "shape": [len(rows), FIELDS], "datatype": "INT64", "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def binary_body(rows: Ids) -> tuple[bytes, int]:
    """The rows by the binary tensor extension, answers in binary too; and the length of the JSON head."""
    content = rows.tobytes()
    tensor = {"name": "ids", "shape": [len(rows), FIELDS], "datatype": "INT64"}
    head = {"inputs": [tensor | {"parameters": {"binary_data_size": len(content)}}]}
    text = json.dumps(head | {"parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    return text + content, len(text)


def write_bodies(folder: Path, rows: int, binary: bool = False, count: int = BODIES) -> Bodies:
    """Writes `count` bodies of `rows` random rows."""
    folder.mkdir(parents=True, exist_ok=True)
    headers = ["Content-Type=application/octet-stream" if binary else "Content-Type=application/json"]
    for number in range(count):
        values = ids(rows, seed=number)
        if binary:
            body, length = binary_body(values)
            headers = [headers[0], f"Inference-Header-Content-Length={length}"]
        else:
            body = json_body(values)
        (folder / str(number)).write_bytes(body)
    return Bodies(folder, headers, count)


def wrk(address: str, model: str, bodies: Bodies, connections: int, seconds: float) -> Load:
    """Closed-loop load of `connections` connections from one wrk thread."""
    script = Path(__file__).with_name("requests.lua")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(script)]
    command += [f"http://{address}", "--", f"/v2/models/{model}/infer", str(bodies.folder), str(bodies.total)]
    done = subprocess.run([*command, *bodies.headers], capture_output=True, text=True, check=True)
    seen = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    good = seen["requests"] - seen["failed"]
    return Load(good, seen["seconds"], seen["p50"], seen["p99"], seen["failed"] + seen["broken"])


def protoset(path: Path) -> Path:
    """The protocol's descriptors as the client carries them, in the form that ghz reads."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from tritonclient.grpc import model_config_pb2, service_pb2

    found = FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):
        module.DESCRIPTOR.CopyToProto(found.file.add())
    path.write_bytes(found.SerializeToString())
    return path


def grpc_message(path: Path, model: str, rows: Ids) -> Path:
    """A serialised `ModelInferRequest` with raw contents, as tritonclient sends it."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add()
    tensor.name, tensor.datatype = "ids", "INT64"
    tensor.shape.extend(rows.shape)
    request.raw_input_contents.append(rows.tobytes())
    path.write_bytes(request.SerializeToString())
    return path


def ghz(binary: Path, address: str, descriptors: Path, message: Path, connections: int, seconds: float) -> Load:
    """Closed-loop gRPC load: one request at a time on each of `connections` connections."""
    command = [str(binary), "--insecure", "--protoset", str(descriptors), "--format", "json", "--cpus", "1"]
    command += ["--call", "inference.GRPCInferenceService/ModelInfer", "--binary-file", str(message)]
    command += ["--concurrency", str(connections), "--connections", str(connections), "--duration", f"{seconds:.0f}s"]
    command += ["--duration-stop", "wait", address]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    good = report["statusCodeDistribution"].get("OK", 0)
    by_share = {entry["percentage"]: entry["latency"] / 1e3 for entry in report["latencyDistribution"] or ()}
    failed = report["count"] - good
    return Load(good, report["total"] / 1e9, by_share.get(50, 0.0), by_share.get(99, 0.0), failed)


def grpcload(binary: Path, address: str, message: Path, connections: int, seconds: float) -> Load:
    """Closed-loop gRPC load by the bench's own program, on one core."""
    command = [str(binary), "-address", address, "-message", str(message)]
    command += ["-connections", str(connections), "-seconds", str(seconds)]
    env = {**os.environ, "GOMAXPROCS": "1"}
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)
    return Load(**seen)
