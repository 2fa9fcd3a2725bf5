"""Deleting, collecting, copying, archiving and signing in object stores."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from ocad_registry import InUse, Registry, RegistryError, Version, VersionExists, transfer_objects
from ocad_registry.digests import digest_line
from ocad_registry.signing import Keys, create_key
from ocad_registry.storage import DAY
from ocad_registry.storage_objects import ObjectStorage

Publish = Callable[[str], Version]
COPY = "import sys; from ocad_registry import Registry; Registry(sys.argv[1]).copy('m@1.0.0', Registry(sys.argv[2]))"


@pytest.fixture
def local(tmp_path: Path, publish_to: Publish) -> Registry:
    """A folder with `m@1.0.0`."""
    publish_to(str(tmp_path / "models"))
    return Registry(tmp_path / "models")


def keys_below(url: str, folder: str = "m") -> set[str]:
    return set(ObjectStorage(url).ages(folder))


def test_a_deleted_version_is_collected_and_its_number_stays_taken(url: str, publish_to: Publish) -> None:
    registry = Registry(url)
    for _ in range(2):
        publish_to(url)
    registry.promote("m@1.0.0", "production")
    with pytest.raises(InUse):
        registry.delete("m@1.0.0")
    registry.delete("m@1.1.0", reason="obsolete")
    assert [entry.ref for entry in registry.list()] == ["m@1.0.0"]
    [waiting] = registry.collect_garbage()
    assert (waiting.path, waiting.due) == ("m/1.1.0", False)
    assert waiting.size > 2 * 256 * 1024
    [removed] = registry.collect_garbage(grace=0)
    assert removed.removed
    assert {key.partition("/")[0] for key in keys_below(url)} == {"1.0.0", "deleted", "aliases"}
    assert publish_to(url).version == "1.2.0"
    assert registry.verify() == []


def test_from_a_folder_into_a_bucket_and_back(url: str, local: Registry, tmp_path: Path) -> None:
    create_key(tmp_path / "key.pem")
    local.sign("m@1.0.0", tmp_path / "key.pem")
    bucket, back = Registry(url), Registry(tmp_path / "back")
    [copied] = local.copy("m@1.0.0", bucket)
    assert (copied.copied, copied.signatures) == (True, 1)
    assert not local.copy("m@1.0.0", bucket)[0].copied
    bucket.copy("m", back)
    digests = {registry.resolve("m@1.0.0").metadata_sha256 for registry in (local, bucket, back)}
    assert len(digests) == 1
    for registry in (bucket, back):
        assert registry.verify(keys=Keys.read(tmp_path / "key.pem.pub")) == []
    assert bucket.resolve("m").file("weights").read_bytes() == local.resolve("m").file("weights").read_bytes()


def test_what_was_published_in_a_bucket_keeps_its_paths(url: str, publish_to: Publish, tmp_path: Path) -> None:
    version, folder, other = publish_to(url), Registry(tmp_path / "folder"), Registry(f"{url}-other")
    bucket = Registry(url)
    bucket.copy("m", folder)
    bucket.copy("m", other)
    bucket.export("m", tmp_path / "m.tar")
    assert [file.path for file in folder.resolve("m").files] == [file.path for file in version.files]
    third = Registry(f"{url}-third")
    assert third.import_archive(tmp_path / "m.tar").copied
    for registry in (folder, other, third):
        assert registry.resolve("m").metadata_sha256 == version.metadata_sha256
        assert registry.verify() == []
        assert registry.collect_garbage(grace=0) == []


def test_a_copy_that_was_cut_short_is_gone_on_with(url: str, local: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, version = ObjectStorage(url), local.resolve("m@1.0.0")
    receiving = storage.receive("m/1.0.0", version.metadata_sha256)
    receiving.add(version.path / "a.bin", "a.bin")
    assert Registry(url).list() == []
    sent: list[str] = []
    upload = ObjectStorage.upload

    def counted(self: ObjectStorage, source: Path, path: str) -> None:
        sent.append(path)
        upload(self, source, path)

    monkeypatch.setattr(ObjectStorage, "upload", counted)
    local.copy("m@1.0.0", Registry(url))
    assert sent == ["m/1.0.0/b.bin"]
    assert Registry(url).verify() == []


def test_a_number_that_another_claimed_is_left_alone(url: str, local: Registry) -> None:
    ObjectStorage(url).create("m/1.0.0/metadata.sha256", digest_line("0" * 64))
    with pytest.raises(VersionExists, match="is being written"):
        local.copy("m@1.0.0", Registry(url))
    assert keys_below(url) == {"1.0.0/metadata.sha256"}


def test_what_is_about_to_be_collected_is_not_built_on(
    url: str, local: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = local.resolve("m@1.0.0")
    ObjectStorage(url).receive("m/1.0.0", version.metadata_sha256).add(version.path / "a.bin", "a.bin")
    monkeypatch.setattr(transfer_objects, "_STALE", -1.0)
    with pytest.raises(RegistryError, match="an old unfinished copy is in the way"):
        local.copy("m@1.0.0", Registry(url))


def test_a_killed_copier_leaves_nothing_in_sight(moto_url: str, local: Registry) -> None:
    bucket = Registry(moto_url)
    for delay in (0.4, 0.8, 1.2):
        copier = subprocess.Popen([sys.executable, "-c", COPY, local.root, moto_url])
        try:
            copier.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            copier.send_signal(signal.SIGKILL)
            copier.wait(timeout=600)
        assert [finding for finding in bucket.verify() if finding.severity == "error"] == []
        assert [entry.broken for entry in bucket.list() if entry.broken] == []
    local.copy("m@1.0.0", bucket)
    assert bucket.verify() == []


def test_copiers_of_two_different_versions_of_one_number(
    moto_url: str, local: Registry, tmp_path: Path, publish_to: Publish
) -> None:
    publish_to(str(tmp_path / "rival"))
    sources = [local.root, str(tmp_path / "rival")] * 3
    copiers = [
        subprocess.Popen([sys.executable, "-c", COPY, source, moto_url], stderr=subprocess.DEVNULL)
        for source in sources
    ]
    codes = [copier.wait(timeout=600) for copier in copiers]
    assert sorted(codes) == [0, 0, 0, 1, 1, 1], "the copiers of one version, and of none other, succeed"
    winner = Registry(sources[codes.index(0)]).resolve("m@1.0.0")
    assert codes == [int(source != sources[codes.index(0)]) for source in sources]
    bucket = Registry(moto_url)
    assert bucket.resolve("m@1.0.0").metadata_sha256 == winner.metadata_sha256
    assert bucket.verify() == []
    assert bucket.collect_garbage(grace=0) == []


def test_orphans_are_collected_when_nobody_can_be_at_work_on_them(
    url: str, publish_to: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_to(url)
    storage, registry = ObjectStorage(url), Registry(url)
    whole = keys_below(url)
    loser, killed = uuid4().hex, uuid4().hex
    (tmp_path / "half").write_bytes(b"12345")
    storage.upload(tmp_path / "half", f"m/1.0.0/{loser}/a.bin")
    storage.upload(tmp_path / "half", f"m/7.0.0/{killed}/a.bin")
    storage.create("m/7.0.0/metadata.sha256", digest_line("0" * 64))
    waiting = registry.collect_garbage(grace=0)
    assert [garbage.path for garbage in waiting] == [
        f"m/1.0.0/{loser}",
        f"m/7.0.0/{killed}",
        "m/7.0.0/metadata.sha256",
    ]
    assert not any(garbage.due or garbage.removed for garbage in waiting)
    assert all("kept for 7 days more" in garbage.reason for garbage in waiting)
    monkeypatch.setattr(transfer_objects, "ORPHAN_AGE", 0.0)
    assert [garbage.removed for garbage in registry.collect_garbage(dry_run=True)] == [False] * 3
    assert [(garbage.kind, garbage.removed) for garbage in registry.collect_garbage()] == [("orphan", True)] * 3
    assert keys_below(url) == whole
    assert registry.verify() == []


def test_a_clock_that_leapt_ahead_takes_no_publishers_work_away(
    url: str, publish_to: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_to(url)
    (tmp_path / "half").write_bytes(b"12345")
    ObjectStorage(url).upload(tmp_path / "half", f"m/7.0.0/{uuid4().hex}/a.bin")
    before, true_time = keys_below(url), time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + 30 * DAY)
    [waiting] = Registry(url).collect_garbage()
    assert (waiting.due, waiting.removed) == (False, False)
    assert "kept for 7 days more" in waiting.reason
    assert keys_below(url) == before
