"""What can be published, under which number, and what is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from ocad_registry import (
    Artifact,
    Corrupt,
    Draft,
    InvalidDraft,
    InvalidName,
    NotFound,
    Parity,
    PluginReference,
    Registry,
    RegistryError,
    VersionExists,
)

from .conftest import DraftMaker, Publisher


def onnx_file(folder: Path, location: str) -> Path:
    """A graph with one external tensor at `location`."""
    weight = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    path = folder / "model.onnx"
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [weight])).SerializeToString())
    return path


def test_a_version_is_whole_and_immutable(registry: Registry, publish: Publisher, artifact: Artifact) -> None:
    version = publish(params={"epochs": 30}, tags={"team": "radio"})
    assert (version.ref, version.path) == ("tcn-udp_echo@1.0.0", Path(registry.root, "tcn-udp_echo", "1.0.0"))
    assert version.manifest.passed
    assert version.manifest.params == {"epochs": 30}
    assert version.file("weights").read_bytes() == artifact.path.read_bytes()
    assert [file.path for file in version.files] == ["weights.bin"]
    assert {path.name for path in version.path.iterdir()} == {"metadata.json", "metadata.sha256", "weights.bin"}
    assert {path.stat().st_mode & 0o777 for path in version.path.iterdir()} == {0o444}
    assert json.loads((Path(registry.root) / "registry.json").read_text()) == {"format": 1}
    with pytest.raises(NotFound, match=r"`tcn-udp_echo@1.0.0` has no file of role `onnx`: it has `weights`"):
        version.file("onnx")


def test_numbers_go_on_from_the_highest_ever_given(registry: Registry, publish: Publisher) -> None:
    assert [publish().version for _ in range(2)] == ["1.0.0", "1.1.0"]
    assert publish("v3.2.1").version == "3.2.1"
    assert publish().version == "3.3.0"
    tombstone = Path(registry.root, "tcn-udp_echo", "deleted", "3.9.0.json")
    tombstone.parent.mkdir()
    tombstone.write_text("")
    Path(registry.root, "tcn-udp_echo", "3.10.0-rc.1").mkdir()
    assert publish().version == "3.11.0"
    with pytest.raises(VersionExists, match=r"`tcn-udp_echo@3.9.0` exists already"):
        publish("3.9.0")


def test_an_existing_version_is_refused(registry: Registry, publish: Publisher) -> None:
    publish("2.0.0")
    with pytest.raises(VersionExists) as caught:
        publish("v2.0.0")
    assert caught.value.message == "`tcn-udp_echo@2.0.0` exists already"
    assert caught.value.hint == "versions never change; publish under a new number"
    assert (caught.value.code, caught.value.exit_code) == ("version-exists", 1)
    assert len(registry.list()) == 1
    assert list(Path(registry.root, ".staging").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metrics": {"val_loss": float("nan")}},
            "the draft is not valid: `metrics.val_loss`: input should be a finite",
        ),
        (
            {"metrics": {"val_loss": float("inf")}},
            "the draft is not valid: `metrics.val_loss`: input should be a finite",
        ),
        ({"params": {"rate": float("nan")}}, "the draft cannot be written as JSON"),
        ({"params": {"when": object()}}, "the draft cannot be written as JSON"),
        ({"params": {"text": "\ud800"}}, "the draft cannot be written as JSON"),
        ({"params": {"text": "x" * 4_200_000}}, r"metadata would be \d+ bytes, over 4194304"),
        ({"task": ""}, "the draft is not valid: `task`: string should have at least 1 character"),
        ({"nme": 1}, "the draft is not valid: `nme`: extra inputs are not permitted"),
    ],
)
def test_drafts_that_no_reader_would_accept(
    registry: Registry, publish: Publisher, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidDraft, match=message) as caught:
        publish(**changes)
    assert caught.value.exit_code == 2
    assert registry.list() == []
    assert not any(path.is_file() for path in Path(registry.root).rglob("metadata*"))


def test_illegal_names(registry: Registry, publish: Publisher, artifact: Artifact, make_draft: DraftMaker) -> None:
    for name in ("", "UPPER", "a/b", "..", "registry.json", "a" * 129):
        with pytest.raises(InvalidName, match=r"is no model name: use a-z"):
            publish(name=name)
    for version in ("", "1", "1.0", "latest", "1.0.0+build", "01.0.0", "1.0.0-" + "a" * 64):
        with pytest.raises(InvalidName, match=r"is no version: use MAJOR.MINOR.PATCH"):
            publish(version)
    for target in ("../up", "a/b", ".hidden", "metadata.json", "ä"):
        with pytest.raises(InvalidDraft, match=r"is no file name to publish"):
            registry.publish(make_draft(), [Artifact(artifact.path, "weights", name=target)])
    with pytest.raises(InvalidDraft, match=r"two artifacts have the same file name"):
        registry.publish(make_draft(), [artifact, artifact])
    assert registry.list() == []


def test_an_onnx_must_bring_its_external_data(registry: Registry, make_draft: DraftMaker, tmp_path: Path) -> None:
    graph = Artifact(onnx_file(tmp_path, "model.onnx.data"), "onnx")
    (tmp_path / "model.onnx.data").write_bytes(b"\0" * 4)
    with pytest.raises(InvalidDraft, match=r"keeps weights in 'model.onnx.data', which is not among its files"):
        registry.publish(make_draft(), [graph])
    version = registry.publish(make_draft(), [graph, Artifact(tmp_path / "model.onnx.data", "onnx-data")])
    assert version.version == "1.0.0"
    data = version.path / "model.onnx.data"
    data.chmod(0o644)
    data.write_bytes(b"\1" * 4)
    with pytest.raises(Corrupt, match=r"`model.onnx.data` of `tcn-udp_echo@1.0.0` is not what was published"):
        registry.resolve("tcn-udp_echo@1.0.0").file("onnx")


def test_passed_needs_gates_and_parity_where_there_is_onnx(
    registry: Registry, make_draft: DraftMaker, tmp_path: Path, parity: Parity, artifact: Artifact
) -> None:
    files = [Artifact(onnx_file(tmp_path, "weights.bin"), "onnx"), Artifact(artifact.path, "onnx-data")]
    failed = parity.model_copy(update={"passed": False})
    assert registry.publish(make_draft(parity=parity), files).manifest.passed
    assert not registry.publish(make_draft(parity=failed), files).manifest.passed
    assert not registry.publish(make_draft(), files).manifest.passed
    assert not registry.publish(make_draft(gates=[]), [artifact]).manifest.passed
    assert registry.publish(make_draft(), [artifact]).manifest.passed
    assert registry.verify() == []


def test_a_file_changed_after_it_was_read_is_noticed(publish: Publisher, artifact: Artifact) -> None:
    version = publish()
    path = version.file("weights")
    path.chmod(0o644)
    path.write_bytes(b"\xff" + artifact.path.read_bytes()[1:])
    with pytest.raises(Corrupt, match=r"is not what was published") as caught:
        version.file("weights")
    assert (caught.value.code, caught.value.exit_code) == ("digest", 3)


def test_resolving_the_default(registry: Registry, publish: Publisher) -> None:
    with pytest.raises(NotFound, match=r"there is no registry `.*`, and so no model `tcn-udp_echo`: check its folder"):
        registry.resolve("tcn-udp_echo")
    publish("1.0.0-rc.1")
    with pytest.raises(NotFound, match=r"`tcn-udp_echo` has no production alias and no readable release that passed"):
        registry.resolve("tcn-udp_echo")
    publish("1.0.0")
    for reference in ("tcn-udpecho", "tcn-udpecho@1.0.0", "tcn-udpecho@production"):
        with pytest.raises(NotFound, match=r"there is no model `tcn-udpecho` in `.*`: did you mean `tcn-udp_echo`\?"):
            registry.resolve(reference)
    publish(observed=-1.0)
    publish("2.0.0-rc.1")
    assert registry.resolve("tcn-udp_echo").version == "1.0.0"
    registry.promote("tcn-udp_echo@2.0.0-rc.1", "production")
    assert registry.resolve("tcn-udp_echo").version == "2.0.0-rc.1"


def test_models_outlive_a_refused_draft(registry: Registry) -> None:
    plugin = PluginReference(name="tcn", version="0.1.0", package="ocad")
    with pytest.raises(RegistryError):
        registry.publish(Draft(name="a b", plugin=plugin, task="forecast"), [])
    assert registry.models() == []


def test_places_without_conditional_puts_are_refused_clearly() -> None:
    with pytest.raises(
        RegistryError, match=r"`ftp://host/models` is neither a folder nor a store that keeps versions safe"
    ):
        Registry("ftp://host/models")
    with pytest.raises(RegistryError, match=r"`s3://` names no bucket: use such as `s3://bucket/models`"):
        Registry("s3://")


def test_the_default_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCAD_REGISTRY", raising=False)
    assert Registry().root == "models"
    monkeypatch.setenv("OCAD_REGISTRY", str(tmp_path))
    assert Registry().root == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_registry_in_memory(
    make_draft: DraftMaker, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any fsspec file system with conditional puts will do; this one is its process's own."""
    monkeypatch.setenv("OCAD_CACHE", str(tmp_path / "cache"))
    registry = Registry(f"memory:/{tmp_path}/models")
    first, second = (registry.publish(make_draft(), [artifact]) for _ in range(2))
    registry.promote(second.ref, "production")
    with pytest.raises(RegistryError, match="exists already"):
        registry.publish(make_draft(), [artifact], first.version)
    assert [(entry.ref, entry.aliases) for entry in registry.list()] == [(second.ref, ["production"]), (first.ref, [])]
    assert registry.verify() == []
