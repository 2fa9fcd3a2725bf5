"""A registry in a bucket: the same answers as a folder's, and where things lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.golden.registry_case import network_files
from tests.registry.conftest import DraftMaker, Publisher

from ocad_registry import Artifact, Corrupt, NotFound, Parity, Registry, VersionExists
from ocad_registry.remotes import connect


def keys(url: str) -> list[str]:
    """Every object of the registry at `url`, relative to it."""
    place = url.removeprefix("s3://")
    return sorted(key.removeprefix(f"{place}/") for key in connect(url).find(place))


def put(url: str, path: str, data: bytes) -> None:
    connect(url).pipe_file(f"{url.removeprefix('s3://')}/{path}", data)


def test_a_life_in_a_bucket(registry: Registry, publish: Publisher, artifact: Artifact) -> None:
    assert registry.list() == []
    first, second = publish(), publish(observed=0.5)
    assert (first.ref, second.ref) == ("tcn-udp_echo@1.0.0", "tcn-udp_echo@1.1.0")
    assert registry.promote(first.ref, "production").number == 1
    assert registry.promote(second.ref, "production", expect="1.0.0").number == 2
    assert registry.resolve("tcn-udp_echo").version == "1.1.0"
    assert registry.rollback("tcn-udp_echo", "production").version == "1.0.0"
    assert [entry.kind for entry in registry.history("tcn-udp_echo", "production")] == [
        "promote",
        "promote",
        "rollback",
    ]
    assert [(entry.ref, entry.aliases) for entry in registry.list()] == [(second.ref, []), (first.ref, ["production"])]
    assert [entry.ref for entry in registry.query("metrics.skill > 0.4")] == [second.ref]
    assert registry.unset("tcn-udp_echo", "production").number == 4
    assert registry.resolve("tcn-udp_echo").version == "1.1.0"
    assert registry.resolve(first.ref).file("weights").read_bytes() == artifact.path.read_bytes()
    assert registry.verify() == []


def test_the_payload_lies_under_a_folder_of_its_writer(registry: Registry, publish: Publisher) -> None:
    version = publish()
    (file,) = version.files
    writer, _, name = file.path.partition("/")
    assert len(writer) == 32
    assert name == "weights.bin"
    assert keys(registry.root) == [
        "registry.json",
        *(f"tcn-udp_echo/1.0.0/{path}" for path in sorted([file.path, "metadata.json", "metadata.sha256"])),
    ]
    assert version.location == f"{registry.root}/tcn-udp_echo/1.0.0"


def test_a_number_is_given_once(registry: Registry, publish: Publisher) -> None:
    publish("2.0.0")
    before = keys(registry.root)
    with pytest.raises(VersionExists):
        publish("2.0.0")
    assert keys(registry.root) == before
    assert publish().version == "2.1.0"


def test_an_onnx_finds_its_data_beside_it(
    registry: Registry, make_draft: DraftMaker, parity: Parity, tmp_path: Path
) -> None:
    artifacts = []
    for name, (role, data) in network_files().items():
        (tmp_path / name).write_bytes(data)
        artifacts.append(Artifact(tmp_path / name, role))
    registry.publish(make_draft(parity=parity), artifacts)
    version = registry.resolve("tcn-udp_echo")
    onnx = version.file("onnx")
    assert (onnx.parent / "model.onnx.data").read_bytes() == network_files()["model.onnx.data"][1]
    assert version.named("model.onnx") == onnx
    assert onnx.relative_to(version.path).parts[1:] == ("model.onnx",)
    with pytest.raises(NotFound, match=r"has no file `other.bin`: it has `model.onnx`, `model.onnx.data`"):
        version.named("other.bin")


def test_empty_and_large_payloads(registry: Registry, make_draft: DraftMaker, tmp_path: Path) -> None:
    (tmp_path / "empty.bin").write_bytes(b"")
    with (tmp_path / "large.bin").open("wb") as stream:
        stream.truncate(16 * 1024 * 1024)  # a multiple of the pieces it is read in
    registry.publish(
        make_draft(), [Artifact(tmp_path / "empty.bin", "report"), Artifact(tmp_path / "large.bin", "weights")]
    )
    version = registry.resolve("tcn-udp_echo")
    assert version.file("report").read_bytes() == b""
    assert version.file("weights").stat().st_size == 16 * 1024 * 1024
    assert registry.verify() == []


def test_damage_in_the_bucket_is_named(registry: Registry, publish: Publisher) -> None:
    path = f"tcn-udp_echo/1.0.0/{publish().files[0].path}"
    for data, kind in ((b"short", "size"), (bytes(65536), "digest"), (bytes(65537), "size")):
        put(registry.root, path, data)
        assert [finding.kind for finding in registry.verify()] == [kind]
        with pytest.raises(Exception, match=r"of `tcn-udp_echo@1.0.0`") as caught:
            registry.resolve("tcn-udp_echo").file("weights")
        assert getattr(caught.value, "code", "") == kind
    put(registry.root, "tcn-udp_echo/1.0.0/metadata.json", json.dumps({"format": 1}).encode())
    assert [finding.kind for finding in registry.verify()] == ["metadata-digest"]
    with pytest.raises(Corrupt, match="sha256 differs"):
        registry.resolve("tcn-udp_echo@1.0.0").file("weights")


def test_unfinished_work_of_others_is_invisible(registry: Registry, publish: Publisher) -> None:
    publish("1.0.0")
    put(registry.root, "tcn-udp_echo/1.1.0/0123456789abcdef0123456789abcdef/weights.bin", b"half")
    put(registry.root, "tcn-udp_echo/1.2.0/metadata.sha256", b"claimed")
    assert [entry.version for entry in registry.list()] == ["1.0.0"]
    assert registry.resolve("tcn-udp_echo").version == "1.0.0"
    assert {(finding.severity, finding.kind) for finding in registry.verify()} == {("warning", "incomplete")}
    with pytest.raises(VersionExists):
        publish("1.2.0")
    assert publish("1.1.0").version == "1.1.0", "a payload alone claims no number"
    assert publish().version == "1.3.0"


def test_a_tombstone_is_read_in_a_bucket(registry: Registry, publish: Publisher) -> None:
    publish()
    publish()
    registry.promote("tcn-udp_echo@1.1.0", "production")
    put(registry.root, "tcn-udp_echo/deleted/1.1.0.json", b"{}")
    assert [entry.version for entry in registry.list()] == ["1.0.0"]
    assert registry.resolve("tcn-udp_echo").version == "1.0.0"
    with pytest.raises(VersionExists):
        publish("1.1.0")
    assert publish().version == "1.2.0"
