"""Copies between registries: byte for byte, parents first, gone on with after a kill, never over another version."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ocad_registry import Artifact, Corrupt, NotFound, Parent, Registry, VersionExists

from .conftest import DraftMaker, Publisher
from .test_golden_vectors import contents

COPY = """
import sys
from ocad_registry import Registry
source, target, reference = sys.argv[1:]
print([copied.to_json() for copied in Registry(source).copy(reference, Registry(target), with_parents=True)])
"""


def test_a_copy_is_the_same_byte_for_byte(registry: Registry, publish: Publisher, target: Registry) -> None:
    version = publish(name="m")
    [copied] = registry.copy("m", target)
    assert (copied.ref, copied.copied, copied.files, copied.size) == ("m@1.0.0", True, 1, 65536)
    there = target.resolve("m@1.0.0")
    assert there.metadata_sha256 == version.metadata_sha256 == copied.metadata_sha256
    assert contents(there.path) == contents(version.path)
    assert {oct(path.stat().st_mode & 0o777) for path in there.path.iterdir()} == {"0o444"}
    assert target.verify() == []
    assert list((Path(target.root) / ".staging").iterdir()) == []
    assert [again.copied for again in registry.copy("m@1.0.0", target)] == [False]


def test_another_version_of_that_number_is_never_touched(
    registry: Registry, publish: Publisher, target: Registry, make_draft: DraftMaker
) -> None:
    publish(name="m")
    kept = target.publish(make_draft("m"), [])
    with pytest.raises(VersionExists, match=r"another `m@1\.0\.0` exists"):
        registry.copy("m@1.0.0", target)
    assert target.resolve("m@1.0.0").metadata_sha256 == kept.metadata_sha256
    target.delete("m@1.0.0")
    with pytest.raises(VersionExists, match="was deleted"):
        registry.copy("m@1.0.0", target)
    assert target.list() == []


def family(registry: Registry, publish: Publisher) -> str:
    """A whole of two members that share a grandparent; its reference."""
    old = publish(name="old")
    parent = Parent(ref=old.ref, metadata_sha256=old.metadata_sha256)
    members = [publish(name=name, parents=[parent]) for name in ("one", "two")]
    parents = [Parent(ref=member.ref, metadata_sha256=member.metadata_sha256) for member in members]
    return publish(name="whole", parents=parents).ref


def test_parents_are_copied_first_and_once(registry: Registry, publish: Publisher, target: Registry) -> None:
    whole = family(registry, publish)
    copied = [one.ref for one in registry.copy(whole, target, with_parents=True)]
    assert copied[0] == "old@1.0.0"
    assert copied[-1] == whole
    assert sorted(copied) == ["old@1.0.0", "one@1.0.0", "two@1.0.0", "whole@1.0.0"]
    assert target.verify() == []


def test_without_parents_the_copy_says_what_is_missing(
    registry: Registry, publish: Publisher, target: Registry
) -> None:
    registry.copy(family(registry, publish), target)
    assert [finding.kind for finding in target.verify()] == ["missing-parent"] * 2


def test_a_parent_that_is_gone_or_another_stops_the_copy(
    registry: Registry, publish: Publisher, target: Registry, make_draft: DraftMaker
) -> None:
    old = publish(name="old")
    publish(name="whole", parents=[Parent(ref=old.ref, metadata_sha256="0" * 64)])
    with pytest.raises(Corrupt) as caught:
        registry.copy("whole", target, with_parents=True)
    assert caught.value.code == "parent-digest"
    publish(name="whole", parents=[Parent(ref="gone@1.0.0", metadata_sha256="0" * 64)])
    with pytest.raises(NotFound, match=r"gone@1\.0\.0"):
        registry.copy("whole@1.1.0", target, with_parents=True)
    assert not Path(target.root).exists()


def test_what_is_damaged_is_not_copied(registry: Registry, publish: Publisher, target: Registry) -> None:
    weights = publish(name="m").path / "weights.bin"
    os.chmod(weights, 0o644)  # noqa: PTH101
    weights.write_bytes(bytes(65536))
    with pytest.raises(Corrupt) as caught:
        registry.copy("m@1.0.0", target)
    assert caught.value.code == "digest"
    assert target.list() == []


def test_paths_of_an_object_store_are_kept_in_a_folder(
    registry: Registry, publish: Publisher, target: Registry
) -> None:
    """The layout that a version from an object store has: its payload under a folder of its own."""
    place, inner = publish(name="m").path, "0" * 32
    for file in place.iterdir():
        os.chmod(file, 0o644)  # noqa: PTH101
    (place / inner).mkdir()
    (place / "weights.bin").rename(place / inner / "weights.bin")
    document = json.loads((place / "metadata.json").read_text(encoding="utf-8"))
    document["files"][0]["path"] = f"{inner}/weights.bin"
    (place / "metadata.json").write_text(json.dumps(document), encoding="utf-8")
    digest = subprocess.run(["sha256sum", "metadata.json"], cwd=place, capture_output=True, check=True).stdout
    (place / "metadata.sha256").write_bytes(digest)
    registry.copy("m@1.0.0", target)
    assert contents(target.resolve("m@1.0.0").path) == contents(place)
    assert target.verify() == []


def test_a_copy_that_was_killed_is_gone_on_with(
    registry: Registry, make_draft: DraftMaker, target: Registry, tmp_path: Path
) -> None:
    files = []
    for number in range(3):
        path = tmp_path / f"part{number}.bin"
        path.write_bytes(bytes([number]) * 100_000)
        files.append(Artifact(path, "weights"))
    version = registry.publish(make_draft("m"), files)
    staging = Path(target.root) / ".staging" / version.metadata_sha256[:32]
    staging.mkdir(parents=True)
    shutil.copy(version.path / "part0.bin", staging / "part0.bin")  # whole, and the next one cut short
    (staging / "part1.bin").write_bytes(bytes([1]) * 5000)
    (staging / "metadata.json").write_bytes(b"{")
    kept = (staging / "part0.bin").stat().st_ino
    [copied] = registry.copy("m", target)
    assert copied.copied
    place = target.resolve("m@1.0.0").path
    assert (place / "part0.bin").stat().st_ino == kept, "what was whole was copied again"
    assert contents(place) == contents(version.path)
    assert not staging.exists()


def test_copiers_at_the_same_time_and_killed_ones(registry: Registry, publish: Publisher, target: Registry) -> None:
    whole = family(registry, publish)
    command = [sys.executable, "-c", COPY, registry.root, target.root, whole]
    killed = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    living = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in killed:
        process.send_signal(signal.SIGKILL)
    answers = [process.communicate(timeout=600)[0] for process in living]
    assert [process.returncode for process in living] == [0, 0, 0]
    assert all(whole in answer for answer in answers)
    assert target.verify() == []
    assert len(target.list()) == 4
    for process in killed:
        process.wait(timeout=600)
    target.collect_garbage()
    assert list((Path(target.root) / ".staging").iterdir()) == []
