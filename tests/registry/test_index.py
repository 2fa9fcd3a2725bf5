"""The query index: its answers are those of a reader without memory, whatever happened to the registry meanwhile."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ocad_registry import Draft, Entry, GateResult, Invalid, PluginReference, Registry, RegistryError, coherence, survey
from ocad_registry.digests import digest, digest_line
from ocad_registry.storage import Storage
from ocad_registry.versions import Metadata, read_metadata

from .conftest import Publisher
from .reading import chosen, entries

MODELS = ("a", "b")
VERSIONS = ("1.0.0", "1.1.0", "2.0.0-rc.1", "1.2.0", "2.0.0")
models, versions = st.sampled_from(MODELS), st.sampled_from(VERSIONS)


@pytest.fixture(scope="module", autouse=True)
def no_disk() -> Iterator[None]:
    """Nothing here survives a power cut, nor does it have to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def draft(name: str, skill: float) -> Draft:
    gate = GateResult(name="skill", metric="skill", op=">", threshold=0, observed=skill, passed=skill > 0)
    plugin = PluginReference(name="tcn", version="0.1.0", package="ocad")
    return Draft(name=name, plugin=plugin, task="forecast", metrics={"skill": skill}, params={"k": skill}, gates=[gate])


def line(entry: Entry) -> dict[str, Any]:
    shown = entry.to_json()
    return shown if entry.broken is None else {**shown, "broken": entry.broken.partition(":")[0]}


class Changing(RuleBasedStateMachine):
    """A registry that is written to, deleted from and damaged, and read by a process that goes on and by new ones."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="index-"))
        self.root = self.folder / "models"
        self.cache = os.environ["OCAD_CACHE"]
        os.environ["OCAD_CACHE"] = str(self.folder / "cache")
        self.reader = Registry(self.root)
        self.writer = Registry(self.root)
        self.moment = 10**18

    def folder_changed(self, name: str) -> None:
        """Its time differs from all before, as it does on any file system after the while that `settled` makes readers wait."""
        self.moment += 10**9
        with suppress(FileNotFoundError):
            os.utime(self.root / name, ns=(self.moment, self.moment))

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            os.environ["OCAD_CACHE"] = self.cache
            shutil.rmtree(self.folder)

    @rule(name=models, version=st.none() | versions, skill=st.sampled_from([-1.0, 0.5, 2.0]))
    def publish(self, name: str, version: str | None, skill: float) -> None:
        with suppress(RegistryError):
            self.writer.publish(draft(name, skill), [], version)
        self.folder_changed(name)

    @rule(name=models, version=versions, alias=st.sampled_from(["production", "canary"]))
    def promote(self, name: str, version: str, alias: str) -> None:
        with suppress(RegistryError):
            self.writer.promote(f"{name}@{version}", alias, force=True, reason="a test")

    @rule(name=models, alias=st.sampled_from(["production", "canary"]))
    def rollback(self, name: str, alias: str) -> None:
        with suppress(RegistryError):
            self.writer.rollback(name, alias)

    @rule(name=models, version=versions, remove=st.booleans())
    def delete(self, name: str, version: str, remove: bool) -> None:
        with suppress(RegistryError):
            self.writer.delete(f"{name}@{version}")
            if remove:
                self.writer.collect_garbage(grace=0)
        self.folder_changed(name)

    @rule(name=models, version=versions, file=st.sampled_from(["metadata.json", "metadata.sha256"]))
    def damage(self, name: str, version: str, file: str) -> None:
        place = self.root / name / version / file
        if place.is_file():
            place.chmod(0o644)
            place.write_bytes(place.read_bytes()[:-3] + b"}\n\n")

    @rule(name=models, version=versions)
    def repair(self, name: str, version: str) -> None:
        """Lets the digest be that of what is there."""
        place = self.root / name / version / "metadata.json"
        if place.is_file():
            place.with_suffix(".sha256").unlink(missing_ok=True)
            place.with_suffix(".sha256").write_bytes(digest_line(digest(place.read_bytes())))

    @rule(name=models, version=versions, file=st.sampled_from(["metadata.json", "metadata.sha256"]))
    def lose(self, name: str, version: str, file: str) -> None:
        (self.root / name / version / file).unlink(missing_ok=True)

    @rule(name=models, version=versions, skill=st.sampled_from([-2.0, 3.0]))
    def make_again(self, name: str, version: str, skill: float) -> None:
        """What no writer does: the same number, given to something else."""
        if (self.root / name / version).is_dir():
            shutil.rmtree(self.root / name / version)
            with suppress(RegistryError):
                self.writer.publish(draft(name, skill), [], version)
            self.folder_changed(name)

    @rule(name=models)
    def remove_model(self, name: str) -> None:
        shutil.rmtree(self.root / name, ignore_errors=True)

    @rule()
    def remove_index(self) -> None:
        shutil.rmtree(self.folder / "cache", ignore_errors=True)

    @invariant()
    def answers_are_those_of_reading_anew(self) -> None:
        if not hasattr(self, "root"):
            return
        expected = entries(self.root)
        refs = [entry["ref"] for entry in expected]
        for registry in (self.reader, Registry(self.root)):
            assert [line(entry) for entry in registry.list()] == expected
            page = registry.page(limit=2, offset=1)
            assert ([entry.ref for entry in page.entries], page.total) == (refs[1:3], len(refs))
            for name in MODELS:
                assert [entry.ref for entry in registry.list(name)] == [ref for ref in refs if ref[0] == name]
        for field in ("metrics.skill", "params.k"):
            assert [entry.ref for entry in self.reader.query(f"{field} > 0")] == chosen(self.root, "skill", 0)
        pointed = [entry["ref"] for entry in expected if entry["aliases"] and "broken" not in entry]
        assert [entry.ref for entry in self.reader.query("aliases like '%'")] == pointed


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of folders tell every change, however young they are."""
    monkeypatch.setattr(survey, "SETTLED_NS", -(10**18))


def test_answers_are_those_of_reading_anew() -> None:
    run_state_machine_as_test(Changing, settings=settings(max_examples=20, stateful_step_count=15))


def test_answers_are_those_of_reading_anew_once_folders_have_settled(settled: None) -> None:
    run_state_machine_as_test(Changing, settings=settings(max_examples=20, stateful_step_count=15))


@pytest.mark.parametrize("file", ["metadata.json", "metadata.sha256"])
def test_what_comes_later_into_a_version_is_found(
    publish: Publisher, registry: Registry, settled: None, file: str
) -> None:
    """As when a version is copied by other means, file after file: the model's folder does not change then."""
    version = publish()
    content = (version.path / file).read_bytes()
    (version.path / file).unlink()
    broken = [entry.broken for entry in registry.list()]
    assert [str(cause).partition(":")[0] for cause in broken] == (
        [] if file == "metadata.json" else ["metadata-digest"]
    )
    assert registry.query("passed = true") == []
    (version.path / file).write_bytes(content)
    assert [entry.ref for entry in registry.query("passed = true")] == [version.ref]
    assert [entry.broken for entry in registry.list()] == [None]


def test_metadata_is_read_once(publish: Publisher, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(storage: Storage, name: str, version: str) -> Metadata:
        read.append(version)
        return read_metadata(storage, name, version)

    monkeypatch.setattr(coherence, "read_metadata", counted)
    for _ in range(3):
        publish()
    assert len(registry.list()) == 3
    assert len(Registry(registry.root).query("passed = true")) == 3
    assert sorted(read) == ["1.0.0", "1.1.0", "1.2.0"]
    publish()
    assert len(Registry(registry.root).list(limit=1)) == 1
    assert read[3:] == ["1.3.0"]


def test_pages(publish: Publisher, registry: Registry) -> None:
    refs = [publish().ref for _ in range(5)][::-1]
    pages = [registry.page(limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [[entry.ref for entry in page.entries] for page in pages] == [refs[:2], refs[2:4], refs[4:], []]
    assert {page.total for page in pages} == {5}
    assert [entry.ref for entry in registry.query("version > '1.0.0'", limit=2, offset=1)] == refs[1:3]
    assert registry.list(limit=0) == []
    for wrong in ({"limit": -1}, {"offset": -1}):
        with pytest.raises(Invalid, match="count from 0"):
            registry.list(**wrong)  # type: ignore[arg-type]


def test_a_description_is_what_is_stored(publish: Publisher, registry: Registry) -> None:
    version = publish(params={"epochs": 30, "rate": 1.0, "nested": {"a": None}})
    registry.promote(version.ref, "production")
    expected = version.manifest.model_dump() | {"aliases": ["production"], "path": str(version.path)}
    for _ in range(2):
        assert registry.describe("tcn-udp_echo") == expected
    registry.list()
    assert Registry(registry.root).describe("tcn-udp_echo@production") == expected


def test_a_description_of_a_version_that_is_not_what_the_alias_was_given(
    publish: Publisher, registry: Registry
) -> None:
    version = publish()
    registry.promote(version.ref, "production")
    shutil.rmtree(version.path)
    publish(version="1.0.0", params={"other": True})
    registry.list()
    with pytest.raises(RegistryError) as caught:
        registry.describe("tcn-udp_echo")
    assert caught.value.code == "alias-digest"


def test_completions(publish: Publisher, registry: Registry) -> None:
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        publish(version=version)
    publish(name="other")
    registry.promote("tcn-udp_echo@1.9.0", "production")
    assert registry.completions("") == ["other", "tcn-udp_echo"]
    assert registry.completions("tcn") == ["tcn-udp_echo"]
    assert registry.completions("tcn-udp_echo@") == [
        f"tcn-udp_echo@{target}" for target in ("production", "1.10.0", "1.9.0", "1.0.0")
    ]
    assert registry.completions("tcn-udp_echo@1.1") == ["tcn-udp_echo@1.10.0"]
    assert registry.completions("nobody@") == registry.completions("Ä@") == []


def test_reading_writes_nothing_into_the_registry(publish: Publisher, registry: Registry) -> None:
    publish()

    def state() -> dict[str, int]:
        return {str(path): path.lstat().st_ctime_ns for path in [Path(registry.root), *Path(registry.root).rglob("*")]}

    before = state()
    reader = Registry(registry.root)
    assert reader.list()
    assert reader.query("passed = true")
    assert reader.describe("tcn-udp_echo")
    assert state() == before


def test_asking_for_more_fields_than_are_kept(publish: Publisher, registry: Registry) -> None:
    publish(params={f"k{number}": number for number in range(80)})
    for start in (0, 20, 40, 0):
        wanted = " and ".join(f"params.k{number} = {number}" for number in range(start, start + 20))
        assert len(registry.query(wanted)) == 1
    assert len(registry.query(" and ".join(f"params.k{number} = {number}" for number in range(80)))) == 1
    publish(params={"k3": 3})
    assert len(registry.query("params.k3 = 3")) == 2
