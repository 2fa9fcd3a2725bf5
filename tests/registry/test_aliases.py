"""Promote, roll back, unset: what they refuse, what they write, where they lead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocad_registry import Corrupt, ExpectationFailed, Invalid, InvalidName, NotFound, Refused, Registry, RegistryError

from .conftest import Publisher

NAME = "tcn-udp_echo"


@pytest.fixture
def three(registry: Registry, publish: Publisher) -> Registry:
    """1.0.0, 1.1.0 and 1.2.0, promoted to production one after the other."""
    for _ in range(3):
        registry.promote(publish().ref, "production")
    return registry


def test_an_entry_holds_what_format_md_says(registry: Registry, publish: Publisher) -> None:
    version = publish()
    entry = registry.promote(f"{NAME}@v1.0.0", "production", reason="first")
    stored = json.loads(Path(registry.root, NAME, "aliases", "production", "000001.json").read_text())
    assert stored == {
        "kind": "promote",
        "version": "1.0.0",
        "metadata_sha256": version.metadata_sha256,
        "moved_at": entry.moved_at,
        "by": "ops@example",
        "reason": "first",
        "forced": False,
    }
    assert entry.to_json() == {"number": 1, **stored}
    assert registry.aliases(NAME) == {"production": "1.0.0"}
    assert registry.list()[0].aliases == ["production"]


def test_rollback_goes_further_back_and_never_forth(three: Registry) -> None:
    assert three.rollback(NAME, "production", reason="worse").version == "1.1.0"
    assert three.rollback(NAME, "production").version == "1.0.0"
    with pytest.raises(NotFound, match=f"`{NAME}@production` has no earlier version to go back to"):
        three.rollback(NAME, "production")
    assert three.resolve(f"{NAME}@production").version == "1.0.0"
    three.promote(f"{NAME}@1.2.0", "production")
    assert three.rollback(NAME, "production").version == "1.0.0"
    kinds = [(entry.number, entry.kind, entry.version) for entry in three.history(NAME, "production")]
    assert kinds[3:] == [
        (4, "rollback", "1.1.0"),
        (5, "rollback", "1.0.0"),
        (6, "promote", "1.2.0"),
        (7, "rollback", "1.0.0"),
    ]


def test_promoting_the_same_version_twice_is_one_step_for_rollback(three: Registry) -> None:
    three.promote(f"{NAME}@1.2.0", "production", reason="again")
    assert three.rollback(NAME, "production").version == "1.1.0"


def test_unset_and_back(three: Registry) -> None:
    entry = three.unset(NAME, "production", reason="retired")
    assert (entry.number, entry.kind, entry.version, entry.metadata_sha256) == (4, "unset", None, None)
    assert three.aliases(NAME) == {}
    with pytest.raises(NotFound, match=f"`{NAME}` has no alias `production`: aliases set: none"):
        three.resolve(f"{NAME}@production")
    with pytest.raises(NotFound):
        three.unset(NAME, "production")
    assert three.rollback(NAME, "production").version == "1.2.0"
    assert three.rollback(NAME, "production").version == "1.1.0"


def test_rollback_passes_over_deleted_and_damaged_versions(three: Registry, publish: Publisher) -> None:
    three.promote(publish().ref, "production")
    tombstone = Path(three.root, NAME, "deleted", "1.2.0.json")
    tombstone.parent.mkdir()
    tombstone.write_text("")
    Path(three.root, NAME, "1.1.0", "weights.bin").unlink()
    assert three.rollback(NAME, "production").version == "1.0.0"


def test_a_version_that_failed_is_refused_unless_forced_with_a_reason(registry: Registry, publish: Publisher) -> None:
    reference = publish(observed=-0.5).ref
    with pytest.raises(Refused) as caught:
        registry.promote(reference, "production")
    assert caught.value.message == f"`{reference}` did not pass: gate `skill`: `skill` is -0.5, not > 0.0"
    assert (caught.value.code, caught.value.exit_code) == ("refused", 3)
    with pytest.raises(Invalid, match=r"a forced promotion needs a reason: say why with `--reason`") as usage:
        registry.promote(reference, "production", force=True)
    assert usage.value.exit_code == 2
    assert registry.aliases(NAME) == {}
    assert registry.promote(reference, "production", force=True, reason="nothing better").forced
    assert registry.history(NAME, "production")[0].reason == "nothing better"
    assert not registry.promote(publish().ref, "production", force=True, reason="passed anyway").forced


def test_expect(three: Registry) -> None:
    with pytest.raises(ExpectationFailed) as caught:
        three.promote(f"{NAME}@1.0.0", "production", expect="1.1.0")
    assert caught.value.message == f"`{NAME}@production` is `1.2.0`, not `1.1.0`"
    assert caught.value.exit_code == 1
    with pytest.raises(ExpectationFailed, match=r"is `none`, not `1.1.0`"):
        three.promote(f"{NAME}@1.0.0", "canary", expect="1.1.0")
    assert three.promote(f"{NAME}@1.0.0", "production", expect="v1.2.0").number == 4
    assert three.promote(f"{NAME}@1.0.0", "canary", expect="none").number == 1
    with pytest.raises(ExpectationFailed, match=r"is `1.0.0`, not `none`"):
        three.promote(f"{NAME}@1.0.0", "canary", expect="none")


def test_a_damaged_version_is_never_promoted(registry: Registry, publish: Publisher) -> None:
    version = publish()
    (version.path / "weights.bin").unlink()
    for force in (False, True):
        with pytest.raises(Corrupt, match=r"`weights.bin` of .* is missing"):
            registry.promote(version.ref, "production", force=force, reason="x")
    assert registry.aliases(NAME) == {}


def test_a_damaged_newest_entry_fails_closed_and_is_healed_by_the_next_move(three: Registry) -> None:
    Path(three.root, NAME, "aliases", "production", "000004.json").write_bytes(b"")
    with pytest.raises(Corrupt, match=f"entry 4 of `{NAME}@production` cannot be read"):
        three.resolve(NAME)
    assert three.aliases(NAME) == {}
    assert three.history(NAME, "production")[3].kind == "broken"
    with pytest.raises(ExpectationFailed, match=r"is `unknown`, not `1.2.0`"):
        three.promote(f"{NAME}@1.0.0", "production", expect="1.2.0")
    assert three.rollback(NAME, "production").version == "1.2.0"
    assert three.resolve(NAME).version == "1.2.0"


def test_a_promoter_whose_version_was_deleted_meanwhile_takes_it_back(
    three: Registry, publish: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone lands between the check and the entry: the delete wins and the history says so."""
    version = publish()
    create = type(three._storage).create

    def delete_first(storage: object, path: str, data: bytes) -> None:
        monkeypatch.undo()
        create(three._storage, f"{NAME}/deleted/{version.version}.json", b"{}\n")
        create(three._storage, path, data)

    monkeypatch.setattr(type(three._storage), "create", delete_first)
    with pytest.raises(NotFound, match=r"there is no version `tcn-udp_echo@1.3.0` any more"):
        three.promote(version.ref, "production")
    last = three.history(NAME, "production")[-1]
    assert (last.number, last.kind, last.version) == (5, "rollback", "1.2.0")
    assert last.reason == f"{version.ref} was deleted meanwhile"
    assert three.resolve(NAME).version == "1.2.0"


def test_an_alias_stays_with_the_version_it_was_given(three: Registry) -> None:
    """Metadata replaced together with its digest is whole in itself, but not what was promoted."""
    folder = Path(three.root, NAME, "1.2.0")
    document = json.loads((folder / "metadata.json").read_text()) | {"description": "another"}
    data = (json.dumps(document) + "\n").encode()
    from ocad_registry import digests

    for name, content in (("metadata.json", data), ("metadata.sha256", digests.digest_line(digests.digest(data)))):
        (folder / name).chmod(0o644)
        (folder / name).write_bytes(content)
    with pytest.raises(Corrupt, match=r"is not the version that the alias was given") as caught:
        _ = three.resolve(f"{NAME}@production").manifest
    assert caught.value.code == "alias-digest"
    assert [finding.kind for finding in three.verify()] == ["alias-digest"]


def test_wrong_names(three: Registry) -> None:
    for alias in ("", "Prod", "1st", "a_b", "a" * 65):
        with pytest.raises(InvalidName, match=r"is no alias"):
            three.promote(f"{NAME}@1.0.0", alias)
    for call in (three.rollback, three.unset, three.history):
        with pytest.raises(InvalidName):
            call("No Model", "production")
        with pytest.raises(RegistryError) as caught:
            call("nothing", "production")
        assert caught.value.exit_code == 1
