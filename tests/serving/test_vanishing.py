"""A registry that vanishes under the server, or holds half of something: what is loaded goes on, and the problem has a name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.registries import publish
from tests.serving.servers import Server, tensor, wait_for

from ocad_registry import Registry

ROW = tensor("x", "FP32", [[1.0, 2.0]])
FAST = ("--poll", "0.05")


def problems(server: Server) -> dict[str, str]:
    found: dict[str, str] = server.get("/v2/health/ready").json()["problems"]
    return found


def up(server: Server) -> float:
    return server.metrics()["ocad_server_registry_up"]


def factor(server: Server, selector: str = "") -> float:
    value: float = server.infer("scale", [ROW], selector).json()["outputs"][0]["data"][0]
    return value


def moved(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def replaced_by_a_file(root: Path) -> None:
    moved(root)
    root.write_text("no folder")


def replaced_by_an_empty_folder(root: Path) -> None:
    moved(root)
    root.mkdir()


def emptied(root: Path) -> None:
    replaced_by_an_empty_folder(root)
    (root / "registry.json").write_text('{"format": 1}')


def without_registry_json(root: Path) -> None:
    shutil.copytree(root, root.with_name("elsewhere"), symlinks=True)
    (root / "registry.json").unlink()


def back(root: Path) -> None:
    if root.is_dir():
        shutil.rmtree(root)
    else:
        root.unlink(missing_ok=True)
    root.with_name("elsewhere").rename(root)


@pytest.mark.parametrize(
    "vanish", [moved, replaced_by_a_file, replaced_by_an_empty_folder, emptied, without_registry_json]
)
def test_what_is_loaded_outlives_its_registry(launch: Launch, models: Path, vanish: Callable[[Path], None]) -> None:
    publish(models, "scale", graphs.scale(2.0))
    Registry(models).promote("scale@1.1.0", "canary")
    server = launch(models, *FAST)
    assert (factor(server), factor(server, "canary"), up(server)) == (1.0, 2.0, 1.0)
    vanish(models)
    wait_for(lambda: "registry.json" in problems(server), "the loss to be named")
    assert "gone: " in problems(server)["registry.json"]
    assert str(models) not in problems(server)["registry.json"], "no path of the machine leaves it"
    assert (factor(server), factor(server, "canary"), up(server)) == (1.0, 2.0, 0.0)
    assert server.get("/v2/health/ready").status == 200
    back(models)
    wait_for(lambda: up(server) == 1.0, "the registry to be back")
    assert problems(server) == {}
    publish(models, "scale", graphs.scale(3.0))
    Registry(models).promote("scale@1.2.0", "production")
    wait_for(lambda: factor(server) == 3.0, "changes to be followed again")


def test_a_start_without_a_readable_registry_waits(launch: Launch, models: Path) -> None:
    (models / "registry.json").chmod(0o644)
    (models / "registry.json").write_text("")
    server = launch(models, *FAST, ready=False)
    wait_for(lambda: "registry.json" in problems(server), "the problem")
    assert server.get("/v2/health/ready").status == 503


@pytest.mark.parametrize("alias", ["production", "canary"])
@pytest.mark.parametrize("asked", [True, False], ids=["loaded", "not loaded"])
def test_an_alias_to_a_version_that_has_not_come_stays(launch: Launch, models: Path, alias: str, asked: bool) -> None:
    """A registry is copied file by file: the entry of an alias may come before the version that it names."""
    publish(models, "scale", graphs.scale(2.0))
    publish(models, "scale", graphs.scale(3.0))
    Registry(models).promote("scale@1.1.0", alias)
    server = launch(models, *FAST)
    selector = "" if alias == "production" else alias
    if asked:
        assert factor(server, selector) == 2.0
    coming, away = models / "scale" / "1.2.0", models.with_name("coming")
    Registry(models).promote("scale@1.2.0", "later")
    entry = (models / "scale" / "aliases" / "later" / "000001.json").read_bytes()
    coming.rename(away)
    wait_for(lambda: server.infer("scale", [ROW], "1.2.0").status == 404, "the version to be away")
    staged = models.with_name("entry.json")
    staged.write_bytes(entry)
    number = len(os.listdir(models / "scale" / "aliases" / alias)) + 1  # noqa: PTH208
    staged.rename(models / "scale" / "aliases" / alias / f"{number:06}.json")
    publish(models, "other", graphs.scale(5.0))
    wait_for(lambda: server.get("/v2/models/other/ready").status == 200, "the next look")
    assert factor(server, selector) == 2.0
    if alias == "production":
        assert "is not there yet" in problems(server)["scale"]
    away.rename(coming)
    wait_for(lambda: factor(server, selector) == 3.0, "the version that has come")
    assert problems(server) == {}


def test_a_leaping_entry_moves_nothing(launch: Launch, models: Path) -> None:
    publish(models, "scale", graphs.scale(2.0))
    folder = models / "scale" / "aliases" / "production"
    server = launch(models, *FAST)
    entry = json.loads((folder / "000001.json").read_bytes()) | {"version": "1.1.0"}
    (folder / "999999999999999.json").write_text(json.dumps(entry))
    Registry(models).promote("scale@1.1.0", "production")
    wait_for(lambda: factor(server) == 2.0, "the promotion")
    Registry(models).rollback("scale", "production")
    wait_for(lambda: factor(server) == 1.0, "the rollback")
