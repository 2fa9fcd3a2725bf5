"""The Python reader against the golden registries of FORMAT.md §11, which the Rust reader passes too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocad_registry import Registry, RegistryError, Version
from ocad_registry.marks import Mark, Marks
from ocad_registry.signing import Keys

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "golden" / "registry"
CASES = sorted(path.name for path in VECTORS.iterdir())
NAMED = {
    *("valid", "missing-file", "payload-flipped", "metadata-flipped", "path-escape", "symlink", "external-data"),
    *("newer-format", "unknown-field", "nan-metric", "broken-json", "alias-gap", "alias-damaged", "tombstone"),
    *("huge-json", "illegal-names", "object-store", "object-store-damaged"),
}


class Golden:
    """A case on a copy of its registry, set up as it says."""

    def __init__(self, name: str, folder: Path) -> None:
        self.expected: dict[str, Any] = json.loads((VECTORS / name / "expected.json").read_text(encoding="utf-8"))
        self.keys = VECTORS / name / "keys.pem"
        self.root = folder / "registry"
        shutil.copytree(VECTORS / name / "registry", self.root)
        for step in self.expected["setup"]:
            self._set_up(step)
        self.registry = Registry(self.root)

    def _set_up(self, step: dict[str, Any]) -> None:
        if "symlink" in step:
            (self.root / step["symlink"]).symlink_to(step["target"])
            return
        place = self.root / (step.get("generate") or step["append"])
        with place.open("ab" if "append" in step else "wb") as stream:
            stream.write(step["repeat"].encode() * step["times"])


@pytest.fixture(params=CASES)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    return Golden(request.param, tmp_path)


def test_cases_are_complete() -> None:
    assert set(CASES) >= NAMED


def test_vectors_are_what_the_generator_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tests.golden.make_registry_vectors", str(tmp_path)], cwd=ROOT, check=True)
    assert contents(tmp_path) == contents(VECTORS)


def test_reader_agrees(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer of one case: resolution, list, reading, aliases, verification, queries."""
    registry, expected = golden.registry, golden.expected
    if expected["open"]:
        assert refusal(registry) == expected["open"]
        return
    assert {ref: resolved(registry, ref) for ref in expected["resolve"]} == expected["resolve"]
    assert [line(entry.to_json()) for entry in registry.list()] == expected["list"]
    assert {ref: verdict(registry, ref) for ref in expected["read"]} == expected["read"]
    assert {ref: pointed(registry, ref) for ref in expected["aliases"]} == expected["aliases"]
    findings = [finding.to_json() for finding in registry.verify()]
    found = sorted(({key: one[key] for key in ("reference", "severity", "kind")} for one in findings), key=json.dumps)
    assert found == sorted(expected["verify"], key=json.dumps)
    assert {text: answer(registry, text) for text in expected["queries"]} == expected["queries"]
    if signed := expected.get("signed"):
        keys = Keys.read(golden.keys)
        assert {ref: caught(lambda ref=ref: registry.check_signed(ref, keys)) for ref in signed} == signed  # type: ignore[misc]
    if led := expected.get("signed_aliases"):
        keys, cache = Keys.read(golden.keys), tmp_path / "cache"
        monkeypatch.setenv("OCAD_CACHE", str(cache))
        root = golden.registry.root
        marks = Marks(cache, root if "://" in root else os.path.realpath(root))
        for alias, entry in expected["seen"].items():
            marks.keep(alias.partition("@")[0], alias.partition("@")[2], Mark(**entry))
        trusting = Registry(root, keys=keys, signed_aliases=True)
        assert {reference: resolved(trusting, reference) for reference in led} == led
        assert {reference: resolved(trusting, reference) for reference in led} == led, "a second look"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(registry: Registry) -> str:
    for read in (registry.list, registry.models, registry.verify, lambda: registry.resolve("m@1.0.0")):
        with pytest.raises(RegistryError) as caught:
            read()
    return caught.value.code


def resolved(registry: Registry, reference: str) -> str | dict[str, str]:
    try:
        return registry.resolve(reference).version
    except RegistryError as error:
        return {"error": error.code}


def line(shown: dict[str, Any]) -> dict[str, Any]:
    if "broken" in shown:
        return {"ref": shown["ref"], "aliases": shown["aliases"], "broken": shown["broken"].partition(":")[0]}
    return {key: shown[key] for key in ("ref", "aliases", "passed")}


def verdict(registry: Registry, reference: str) -> str | None:
    """What reading the whole version says; a file by its role must not be more lenient."""
    whole = caught(lambda: registry.resolve(reference).verify())
    assert caught(lambda: read_roles(registry.resolve(reference))) == whole
    return whole


def caught(read: Callable[[], object]) -> str | None:
    try:
        read()
    except RegistryError as error:
        return error.code
    return None


def read_roles(version: Version) -> None:
    for role in {file.role for file in version.files}:
        version.file(role)


def pointed(registry: Registry, reference: str) -> str | dict[str, str]:
    try:
        return registry.resolve(reference).manifest.version
    except RegistryError as error:
        return {"error": error.code}


def answer(registry: Registry, text: str) -> list[str] | dict[str, str]:
    try:
        return [entry.ref for entry in registry.query(text)]
    except RegistryError as error:
        return {"error": error.code}
