"""Names, references, documents and ONNX bytes under hypothesis: round trips, and no error but our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocad_registry import Corrupt, InvalidName, RegistryError, documents, names
from ocad_registry.manifest import parse_manifest
from ocad_registry.names import Reference
from ocad_registry.onnx_external import BadOnnxError, external_locations

ROOT = Path(__file__).resolve().parents[2]
VALID = json.loads((ROOT / "tests/golden/registry/valid/registry/tcn-udp_echo/1.0.0/metadata.json").read_text())

Result = TypeVar("Result")

models = st.from_regex(names.MODEL, fullmatch=True).filter(names.is_model)
aliases = st.from_regex(names.ALIAS, fullmatch=True)
versions = st.from_regex(names.VERSION, fullmatch=True).filter(names.is_version)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))


def outcome(read: Callable[[], Result]) -> Result | Corrupt:
    """What `read` returns, or how it calls what it read corrupt; any other error is a failure."""
    try:
        return read()
    except Corrupt as error:
        return error


@given(models, versions)
def test_references_to_versions_round_trip(name: str, version: str) -> None:
    reference = names.parse_reference(f"{name}@{version}")
    assert reference == Reference(name, version=version) == names.parse_reference(f"{name}@v{version}")
    assert names.parse_reference(str(reference)) == reference


@given(models, aliases)
def test_references_to_aliases_round_trip(name: str, alias: str) -> None:
    reference = names.parse_reference(f"{name}@{alias}")
    assert reference == Reference(name, alias=alias)
    assert names.parse_reference(str(reference)) == reference
    assert names.parse_reference(name) == Reference(name)


@given(st.text())
@example("m@1.0.0\n")
@example("m\n")
@example("m@production\n")
@example("m@١.0.0")
def test_any_reference_parses_or_is_refused(text: str) -> None:
    try:
        reference = names.parse_reference(text)
    except InvalidName:
        return
    assert str(reference) == text or str(reference) == text.replace("@v", "@", 1)


@given(st.lists(versions, min_size=1, max_size=6))
def test_the_next_minor_is_higher_than_all(taken: list[str]) -> None:
    following = names.next_minor(taken)
    assert all(names.version_key(following) > names.version_key(version) for version in taken)


@given(versions, versions)
def test_version_order_is_total_and_knows_pre_releases(left: str, right: str) -> None:
    a, b = names.version_key(left), names.version_key(right)
    assert (a == b) == (left == right)
    if a[:3] == b[:3] and names.is_release(left) and not names.is_release(right):
        assert a > b


@given(st.text(min_size=1))
def test_slugs_are_model_names(text: str) -> None:
    try:
        assert names.is_model(names.slug(text))
    except InvalidName:
        slug = text.lower()[:128].lstrip("._-")
        assert slug in names.RESERVED_MODELS or not any(
            character in "abcdefghijklmnopqrstuvwxyz0123456789" for character in slug
        )


@given(st.binary() | values.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"a": 1' + b"0" * 5000 + b"}")
@example(b'{"a": -1e-999999999}')
def test_any_bytes_are_a_document_or_bad_json(data: bytes) -> None:
    document = outcome(lambda: documents.parse(data, "it"))
    if isinstance(document, Corrupt):
        assert document.code == "bad-json"
    else:
        assert documents.parse(documents.dump(document), "it") == document


@given(st.sampled_from(sorted(VALID)), values)
@example("metrics", {"a": 10**400})
@example("files", [{"path": "\ud800"}])
@example("created_at", "2026-01-01T12:00:00.000000Z\n")
def test_a_manifest_with_any_value_in_a_field_is_read_or_refused(field: str, value: Any) -> None:
    manifest = outcome(lambda: parse_manifest(VALID | {field: value}, VALID["name"], VALID["version"]))
    if isinstance(manifest, Corrupt):
        assert manifest.code in ("bad-manifest", "misplaced", "bad-path", "newer-format")
    else:
        assert manifest.ref == "tcn-udp_echo@1.0.0"
        assert field != "created_at" or value == value.strip()


@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_damaged_onnx_bytes_never_surprise(tmp_path_factory: pytest.TempPathFactory, junk: bytes, place: int) -> None:
    graph = (ROOT / "tests/golden/registry/valid/registry/tcn-udp_echo/1.0.0/model.onnx").read_bytes()
    path = tmp_path_factory.getbasetemp() / "junk.onnx"
    for data in (junk, graph[: place % len(graph)] + junk + graph[place % len(graph) :]):
        path.write_bytes(data)
        try:
            assert all(isinstance(location, str) for location in external_locations(path))
        except BadOnnxError:
            continue


def test_errors_have_one_shape() -> None:
    def children(kind: type[RegistryError]) -> set[type[RegistryError]]:
        return {kind, *(leaf for child in kind.__subclasses__() for leaf in children(child))}

    for kind in children(RegistryError):
        assert kind.exit_code in (1, 2, 3)
        assert kind.code == kind.code.lower()
