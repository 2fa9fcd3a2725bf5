"""Garbage: what is removed, what is kept and why, and writers at work that lose nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocad_registry import Invalid, Registry
from ocad_registry.storage_local import LocalStorage

from .conftest import DraftMaker, Publisher

WRITERS = Path(__file__).with_name("writers.py")
COLLECT = """
import os, sys
from ocad_registry import Registry
while not os.path.exists(sys.argv[2]):
    Registry(sys.argv[1]).collect_garbage(grace=0)
"""
DAY = 24 * 3600.0


def aged(path: Path, days: float) -> None:
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))


def test_a_deleted_version_is_collected_after_its_grace(registry: Registry, publish: Publisher) -> None:
    place = publish(name="m").path
    publish(name="m")
    registry.delete("m@1.0.0")
    [waiting] = registry.collect_garbage()
    assert (waiting.path, waiting.kind, waiting.due, waiting.removed) == ("m/1.0.0", "deleted", False, False)
    assert waiting.size == sum(file.stat().st_size for file in place.iterdir())
    assert "kept for 7 days more" in waiting.reason
    aged(Path(registry.root) / "m" / "deleted" / "1.0.0.json", 8)
    [shown] = registry.collect_garbage(dry_run=True)
    assert (shown.due, shown.removed, shown.reason) == (True, False, "deleted 8 days ago")
    assert place.is_dir()
    [removed] = registry.collect_garbage()
    assert (removed.due, removed.removed, removed.size) == (True, True, waiting.size)
    assert not place.exists()
    assert (Path(registry.root) / "m" / "deleted" / "1.0.0.json").is_file()
    assert registry.collect_garbage(grace=0) == []
    assert registry.verify() == []


def test_staging_of_a_dead_writer_is_collected_and_that_of_a_living_one_is_not(
    registry: Registry, publish: Publisher, tmp_path: Path
) -> None:
    publish(name="m")
    staging = Path(registry.root) / ".staging"
    living = LocalStorage(registry.root).stage()
    source = tmp_path / "payload"
    source.write_bytes(b"payload")
    living.add(source, "payload.bin")
    dead = staging / ("0" * 32)
    (dead / "inner").mkdir(parents=True)
    (dead / "inner" / "half").write_bytes(b"12345")
    (staging / "stray").write_bytes(b"1")
    found = {waste.path: waste for waste in registry.collect_garbage()}
    assert set(found) == {f".staging/{dead.name}", ".staging/stray"}
    assert found[f".staging/{dead.name}"].size == 5
    assert all(waste.kind == "staging" and waste.removed for waste in found.values())
    assert [path.name for path in staging.iterdir()] == [Path(living.folder).name]
    living.publish("m/2.0.0", {"metadata.json": b"{}", "metadata.sha256": b""})
    assert (Path(registry.root) / "m" / "2.0.0" / "payload.bin").read_bytes() == b"payload"


def test_what_lies_beside_a_link_is_not_followed(registry: Registry, publish: Publisher, tmp_path: Path) -> None:
    publish(name="m")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    (Path(registry.root) / "m" / "2.0.0").symlink_to(outside)
    (Path(registry.root) / ".staging" / "link").symlink_to(outside)
    registry.delete("m@2.0.0")
    assert {waste.path for waste in registry.collect_garbage(grace=0)} == {"m/2.0.0", ".staging/link"}
    assert (outside / "precious").is_file()
    assert not (Path(registry.root) / "m" / "2.0.0").is_symlink()


def test_a_grace_is_no_negative_time(registry: Registry) -> None:
    with pytest.raises(Invalid):
        registry.collect_garbage(grace=-1)


def test_a_registry_that_is_not_there_has_no_garbage(registry: Registry) -> None:
    assert registry.collect_garbage() == []
    assert not Path(registry.root).exists()


def test_racing_publishers_lose_nothing_to_collectors(tmp_path: Path, make_draft: DraftMaker) -> None:
    root, done = str(tmp_path / "models"), tmp_path / "done"
    collectors = [subprocess.Popen([sys.executable, "-c", COLLECT, root, str(done)]) for _ in range(2)]
    publishers = [
        subprocess.Popen([sys.executable, str(WRITERS), "publish", root, "40"], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    references = [line for process in publishers for line in process.communicate(timeout=600)[0].split()]
    done.touch()
    assert [process.wait(timeout=600) for process in publishers] == [0] * 4
    assert [process.wait(timeout=600) for process in collectors] == [0] * 2
    registry = Registry(root)
    assert len(set(references)) == 160
    assert {entry.ref for entry in registry.list()} == set(references)
    assert registry.verify() == []
    registry.collect_garbage()
    assert list(Path(root, ".staging").iterdir()) == []
