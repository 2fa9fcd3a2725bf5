"""Deleting: what it refuses, that a tombstone wins over everything, and races with promotions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ocad_registry import InUse, InvalidName, NotFound, Parent, Registry, RegistryError, VersionExists

from .conftest import DraftMaker, Publisher, counts_of


def test_a_deleted_version_is_gone_from_every_answer_and_its_number_never_comes_back(
    registry: Registry, publish: Publisher
) -> None:
    kept, gone = publish(name="m"), publish(name="m")
    tombstone = registry.delete("m@v1.1.0", reason="trained on the wrong links")
    stored = json.loads((Path(registry.root) / "m" / "deleted" / "1.1.0.json").read_text(encoding="utf-8"))
    assert stored == {"deleted_at": tombstone.deleted_at, "by": "ops@example", "reason": "trained on the wrong links"}
    assert [entry.ref for entry in registry.list()] == [kept.ref]
    assert registry.resolve("m").version == "1.0.0"
    for call in (lambda: registry.resolve(gone.ref), lambda: registry.promote(gone.ref, "production")):
        with pytest.raises(NotFound):
            call()
    with pytest.raises(VersionExists):
        publish("1.1.0", name="m")
    assert publish(name="m").version == "1.2.0"
    assert registry.verify() == []


def test_what_an_alias_points_at_is_not_deleted(registry: Registry, publish: Publisher) -> None:
    publish(name="m")
    registry.promote("m@1.0.0", "canary")
    with pytest.raises(InUse, match="`canary` points at it") as caught:
        registry.delete("m@1.0.0")
    assert caught.value.exit_code == 1
    assert "ocad registry unset m canary" in caught.value.hint
    registry.unset("m", "canary")
    assert registry.delete("m@1.0.0").ref == "m@1.0.0"


def test_what_a_living_version_was_built_from_is_not_deleted(registry: Registry, publish: Publisher) -> None:
    parent = publish(name="member")
    child = publish(name="whole", parents=[Parent(ref=parent.ref, metadata_sha256=parent.metadata_sha256)])
    with pytest.raises(InUse, match=r"while `whole@1\.0\.0` is built from it"):
        registry.delete(parent.ref)
    registry.delete(child.ref)
    registry.delete(parent.ref)
    assert registry.list() == []


@pytest.mark.parametrize(
    ("reference", "error"),
    [("m", InvalidName), ("m@production", InvalidName), ("m@2.0.0", NotFound), ("other@1.0.0", NotFound)],
)
def test_only_a_version_that_is_there_can_be_deleted(
    registry: Registry, publish: Publisher, reference: str, error: type[RegistryError]
) -> None:
    publish(name="m")
    with pytest.raises(error):
        registry.delete(reference)
    registry.delete("m@1.0.0")
    with pytest.raises(NotFound):
        registry.delete("m@1.0.0")


def test_a_broken_version_can_be_deleted(registry: Registry, publish: Publisher) -> None:
    metadata = publish(name="m").path / "metadata.json"
    os.chmod(metadata, 0o644)  # noqa: PTH101
    metadata.write_bytes(b"{}")
    assert registry.list()[0].broken
    registry.delete("m@1.0.0")
    assert registry.list() == []


def test_the_history_says_what_readers_do_when_a_promoter_is_overtaken(registry: Registry, publish: Publisher) -> None:
    publish(name="m")
    publish(name="m")
    registry.promote("m@1.0.0", "production")
    number = registry.promote("m@1.1.0", "production").number
    tombstone = Path(registry.root) / "m" / "deleted" / "1.1.0.json"
    tombstone.parent.mkdir()
    tombstone.write_text("{}")  # a deleter that was killed after its tombstone
    assert registry.resolve("m@production").version == "1.0.0"
    registry.promote("m@1.0.0", "canary")
    registry.delete(publish(name="m").ref)  # the next deleter settles the row
    last = registry.history("m", "production")[-1]
    assert (last.number, last.kind, last.version) == (number + 1, "rollback", "1.0.0")
    assert registry.history("m", "canary")[-1].number == 1


def test_an_open_file_of_a_collected_version_stays_readable_and_others_are_clearly_gone(
    registry: Registry, publish: Publisher
) -> None:
    version = publish(name="m")
    other = registry.resolve("m@1.0.0")
    assert other.manifest.metrics
    with version.file("weights").open("rb") as stream:
        registry.delete("m@1.0.0")
        assert other.file("weights").is_file(), "within the grace it is still there for those who resolved it before"
        registry.collect_garbage(grace=0)
        assert len(stream.read()) == 256 * 256
    for read in (lambda: other.file("weights"), other.verify):
        with pytest.raises(NotFound, match=r"m@1\.0\.0"):
            read()


def race(tmp_path: Path, rounds: int) -> dict[str, int]:
    return counts_of("racers", tmp_path / "models", rounds, 20260102, timeout=1200)


def check_race(counts: dict[str, int], rounds: int) -> None:
    assert counts["rounds"] == rounds
    assert counts["deleted"] + counts["refused"] == rounds
    assert counts["deleted"] > 0, "the deleter never won"
    assert counts["refused"] > 0, "the promoter never won"
    assert counts["reads"] > rounds


def test_delete_against_promote(tmp_path: Path) -> None:
    check_race(race(tmp_path, 100), 100)


@pytest.mark.slow
def test_delete_against_promote_a_thousand_times(tmp_path: Path) -> None:
    counts = race(tmp_path, 1000)
    check_race(counts, 1000)
    assert counts["overtaken"] > 0, "no promotion was ever under way while its version was deleted"


def test_a_model_with_only_deleted_versions_keeps_their_numbers(registry: Registry, make_draft: DraftMaker) -> None:
    for number in range(3):
        assert registry.publish(make_draft("m"), []).version == f"1.{number}.0"
        registry.delete(f"m@1.{number}.0")
        registry.collect_garbage(grace=0)
    assert registry.publish(make_draft("m"), []).version == "1.3.0"
