"""A full disk, a read-only one, a folder that is none: one clear error each, and nothing half written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.needs import mount_namespace

from ocad_registry import Artifact, NewerFormat, Registry, StorageFailed
from ocad_registry.storage_local import LocalStorage

from .conftest import DraftMaker, Publisher

SCRIPT = Path(__file__).with_name("small_disk.py")


def run(mode: str, folder: Path) -> tuple[dict[str, Any], list[int]]:
    folder.mkdir()
    command = [] if mode == "limit" else mount_namespace()
    command += [sys.executable, str(SCRIPT), mode, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return json.loads(lines[-3]), [int(word) for line in lines[-2:] for word in line.split()]


@pytest.mark.needs("mounts")
def test_full_disk_while_publishing(tmp_path: Path) -> None:
    refusal, (listed, findings, left) = run("tmpfs", tmp_path / "disk")
    assert refusal["done"] == listed >= 3
    assert (findings, left) == (0, 0)
    assert refusal["message"] == f"no space left in `{tmp_path}/disk/models` while publishing `m`"
    assert refusal["hint"] == "nothing was published; free some and try again"
    assert (refusal["code"], refusal["exit_code"]) == ("disk-full", 1)


def test_file_size_limit_while_publishing(tmp_path: Path) -> None:
    refusal, (listed, findings, left) = run("limit", tmp_path / "disk")
    assert (refusal["done"], refusal["code"], refusal["exit_code"]) == (0, "disk-full", 1)
    assert (listed, findings, left) == (0, 0, 0)


@pytest.mark.needs("mounts")
def test_read_only_registry(tmp_path: Path) -> None:
    refusal, (listed, findings, left) = run("read-only", tmp_path / "disk")
    assert (refusal["done"], listed, findings, left) == (0, 1, 0, 0)
    assert refusal["message"] == f"registry `{tmp_path}/disk/models` is read-only while publishing `m`"
    assert refusal["hint"] == "nothing was published; check its mount"
    assert (refusal["code"], refusal["exit_code"]) == ("read-only", 1)


def test_root_below_a_file(tmp_path: Path, make_draft: DraftMaker) -> None:
    (tmp_path / "file").write_text("")
    registry = Registry(tmp_path / "file" / "models")
    with pytest.raises(StorageFailed, match=r"not a directory .* while listing"):
        registry.list()
    with pytest.raises(StorageFailed, match=r"not a directory at .* while publishing `m`"):
        registry.publish(make_draft("m"), [])


@pytest.mark.parametrize("call", ["fsync", "rename", "link"])
def test_failing_call_leaves_nothing(
    call: str, registry: Registry, publish: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the disk refuses: the error is one of ours, nothing is listed, and the next attempt works."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(StorageFailed, match=r"input/output error at `.*` while publishing `tcn-udp_echo`"):
            publish()
    assert registry.list() == []
    assert [path for path in Path(registry.root).rglob("*") if path.is_file() and path.name != "registry.json"] == []
    assert publish().version == "1.0.0"
    assert registry.verify() == []


def test_a_writer_notices_that_the_registry_was_raised_meanwhile(registry: Registry, publish: Publisher) -> None:
    publish()
    marker = Path(registry.root, "registry.json")
    marker.chmod(0o644)
    marker.write_text('{"format": 2}')
    for write in (publish, lambda: registry.promote("tcn-udp_echo@1.0.0", "production")):
        with pytest.raises(
            NewerFormat, match="has format `2`, this reader knows `1`: upgrade `ocad-registry`"
        ) as caught:
            write()
        assert (caught.value.code, caught.value.exit_code) == ("newer-format", 1)
    assert {path.name for path in Path(registry.root, "tcn-udp_echo").iterdir()} == {"1.0.0"}


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, "no-access"), (errno.EDQUOT, "disk-full"), (errno.EROFS, "read-only")]
)
def test_what_the_system_says_has_a_code(
    number: int, code: str, registry: Registry, publish: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: str, *arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number), place)

    reference = publish().ref
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageFailed, match=r"while promoting `tcn-udp_echo@1.0.0`: nothing was moved; ") as caught:
        registry.promote(reference, "production")
    assert caught.value.code == code
    assert registry.aliases("tcn-udp_echo") == {}


def test_source_that_vanishes_is_reported(registry: Registry, make_draft: DraftMaker, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"artifact `.*/gone` is no file: write it before publishing"):
        registry.publish(make_draft(), [Artifact(tmp_path / "gone", "weights")])
    assert not Path(registry.root, "tcn-udp_echo").exists()


def test_modes_do_not_depend_on_the_umask(registry: Registry, publish: Publisher) -> None:
    before = os.umask(0o077)
    try:
        version = publish()
        registry.promote(version.ref, "production")
    finally:
        os.umask(before)
    root = Path(registry.root)
    modes = {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()}
    folders = {path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")] if path.is_dir()}
    assert (modes, folders) == ({0o444}, {0o755})


def test_lock_is_held_while_a_version_is_unfinished(tmp_path: Path) -> None:
    """A garbage collector can tell running work from dead work."""
    import fcntl

    staging = LocalStorage(tmp_path / "models").stage()
    other = os.open(staging.folder, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    staging.discard()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
