"""What an operator needs: clear refusals to start, metrics, defaults, help, variables, memory and fast restarts."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.registries import publish
from tests.serving.servers import Server, command, environment, tensor, wait_for

from ocad.serving import find_onnxruntime, find_server
from ocad_registry import Registry

ROW = tensor("x", "FP32", [[1.0, 2.0]])
LOADS = 'ocad_server_loads_total{model="tower",outcome="ok"}'
SERIES = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_]\w*=\"(?:[^\"\\\n]|\\[\\\"n])*\",?)*\})? (\S+)$")


def start(registry: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A start that must fail."""
    return subprocess.run(
        command(registry, *options), env=environment(registry.parent, variables), capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        ((), {"ORT_DYLIB_PATH": ""}, "--onnxruntime"),
        (("--onnxruntime", "absent.so"), {}, "absent.so"),
        (("--onnxruntime", sys.executable), {}, "onnxruntime"),
        (("--token-file", "absent.txt"), {}, "absent.txt"),
        (("--default", "scale"), {}, "NAME=NUMBER"),
        (("--log", "=,="), {}, "--log"),
        (("--max-queue", "many"), {}, "--max-queue"),
        (("--unknown",), {}, "--unknown"),
    ],
    ids=["no-library", "absent-library", "wrong-library", "no-token-file", "default", "log", "number", "flag"],
)
def test_a_start_that_cannot_work_says_why(
    models: Path, options: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    failed = start(models, *options, **variables)
    assert failed.returncode in {1, 2}
    assert message in failed.stderr
    assert "panicked" not in failed.stderr
    assert failed.stdout == ""


def test_a_registry_that_is_not_there_is_named(tmp_path: Path) -> None:
    failed = start(tmp_path / "absent")
    assert failed.returncode == 1
    assert "absent" in failed.stderr


def test_an_address_that_is_taken_is_named(server: Server, registry: Path) -> None:
    taken = [str(find_server()), "--registry", str(registry), "--http", server.http, "--grpc", "127.0.0.1:0"]
    failed = subprocess.run(
        taken, env=environment(registry.parent), capture_output=True, text=True, timeout=600, check=False
    )
    assert failed.returncode == 1
    assert server.http in failed.stderr


def test_ocad_serve_becomes_the_server(models: Path, tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "ocad", "serve", "--registry", str(models), "--http", "127.0.0.1:0", "--unknown"],
        capture_output=True, text=True, timeout=600, check=False, env={**os.environ, "OCAD_SERVER": str(find_server())},
    )  # fmt: skip
    assert "--unknown" in shown.stderr
    assert shown.returncode == 2


def test_a_missing_binary_is_named() -> None:
    missing = subprocess.run(
        [sys.executable, "-m", "ocad", "serve"],
        capture_output=True, text=True, timeout=600, check=False, env={**os.environ, "OCAD_SERVER": "/absent/server"},
    )  # fmt: skip
    assert missing.returncode == 1
    assert "`/absent/server`" in missing.stderr


def help_text() -> str:
    env = {**os.environ, "COLUMNS": "100"}
    return subprocess.run([str(find_server()), "--help"], capture_output=True, text=True, check=True, env=env).stdout


def test_help_fits_on_a_screen() -> None:
    lines = help_text().splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 120
    assert "OCAD_SERVER_" in help_text()


def test_every_flag_is_a_variable_too(models: Path) -> None:
    variables = {
        "OCAD_SERVER_REGISTRY": str(models),
        "OCAD_SERVER_DEFAULT": "new=0.5",
        "OCAD_SERVER_ALLOW_CONTROL": "true",
    }
    with Server(models, env=variables) as server:
        server.wait_ready()
        assert server.infer("new", [ROW]).json()["outputs"][0]["data"] == [0.5]
        assert server.request("POST", "/v2/repository/models/scale/unload").status == 200
    flags = re.findall(r"^ +--([a-z-]+) <(?:N|ROWS|US|MB|SECONDS|ADDR)>", help_text(), re.MULTILINE)
    assert len(flags) >= 12
    for flag in flags:
        variable = "OCAD_SERVER_" + flag.upper().replace("-", "_")
        asked = [str(find_server()), "--registry", str(models)]
        failed = subprocess.run(
            asked,
            env=environment(models.parent, {variable: "nonsense"}),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert (failed.returncode, f"--{flag}" in failed.stderr) == (2, True), failed.stderr


def test_metrics_are_prometheus_text(server: Server) -> None:
    server.infer("scale", [ROW])
    server.infer("absent", [ROW])
    answer = server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    types: dict[str, str] = {}
    for line in answer.body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types, f"{name} is declared twice"
            types[name] = kind
        elif line and not line.startswith("# HELP "):
            found = SERIES.match(line)
            assert found, line
            assert math.isfinite(float(found[3])), line
            base = re.sub(r"_(bucket|sum|count)$", "", found[1])
            assert base in types or found[1] in types, line
    assert {types[f"ocad_server_{what}_seconds"] for what in ("request", "queue", "run", "load")} == {"histogram"}
    assert types["ocad_server_batch_rows"] == "histogram"
    assert types["ocad_server_requests_total"] == "counter"
    series = server.metrics()
    assert series['ocad_server_requests_total{protocol="http",model="scale",outcome="ok"}'] >= 1
    assert series['ocad_server_requests_total{protocol="http",model="",outcome="not_found"}'] >= 1
    assert series['ocad_server_model_version{model="scale",version="1.1.0"}'] == 1
    assert series["ocad_server_ready"] == 1
    buckets = [
        value for name, value in series.items() if name.startswith('ocad_server_run_seconds_bucket{model="scale"')
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == series['ocad_server_run_seconds_count{model="scale"}']


def test_a_default_answers_for_a_model_without_a_version(launch: Launch, models: Path) -> None:
    publish(models, "backup", graphs.scale(5.0))
    publish(models, "unproven", graphs.scale(9.0), passed=False)
    server = launch(
        models, "--default", "constant=0.25", "--default", "other=backup", "--default", "pinned=scale@1.0.0",
        "--default", "unproven=0.125",
    )  # fmt: skip
    constant = server.infer("constant", [tensor("any", "INT64", [[1, 2]] * 3)]).json()
    assert (constant["outputs"][0]["data"], constant["parameters"]["default"]) == ([0.25] * 3, True)
    other = server.infer("other", [ROW]).json()
    assert (other["outputs"][0]["data"], other["parameters"]["default"]) == ([5.0, 10.0], True)
    assert other["parameters"]["metadata_sha256"] == Registry(models).resolve("backup").metadata_sha256
    assert server.infer("pinned", [ROW]).json()["parameters"]["version"] == "1.0.0"
    assert server.infer("unproven", [ROW]).json()["outputs"][0]["data"] == [0.125]
    assert "default" not in server.infer("scale", [ROW]).json()["parameters"]
    assert server.infer("none", [ROW]).status == 404
    publish(models, "constant", graphs.scale(7.0))
    wait_for(lambda: server.infer("constant", [ROW]).json()["outputs"][0]["data"] == [7.0, 14.0], "the first version")


def test_versions_loaded_on_demand_keep_to_their_budget(launch: Launch, models: Path) -> None:
    for seed in range(6):
        publish(models, "tower", graphs.tower(seed, width=1400))  # 8 MB each
    server = launch(models, "--lazy-mb", "30")
    row = [tensor("x", "FP32", [[0.5] * 16])]
    answers = [server.infer("tower", row, f"1.{minor}.0") for minor in range(6)]
    assert [answer.status for answer in answers] == [200] * 6
    assert server.metrics()["ocad_server_resident_bytes"] < 60e6
    loads = server.metrics()[LOADS]
    server.infer("tower", row)
    server.infer("tower", row, "1.4.0")
    assert server.metrics()[LOADS] == loads, "what the plain name means and what was used last are still there"
    assert server.infer("tower", row, "1.0.0").json()["outputs"] == answers[0].json()["outputs"]
    assert server.metrics()[LOADS] == loads + 1, "what was used longest ago had gone"


def test_verdicts_are_kept_for_the_next_start(launch: Launch, models: Path) -> None:
    publish(models, "tower", graphs.tower())
    launch(models).stop()
    cache = models.parent / "server-cache"
    kept = json.loads(next(cache.iterdir()).read_text(encoding="utf-8"))
    assert any("model.onnx.data" in json.dumps(part) for part in kept.items())
    again = launch(models)
    assert again.infer("tower", [tensor("x", "FP32", [[0.5] * 16])]).status == 200
    again.stop()
    next(cache.iterdir()).write_text("damaged", encoding="utf-8")
    assert launch(models).infer("scale", [ROW]).status == 200, "a cache that is lost costs time only"


def test_a_model_that_is_moved_away_and_back_goes_on(launch: Launch, models: Path) -> None:
    server = launch(models, "--poll", "0.05")
    publish(models, "second", graphs.scale(2.0))
    wait_for(lambda: server.get("/v2/models/second/ready").status == 200, "the second model")
    shutil.move(models / "second", models.parent / "second")
    wait_for(lambda: "second" in server.get("/v2/health/ready").json()["problems"], "the loss to be named")
    assert server.infer("second", [ROW]).status == 200, (
        "deleting a version leaves its tombstone, so this was no deletion"
    )
    shutil.move(models.parent / "second", models / "second")
    wait_for(lambda: server.get("/v2/health/ready").json()["problems"] == {}, "the model to come back")
    assert server.infer("second", [ROW]).status == 200
    assert server.infer("scale", [ROW]).status == 200


def test_only_what_the_server_needs_is_open(server: Server) -> None:
    """It listens on the two addresses it says, and maps the runtime library that it was given."""
    assert {server.http.split(":")[0], server.grpc.split(":")[0]} == {"127.0.0.1"}
    maps = Path(f"/proc/{server.process.pid}/maps").read_text(encoding="utf-8")
    assert str(find_onnxruntime().resolve()) in maps


def test_the_log_is_one_json_object_a_line(server: Server) -> None:
    server.infer("absent", [ROW])
    server.infer("lookup", [tensor("id", "INT64", [[10**6]])])
    lines: list[Any] = [json.loads(line) for line in server.log_text().splitlines()]
    assert all({"timestamp", "level", "message"} <= set(line) for line in lines)
