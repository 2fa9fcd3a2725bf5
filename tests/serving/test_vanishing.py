"""A registry that vanishes under the server, or holds half of something: what is loaded goes on, and the problem has a name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.needs import mount_namespace
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
    staged = root.with_name("staged")
    staged.write_text('{"format": 1}')
    replaced_by_an_empty_folder(root)
    staged.rename(root / "registry.json")


def a_link_to_nowhere(root: Path) -> None:
    moved(root)
    root.symlink_to("nowhere")


def copied(root: Path) -> Path:
    shutil.copytree(root, root.with_name("elsewhere"), symlinks=True)
    return root / "registry.json"


def without_registry_json(root: Path) -> None:
    copied(root).unlink()


def written(content: str) -> Callable[[Path], None]:
    """Another `registry.json`."""

    def write(root: Path) -> None:
        staged = root.with_name("staged")
        staged.write_text(content)
        staged.rename(copied(root))

    return write


def back(root: Path) -> None:
    if root.is_dir() and not root.is_symlink():
        shutil.rmtree(root)
    else:
        root.unlink(missing_ok=True)
    root.with_name("elsewhere").rename(root)


VANISHED: dict[str, tuple[Callable[[Path], None], str]] = {
    "moved": (moved, "gone: "),
    "replaced by a file": (replaced_by_a_file, "gone: "),
    "replaced by an empty folder": (replaced_by_an_empty_folder, "gone: "),
    "emptied": (emptied, "gone: "),
    "a link to nowhere": (a_link_to_nowhere, "gone: "),
    "without registry.json": (without_registry_json, "gone: "),
    "truncated": (written(""), "bad-json: "),
    "cut short": (written('{"format": '), "bad-json: "),
    "of no format": (written("{}"), "bad-registry: "),
    "of another program": (written('{"format": "v2"}'), "bad-registry: "),
    "of a newer format": (written('{"format": 2}'), "newer-format: "),
}


@pytest.mark.parametrize(("vanish", "verdict"), VANISHED.values(), ids=list(VANISHED))
def test_what_is_loaded_outlives_its_registry(
    launch: Launch, models: Path, vanish: Callable[[Path], None], verdict: str
) -> None:
    publish(models, "scale", graphs.scale(2.0))
    Registry(models).promote("scale@1.1.0", "canary")
    server = launch(models, *FAST)
    assert (factor(server), factor(server, "canary"), up(server)) == (1.0, 2.0, 1.0)
    vanish(models)
    wait_for(lambda: "registry.json" in problems(server), "the loss to be named")
    assert verdict in problems(server)["registry.json"]
    assert str(models) not in problems(server)["registry.json"], "no path of the machine leaves it"
    assert (factor(server), factor(server, "canary"), up(server)) == (1.0, 2.0, 0.0)
    assert server.get("/v2/health/ready").status == 200
    back(models)
    wait_for(lambda: up(server) == 1.0, "the registry to be back")
    assert problems(server) == {}
    publish(models, "scale", graphs.scale(3.0))
    Registry(models).promote("scale@1.2.0", "production")
    wait_for(lambda: factor(server) == 3.0, "changes to be followed again")


@pytest.mark.needs("setpriv", "root")
def test_a_registry_that_may_not_be_read_changes_nothing(models: Path) -> None:
    bound = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
    with Server(models, *FAST, prefix=bound) as server:
        server.wait_ready()
        models.chmod(0)
        wait_for(lambda: "registry.json" in problems(server), "the refusal to be named")
        assert (factor(server), up(server), server.get("/v2/health/ready").status) == (1.0, 0.0, 200)
        models.chmod(0o755)
        wait_for(lambda: up(server) == 1.0, "the registry to be back")
        publish(models, "scale", graphs.scale(3.0))
        Registry(models).promote("scale@1.1.0", "production")
        wait_for(lambda: factor(server) == 3.0, "changes to be followed again")


@pytest.mark.needs("root", "mounts", "nsenter")
def test_a_disk_that_is_unmounted_and_mounted_again(models: Path) -> None:
    disk = models.rename(models.with_name("disk"))
    models.mkdir()
    mounted = [*mount_namespace(), "sh", "-c", f'mount --bind "{disk}" "{models}" && exec "$@"', "sh"]
    with Server(models, *FAST, prefix=mounted) as server:
        server.wait_ready()

        def inside(*command: str) -> None:
            subprocess.run(["nsenter", f"--target={server.process.pid}", "--mount", *command], check=True)

        inside("umount", "--lazy", str(models))
        wait_for(lambda: "registry.json" in problems(server), "the loss to be named")
        assert (factor(server), up(server), server.get("/v2/health/ready").status) == (1.0, 0.0, 200)
        inside("mount", "--bind", str(disk), str(models))
        wait_for(lambda: up(server) == 1.0, "the registry to be back")
        publish(disk, "scale", graphs.scale(3.0))
        Registry(disk).promote("scale@1.1.0", "production")
        wait_for(lambda: factor(server) == 3.0, "changes to be followed again")


def test_another_folder_in_its_place_is_watched(launch: Launch, models: Path) -> None:
    """Between two looks the registry becomes another folder: its changes are told at once, not by the next poll."""
    real = models.rename(models.with_name("first"))
    models.symlink_to(real.name)
    server = launch(models, "--poll", "3600")
    second = models.with_name("second")
    shutil.copytree(real, second)
    models.unlink()
    models.symlink_to(second.name)
    (real / "scale" / "1.0.0").touch()  # wakes the server, as anything in the folder that it still watches does
    publish(real, "seen", graphs.scale(1.0))
    publish(second, "scale", graphs.scale(2.0))
    Registry(second).promote("scale@1.1.0", "production")
    wait_for(lambda: factor(server) == 2.0, "the promotion in the folder that took its place", 60)
    Registry(second).rollback("scale", "production")
    wait_for(lambda: factor(server) == 1.0, "the rollback there", 60)


PARTS: dict[str, tuple[str, list[str]]] = {
    "the model": ("scale", ["version `1.0.0`", "version `1.1.0`", "alias `canary`", "the tombstone of `1.2.0`"]),
    "the version in service": ("scale/1.0.0", ["version `1.0.0`"]),
    "the version of an alias": ("scale/1.1.0", ["version `1.1.0`"]),
    "all aliases": ("scale/aliases", ["alias `canary`", "alias `off`", "alias `production`"]),
    "the alias production": ("scale/aliases/production", ["alias `production`"]),
    "an entry of it": ("scale/aliases/production/000003.json", ["alias `production`"]),
    "another alias": ("scale/aliases/canary", ["alias `canary`"]),
    "an alias that is not set": ("scale/aliases/off", ["alias `off`"]),
    "the tombstones": ("scale/deleted", ["the tombstone of `1.2.0`"]),
}
SILENT = ("scale/1.0.0", "scale/1.1.0", "scale/aliases/production/000003.json")
"""What is still listed when it is emptied: a version's record is known, an entry is a broken one."""


@pytest.mark.parametrize(("part", "named"), PARTS.values(), ids=list(PARTS))
@pytest.mark.parametrize("emptied", [False, True], ids=["gone", "emptied"])
def test_what_goes_without_a_tombstone_stays(
    launch: Launch, models: Path, part: str, named: list[str], emptied: bool
) -> None:
    for value in (2.0, 3.0, 4.0):
        publish(models, "scale", graphs.scale(value))
    store = Registry(models)
    store.promote("scale@1.1.0", "production")
    store.rollback("scale", "production")
    store.promote("scale@1.1.0", "canary")
    store.promote("scale@1.3.0", "off")
    store.unset("scale", "off")
    store.delete("scale@1.2.0")
    server = launch(models, *FAST)
    expected = {"": 1.0, "canary": 2.0, "1.0.0": 1.0, "1.1.0": 2.0}

    def answers() -> dict[str, float]:
        return {selector: factor(server, selector) for selector in expected}

    assert answers() == expected
    assert server.infer("scale", [ROW], "off").status == 404
    away = models.with_name("away")
    (models / part).rename(away)
    if emptied and away.is_dir():
        (models / part).mkdir()
    elif emptied:
        (models / part).write_text("")
    publish(models, "other", graphs.scale(5.0))
    wait_for(lambda: server.get("/v2/models/other/ready").status == 200, "the next look")
    assert answers() == expected
    assert server.infer("scale", [ROW], "off").status == 404
    assert server.infer("scale", [ROW], "1.2.0").status == 404, "what is deleted stays so"
    if not (emptied and part in SILENT):
        told = problems(server)["scale"]
        assert told.startswith("gone: ")
        assert [name for name in named if name not in told] == []
    assert server.get("/v2/health/ready").status == 200
    if emptied and (models / part).is_dir():
        (models / part).rmdir()
    elif emptied:
        (models / part).unlink()
    away.rename(models / part)
    wait_for(lambda: problems(server) == {}, "it to be back")
    assert answers() == expected
    store.promote("scale@1.3.0", "production")
    wait_for(lambda: factor(server) == 4.0, "changes to be followed again")


def test_a_real_deletion_is_followed(launch: Launch, models: Path) -> None:
    publish(models, "scale", graphs.scale(2.0))
    server = launch(models, *FAST)
    assert factor(server, "1.1.0") == 2.0
    Registry(models).delete("scale@1.1.0")
    wait_for(lambda: server.infer("scale", [ROW], "1.1.0").status == 404, "the deletion")
    shutil.rmtree(models / "scale" / "1.1.0")  # as the garbage collector does after the tombstone
    publish(models, "other", graphs.scale(5.0))
    wait_for(lambda: server.get("/v2/models/other/ready").status == 200, "the next look")
    assert server.infer("scale", [ROW], "1.1.0").status == 404
    assert problems(server) == {}


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
