"""The registry changes while the server runs: it follows without a restart and without losing a request."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.registries import flip, publish
from tests.serving.servers import Server, tensor, wait_for

from ocad_registry import Corrupt, Registry

ROW = tensor("x", "FP32", [[1.0, 2.0]])


def served(server: Server, version: str = "") -> tuple[str, float]:
    """The version that answers, and its factor."""
    answer = server.infer("scale", [ROW], version).json()
    return answer["parameters"]["version"], answer["outputs"][0]["data"][0]


def wait_until_served(server: Server, version: str, selector: str = "") -> None:
    wait_for(lambda: served(server, selector)[0] == version, f"`scale@{version}` to answer")


def wait_until_good(server: Server) -> None:
    wait_for(lambda: server.get("/v2/models/good/ready").status == 200, "the model that is whole")


def stale(server: Server) -> float:
    """The gauge that says that `scale` is not the version that it should be."""
    return server.metrics()['ocad_server_model_stale{model="scale"}']


def test_promote_and_rollback_are_followed(launch: Launch, models: Path) -> None:
    server, store = launch(models), Registry(models)
    publish(models, "scale", graphs.scale(2.0))
    wait_for(lambda: server.infer("scale", [ROW], "1.1.0").status == 200, "the published version")
    assert served(server, "1.1.0") == ("1.1.0", 2.0)
    assert served(server) == ("1.0.0", 1.0), "and production has not moved"
    store.promote("scale@1.1.0", "production")
    wait_until_served(server, "1.1.0")
    assert served(server) == ("1.1.0", 2.0)
    store.rollback("scale", "production")
    wait_until_served(server, "1.0.0")
    assert served(server, "production") == ("1.0.0", 1.0)


def test_a_new_release_is_followed_where_no_alias_holds_the_name(launch: Launch, models: Path) -> None:
    Registry(models).unset("scale", "production")
    server = launch(models)
    publish(models, "scale", graphs.scale(2.0))
    wait_until_served(server, "1.1.0")
    publish(models, "scale", graphs.scale(3.0), passed=False)
    publish(models, "scale", graphs.scale(4.0), "1.3.0-rc.1")
    publish(models, "other", graphs.scale(5.0))
    wait_for(lambda: server.get("/v2/models/other/ready").status == 200, "the new model")
    assert served(server) == ("1.1.0", 2.0), "neither what failed nor a pre-release takes the name"


def test_a_new_alias_is_followed(launch: Launch, models: Path) -> None:
    server = launch(models)
    assert server.infer("scale", [ROW], "canary").status == 404
    publish(models, "scale", graphs.scale(2.0))
    Registry(models).promote("scale@1.1.0", "canary")
    wait_for(lambda: server.infer("scale", [ROW], "canary").status == 200, "the alias")
    assert served(server, "canary") == ("1.1.0", 2.0)


@pytest.mark.needs("user namespaces")
def test_the_registry_is_followed_by_polling_where_inotify_is_exhausted(models: Path) -> None:
    none = 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", none, "sh"]
    with Server(models, "--poll", "0.05", prefix=prefix) as server:
        server.wait_ready()
        links = [link.readlink() for link in Path(f"/proc/{server.process.pid}/fd").iterdir()]
        assert "anon_inode:inotify" not in map(str, links)
        publish(models, "scale", graphs.scale(2.0))
        Registry(models).promote("scale@1.1.0", "production")
        wait_until_served(server, "1.1.0")


def test_requests_in_flight_finish_on_the_old_version(launch: Launch, tmp_path: Path) -> None:
    root = tmp_path / "models"
    publish(root, "work", graphs.busy())
    server = launch(root)
    answers: list[Any] = []
    slow = threading.Thread(target=lambda: answers.append(server.infer("work", [tensor("x", "INT64", [[4000]])])))
    slow.start()
    wait_for(server.is_inferring, "the run on the old version")
    publish(root, "work", graphs.echo("INT64"))
    wait_for(lambda: _version_of(server, "work") == "1.1.0", "the new version")
    slow.join()
    body = answers[0].json()
    assert (answers[0].status, body["model_version"], body["outputs"][0]["data"]) == (200, "1.0.0", [4000])


def _version_of(server: Server, name: str) -> str:
    version: str = server.get(f"/v2/models/{name}").json()["parameters"]["version"]
    return version


def test_a_version_that_fails_to_load_leaves_the_old_one_serving(launch: Launch, models: Path) -> None:
    server = launch(models)
    broken = publish(models, "scale", graphs.scale(2.0))
    Registry(models).promote(broken.ref, "production")
    wait_until_served(server, "1.1.0")
    bad = publish(models, "scale", graphs.scale(3.0))
    flip(bad.path / "model.onnx", 100)
    Registry(models).unset("scale", "production")
    wait_for(lambda: stale(server) == 1, "the failure to be told")
    assert served(server) == ("1.1.0", 2.0)
    readiness = server.get("/v2/health/ready")
    assert readiness.status == 200, "it still answers"
    assert "sha256" in readiness.json()["problems"]["scale"]
    assert 'ocad_server_loads_total{model="scale",outcome="failed"} 1' in server.get("/metrics").body.decode()
    logged = [line for line in map(json.loads, server.log_text().splitlines()) if line["level"] == "ERROR"]
    assert any("1.2.0" in json.dumps(line) for line in logged)
    index = server.request("POST", "/v2/repository/index", "{}").json()
    assert next(line for line in index if line["version"] == "1.2.0")["state"] == "UNAVAILABLE"
    publish(models, "scale", graphs.scale(4.0))
    wait_until_served(server, "1.3.0")
    assert stale(server) == 0
    assert server.get("/v2/health/ready").json()["problems"] == {}


def test_an_alias_moved_to_a_broken_version_stays_where_it_was(launch: Launch, models: Path) -> None:
    server = launch(models)
    bad = publish(models, "scale", graphs.scale(2.0))
    Registry(models).promote(bad.ref, "production")
    wait_until_served(server, "1.1.0")
    third = publish(models, "scale", graphs.scale(3.0))
    Registry(models).promote(third.ref, "production")
    wait_until_served(server, "1.2.0")
    # the new target cannot be promoted once it is broken, so it breaks before the server has seen the alias move
    fourth = publish(models, "scale", graphs.scale(4.0))
    flip(fourth.path / "model.onnx", 100)
    _move_alias_by_hand(models, fourth.metadata_sha256, "1.3.0")
    wait_for(lambda: stale(server) == 1, "the failure to be told")
    assert served(server) == ("1.2.0", 3.0)
    assert served(server, "production") == ("1.2.0", 3.0)


def _move_alias_by_hand(root: Path, sha256: str, version: str) -> None:
    folder = root / "scale" / "aliases" / "production"
    last = sorted(folder.iterdir())[-1]
    entry = json.loads(last.read_text(encoding="utf-8")) | {"version": version, "metadata_sha256": sha256}
    moved = root.parent / "entry.json"
    moved.write_text(json.dumps(entry), encoding="utf-8")
    moved.rename(folder / f"{int(last.stem) + 1:06}.json")


@pytest.mark.parametrize(
    ("file", "position"), [("model.onnx", 40), ("model.onnx.data", -9), ("metadata.json", 300), ("metadata.sha256", 3)]
)
def test_a_flipped_byte_is_refused_with_the_verdict_of_python(
    launch: Launch, tmp_path: Path, file: str, position: int
) -> None:
    root = tmp_path / "models"
    published = publish(root, "tower", graphs.tower())
    publish(root, "good", graphs.scale(1.0))
    flip(published.path / file, position)
    with pytest.raises(Corrupt) as python:
        Registry(root).resolve("tower@1.0.0").verify()
    server, row = launch(root, ready=False), [tensor("x", "FP32", [[0.5] * 16])]
    wait_for(lambda: server.infer("tower", row, "1.0.0").status == 503, "the refusal")
    answer = server.infer("tower", row, "1.0.0")
    assert python.value.code in answer.error
    wait_until_good(server)
    assert server.infer("good", [ROW]).status == 200, "one broken version breaks nothing else"


def test_a_byte_flipped_after_the_verdict_was_cached_is_seen(launch: Launch, models: Path) -> None:
    server = launch(models)
    assert served(server) == ("1.0.0", 1.0)
    server.stop()
    flip(models / "scale" / "1.0.0" / "model.onnx", 100)
    publish(models, "good", graphs.scale(1.0))
    again = launch(models, ready=False)
    wait_until_good(again)
    wait_for(lambda: again.infer("scale", [ROW]).status == 503, "the refusal")


def test_a_model_that_cannot_be_served_at_start_holds_readiness_back(tmp_path: Path) -> None:
    root = tmp_path / "models"
    flip(publish(root, "scale", graphs.scale(1.0)).path / "model.onnx", 100)
    with Server(root) as server:
        wait_for(lambda: "problems" in server.get("/v2/health/ready").json(), "an answer")
        wait_for(lambda: "scale" in server.get("/v2/health/ready").json()["problems"], "the failure")
        assert server.get("/v2/health/ready").status == 503
        assert server.get("/v2/health/live").status == 200
        publish(root, "scale", graphs.scale(2.0))
        server.wait_ready()
        assert served(server) == ("1.1.0", 2.0)
