"""What the Open Inference Protocol and its extensions ask for, through the official client."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.serving.conftest import Launch
from tests.serving.servers import Answer, Server, tensor
from tritonclient.utils import InferenceServerException

from ocad_registry import Registry

ROW = tensor("x", "FP32", [[1.0, 2.0]])
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    "identity": bytes,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": lambda data: pa.input_stream(pa.py_buffer(data), compression="zstd").read(),
}
EACH_PROTOCOL = pytest.mark.parametrize("protocol", ["http", "grpc"])


def connect(server: Server, protocol: str) -> Any:
    """tritonclient over `protocol`."""
    module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    return module.InferenceServerClient(getattr(server, protocol))


def plain(answer: Any) -> Any:
    """An answer of either client as a dictionary."""
    return answer if isinstance(answer, dict | list) else _as_dict(answer)


def _as_dict(message: Any) -> Any:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True)


def inputs(protocol: str) -> list[Any]:
    """The inputs of `mixed`, two rows."""
    module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    given = {
        "name": (np.array([[b"one"], [b"two"]], dtype=object), "BYTES"),
        "b": (np.array([[1, 5], [2, 1]], np.float32), "FP32"),
        "a": (np.array([[3, 4], [5, 6]], np.float32), "FP32"),
    }
    made = []
    for name, (values, datatype) in given.items():
        made.append(module.InferInput(name, list(values.shape), datatype))
        made[-1].set_data_from_numpy(values)
    return made


@EACH_PROTOCOL
def test_health_and_metadata_of_the_server(server: Server, protocol: str) -> None:
    with connect(server, protocol) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        found = plain(client.get_server_metadata())
    assert found["name"] == "ocad-server"
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["version"])
    assert {"binary_tensor_data", "model_repository", "model_configuration", "statistics"} <= set(found["extensions"])


@EACH_PROTOCOL
def test_metadata_of_a_model(server: Server, protocol: str) -> None:
    with connect(server, protocol) as client:
        found = plain(client.get_model_metadata("mixed"))
    assert (found["name"], found["versions"], found["platform"]) == ("mixed", ["1.0.0"], "onnxruntime_onnx")
    shapes = {port["name"]: (port["datatype"], [int(size) for size in port["shape"]]) for port in found["inputs"]}
    assert shapes == {"a": ("FP32", [-1, 2]), "b": ("FP32", [-1, 2]), "name": ("BYTES", [-1, 1])}
    assert [port["name"] for port in found["outputs"]] == ["sum", "difference", "flags", "names"]


@EACH_PROTOCOL
def test_configuration_of_a_model(server: Server, protocol: str) -> None:
    with connect(server, protocol) as client:
        found = plain(client.get_model_config("mixed"))
    config = found.get("config", found)
    assert (config["name"], config["backend"]) == ("mixed", "onnxruntime")
    assert int(config["max_batch_size"]) > 1
    types = {port["name"]: port["data_type"] for port in config["input"] + config["output"]}
    assert (types["a"], types["name"], types["flags"]) == ("TYPE_FP32", "TYPE_STRING", "TYPE_BOOL")


@EACH_PROTOCOL
def test_statistics_as_the_client_reads_them(launch: Launch, models: Path, protocol: str) -> None:
    server = launch(models)
    module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    given = module.InferInput("x", [3, 2], "FP32")
    given.set_data_from_numpy(np.ones((3, 2), np.float32))
    with connect(server, protocol) as client:
        before = plain(client.get_inference_statistics("scale"))["model_stats"][0]
        for _ in range(2):
            client.infer("scale", [given])
        wrong = module.InferInput("x", [1, 3], "FP32")
        wrong.set_data_from_numpy(np.ones((1, 3), np.float32))
        with pytest.raises(InferenceServerException):
            client.infer("scale", [wrong])
        asked = [client.get_inference_statistics(*names) for names in (("scale",), ("scale", "1.0.0"), ())]
        found = [plain(answer)["model_stats"] for answer in asked]
        with pytest.raises(InferenceServerException, match="no model `nothing`"):
            client.get_inference_statistics("nothing")
    assert found[0] == found[1] == found[2]
    (now,) = found[0]
    assert (now["name"], now["version"], int(before.get("inference_count", 0))) == ("scale", "1.0.0", 0)
    assert (int(now["inference_count"]), int(now["execution_count"])) == (6, 2)
    assert int(now["last_inference"]) > 0
    stats = now["inference_stats"]
    counts = {name: int(span.get("count", 0)) for name, span in stats.items()}
    assert counts == {
        "success": 2, "fail": 1, "queue": 2, "compute_input": 2, "compute_infer": 2, "compute_output": 2,
        "cache_hit": 0, "cache_miss": 0,
    }  # fmt: skip
    assert int(stats["success"]["ns"]) >= int(stats["compute_infer"]["ns"]) > 0
    (batch,) = now["batch_stats"]
    assert (int(batch["batch_size"]), int(batch["compute_infer"]["count"])) == (3, 2)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_name_null(server: Server, value: str) -> None:
    """`tritonclient` writes them for `binary_data=False`."""
    given = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, float(value)]}
    body = json.dumps({"inputs": [given]})
    assert value in body
    answer = server.request("POST", "/v2/models/scale/infer", body)
    assert answer.status == 400
    assert "send `null` for NaN" in answer.error


@EACH_PROTOCOL
def test_a_model_is_ready_when_it_can_answer(server: Server, protocol: str) -> None:
    with connect(server, protocol) as client:
        asked = [("scale", ""), ("scale", "1.2.0"), ("scale", "old"), ("scale", "9.9.9"), ("nothing", "")]
        assert [client.is_model_ready(name, version) for name, version in asked] == [True, True, True, False, False]


@EACH_PROTOCOL
@pytest.mark.parametrize(
    ("selector", "version"),
    [("", "1.1.0"), ("1.0.0", "1.0.0"), ("v1.2.0", "1.2.0"), ("2.0.0-rc.1", "2.0.0-rc.1"), ("production", "1.1.0"),
     ("old", "1.0.0")],
)  # fmt: skip
def test_versions_and_aliases_answer_with_their_evidence(
    server: Server, registry: Any, protocol: str, selector: str, version: str
) -> None:
    factor = {"1.0.0": 1.0, "1.1.0": 2.0, "1.2.0": 3.0, "2.0.0-rc.1": 4.0}[version]
    module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    wanted = module.InferInput("x", [1, 2], "FP32")
    wanted.set_data_from_numpy(np.array([[1, 2]], np.float32))
    with connect(server, protocol) as client:
        answer = client.infer("scale", [wanted], model_version=selector)
    found = plain(answer.get_response())
    parameters = {
        name: value if protocol == "http" else value["string_param"] for name, value in found["parameters"].items()
    }
    digest = Registry(registry).resolve(f"scale@{version}").metadata_sha256
    assert parameters == {"version": version, "metadata_sha256": digest}
    assert (found["model_name"], found["model_version"]) == ("scale", version)
    assert answer.as_numpy("y").tolist() == [[factor, 2 * factor]]


def test_a_name_without_production_alias_is_its_highest_passed_release(server: Server) -> None:
    answer = server.infer("tower", [tensor("x", "FP32", [[0.5] * 16])])
    assert answer.json()["model_version"] == "1.0.0"


@EACH_PROTOCOL
def test_several_inputs_in_any_order_give_all_outputs(server: Server, protocol: str) -> None:
    with connect(server, protocol) as client:
        answer = client.infer("mixed", inputs(protocol), request_id="request 7")
    assert plain(answer.get_response())["id"] == "request 7"
    assert answer.as_numpy("sum").tolist() == [[4, 9], [7, 7]]
    assert answer.as_numpy("difference").tolist() == [[2, -1], [3, 5]]
    assert answer.as_numpy("flags").tolist() == [[True, False], [True, True]]
    assert answer.as_numpy("names").tolist() == [[b"one"], [b"two"]]


@EACH_PROTOCOL
def test_only_the_outputs_asked_for_come_and_in_that_order(server: Server, protocol: str) -> None:
    module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    with connect(server, protocol) as client:
        outputs = [module.InferRequestedOutput(name) for name in ("names", "sum")]
        answer = client.infer("mixed", inputs(protocol), outputs=outputs)
    assert [output["name"] for output in plain(answer.get_response())["outputs"]] == ["names", "sum"]


def test_binary_output_is_chosen_for_all_or_for_each(server: Server) -> None:
    body = {"inputs": [ROW], "parameters": {"binary_data_output": True}}
    answer = server.request("POST", "/v2/models/scale/infer", json.dumps(body))
    length = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.body[:length])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(answer.body[length:], np.float32).tolist() == [2, 4]
    one = {"name": "y", "parameters": {"binary_data": False}}
    answer = server.request("POST", "/v2/models/scale/infer", json.dumps(body | {"outputs": [one]}))
    assert answer.json()["outputs"][0]["data"] == [2, 4]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "identity"])
def test_compressed_bodies_are_read(server: Server, encoding: str) -> None:
    plain_body = json.dumps({"inputs": [ROW]}).encode()
    answer = server.request(
        "POST", "/v2/models/scale/infer", PACK[encoding](plain_body), {"Content-Encoding": encoding}
    )
    assert answer.json()["outputs"][0]["data"] == [2, 4]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_answers_are_compressed_for_those_who_ask(server: Server, encoding: str) -> None:
    many = json.dumps({"inputs": [tensor("x", "FP32", [[1.0, 2.0]] * 1000)]})
    answer = server.request("POST", "/v2/models/scale/infer", many, {"Accept-Encoding": encoding})
    assert answer.headers["content-encoding"] == encoding
    unpacked = UNPACK[encoding](answer.body)
    assert json.loads(unpacked)["outputs"][0]["data"] == [2, 4] * 1000
    assert len(answer.body) < len(unpacked) / 4


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_the_client_compresses_both_ways(server: Server, algorithm: str) -> None:
    wanted = tritonclient.http.InferInput("x", [500, 2], "FP32")
    wanted.set_data_from_numpy(np.ones((500, 2), np.float32))
    with connect(server, "http") as client:
        answer = client.infer(
            "scale", [wanted], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
        )
    assert answer.as_numpy("y").sum() == 2000


@EACH_PROTOCOL
def test_the_repository_lists_what_can_be_asked_for(server: Server, protocol: str) -> None:
    with connect(server, protocol) as client:
        found = plain(client.get_model_repository_index())
    lines = found if isinstance(found, list) else found["models"]
    states = {(line["name"], line["version"]): line["state"] for line in lines}
    assert states["scale", "1.1.0"] == "READY"
    assert ("scale", "1.2.0") in states
    assert ("failed", "1.0.0") in states
    assert not [name for name, _ in states if name == "detector"], "a version without a graph is not in the index"


@EACH_PROTOCOL
def test_loading_and_unloading_is_off(server: Server, protocol: str) -> None:
    with connect(server, protocol) as client:
        with pytest.raises(InferenceServerException, match="--allow-control"):
            client.unload_model("scale")
        with pytest.raises(InferenceServerException, match="--allow-control"):
            client.load_model("scale")
        assert client.is_model_ready("scale")


@EACH_PROTOCOL
def test_loading_and_unloading_where_it_is_allowed(launch: Any, models: Any, protocol: str) -> None:
    server = launch(models, "--allow-control")
    with connect(server, protocol) as client:
        client.unload_model("scale")
        assert not client.is_model_ready("scale")
        with pytest.raises(InferenceServerException, match="is unloaded"):
            client.infer("scale", [_one_row(protocol)])
        client.load_model("scale")
        assert client.infer("scale", [_one_row(protocol)]).as_numpy("y").tolist() == [[1, 2]]
        with pytest.raises(InferenceServerException, match="nothing"):
            client.load_model("nothing")


def test_a_graph_without_batch_dimension_is_served(server: Server) -> None:
    answer = server.infer("fixed", [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3.5]}])
    assert answer.json()["outputs"][0] == {"name": "y", "datatype": "FP32", "shape": [1], "data": [6.5]}


def test_the_openapi_document_names_every_path(server: Server) -> None:
    document = server.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert document["info"]["title"]
    paths = set(document["paths"])
    base = "/v2/models/{name}"
    expected = {"/v2", "/v2/health/live", "/v2/health/ready", "/metrics", "/openapi.json", "/v2/repository/index"}
    expected |= {f"/v2/repository/models/{{name}}/{what}" for what in ("load", "unload")}
    expected.add("/v2/models/stats")
    for stem in (base, f"{base}/versions/{{version}}"):
        expected |= {stem, f"{stem}/ready", f"{stem}/config", f"{stem}/infer", f"{stem}/stats"}
    assert paths == expected
    for path, operations in document["paths"].items():
        named = set(re.findall(r"{(\w+)}", path))
        for method, operation in operations.items():
            if method in {"get", "post"}:
                assert operation["responses"], path
                found = [*operations.get("parameters", []), *operation.get("parameters", [])]
                declared = {
                    _resolve(document, item)["name"] for item in found if _resolve(document, item)["in"] == "path"
                }
                assert declared == named, path
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        assert _resolve(document, {"$ref": reference})


def test_ids_of_requests_and_traces_are_kept(server: Server) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"X-Request-Id": "request-42", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    answer: Answer = server.request("GET", "/v2/models/absent", headers=headers)
    assert answer.headers["x-request-id"] == "request-42"
    lines = [json.loads(line) for line in server.log_text().splitlines()]
    logged = next(line for line in lines if "request-42" in json.dumps(line))
    assert trace in json.dumps(logged)
    assert "absent" in json.dumps(logged)


def test_a_failure_has_an_id_that_the_log_has_too(server: Server) -> None:
    answer = server.infer("absent", [ROW])
    assert answer.headers["x-request-id"] in server.log_text()


def _one_row(protocol: str) -> Any:
    module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    wanted = module.InferInput("x", [1, 2], "FP32")
    wanted.set_data_from_numpy(np.array([[1, 2]], np.float32))
    return wanted


def _resolve(document: Any, item: Any) -> Any:
    """The part of an OpenAPI document that `item` is, or refers to."""
    if "$ref" not in item:
        return item
    for part in item["$ref"].split("/")[1:]:
        document = document[part]
    return document
