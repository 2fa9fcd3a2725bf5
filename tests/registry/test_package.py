"""The package by itself: what importing it costs, its schema, and that it needs nothing of ocad."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ocad_registry import Registry
from ocad_registry.schema import metadata_schema

from .conftest import Publisher

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "golden" / "registry"
jsonschema = import_module("jsonschema")  # it has no types
SCHEMA = ROOT / "registry" / "schema" / "metadata.schema.json"


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_it_imports_neither_ocad_nor_anything_heavy(registry: Registry, publish: Publisher) -> None:
    registry.promote(publish().ref, "production")
    code = """
import sys
from ocad_registry import Registry
registry = Registry(sys.argv[1])
path = registry.resolve("tcn-udp_echo@production").path
light = {"pydantic", "ocad", "torch", "pandas", "numpy", "onnx", "fsspec"} & set(sys.modules)
assert not light, light
registry.resolve("tcn-udp_echo").file("weights")
heavy = {"ocad", "torch", "pandas", "numpy", "onnx"} & set(sys.modules)
assert not heavy, heavy
print(path)
"""
    assert run(code, registry.root) == str(registry.resolve("tcn-udp_echo@1.0.0").path)


def test_the_committed_schema_is_that_of_the_models() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == metadata_schema()


@pytest.mark.parametrize("case", ["valid", "unknown-field", "version-order", "path-escape", "payload-flipped"])
def test_the_schema_accepts_what_readers_accept(case: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    found = list((VECTORS / case / "registry").glob("*/*/metadata.json"))
    assert found
    for path in found:
        validator.validate(json.loads(path.read_text(encoding="utf-8")))


def test_the_schema_refuses_most_of_what_readers_refuse() -> None:
    """What it cannot say (a contradiction between fields, 1.0 for 1) is in FORMAT.md alone."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    found = list((VECTORS / "bad-manifest" / "registry").glob("m/*/metadata.json"))
    refused = [path for path in found if not validator.is_valid(json.loads(path.read_text(encoding="utf-8")))]
    assert len(refused) >= len(found) - 10


def test_public_names_are_documented_and_there() -> None:
    import ocad_registry

    guide = (ROOT / "docs" / "registry.md").read_text(encoding="utf-8")
    for name in ocad_registry.__all__:
        assert getattr(ocad_registry, name).__doc__, name
        assert f"`{name}`" in guide, name


def test_a_stored_manifest_keeps_unknown_fields() -> None:
    manifest = Registry(VECTORS / "unknown-field" / "registry").resolve("m@1.0.0").manifest
    assert manifest.model_dump()["x-new"]["deep"][:2] == [1, None]
    assert manifest.plugin.model_dump()["x-new"]
