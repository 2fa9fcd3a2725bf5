"""An alias of a model takes that of its children along: further graphs, `NAME-KEY`, built from a version of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad_registry import Corrupt, NotFound, Parent, Refused, Registry, Version

from .conftest import DraftMaker, Publisher

FAMILY = ("m", "m-raw", "m-int8")


@pytest.fixture
def family(publish: Publisher) -> list[Version]:
    """`m@1.0.0` with two children, `m@1.1.0` with one, `m@1.2.0` without."""
    made = []
    for children in (("raw", "int8"), ("raw",), ()):
        parent = publish(name="m")
        made.append(parent)
        for key in children:
            publish(parent.version, name=f"m-{key}", parents=[of(parent)])
    return made


def of(parent: Version) -> Parent:
    return Parent(ref=parent.ref, metadata_sha256=parent.metadata_sha256)


def pointing(registry: Registry, alias: str = "production") -> list[str | None]:
    return [registry.aliases(name).get(alias) for name in FAMILY]


def test_promote_rollback_and_unset_take_the_children_along(registry: Registry, family: list[Version]) -> None:
    assert [child.ref for child in registry.children("m@1.0.0")] == ["m-int8@1.0.0", "m-raw@1.0.0"]
    registry.promote("m@1.0.0", "production")
    assert pointing(registry) == ["1.0.0", "1.0.0", "1.0.0"]
    registry.promote("m@1.1.0", "production")
    assert pointing(registry) == ["1.1.0", "1.1.0", None], "no `int8` of 1.1.0 must stand for one"
    registry.promote("m@1.2.0", "production")
    assert pointing(registry) == ["1.2.0", None, None]
    registry.rollback("m", "production", reason="worse at night")
    assert pointing(registry) == ["1.1.0", "1.1.0", None]
    registry.rollback("m", "production")
    assert pointing(registry) == ["1.0.0", "1.0.0", "1.0.0"]
    registry.unset("m", "production")
    assert pointing(registry) == [None, None, None]
    assert pointing(registry, "canary") == [None, None, None]
    kinds = [(entry.kind, entry.reason) for entry in registry.history("m-raw", "production")]
    assert ("rollback", "worse at night") in kinds
    assert kinds[0] == ("promote", "goes along with `m`")
    assert registry.verify() == []


@settings(max_examples=15, deadline=None)
@given(moves=st.lists(st.sampled_from(["1.0.0", "1.1.0", "1.2.0", "back", "unset"]), max_size=8))
def test_children_are_always_those_of_the_parent(tmp_path_factory: pytest.TempPathFactory, moves: list[str]) -> None:
    registry = Registry(tmp_path_factory.mktemp("moves") / "models")
    _fill(registry)
    for move in moves:
        try:
            if move == "back":
                registry.rollback("m", "production")
            elif move == "unset":
                registry.unset("m", "production")
            else:
                registry.promote(f"m@{move}", "production")
        except NotFound:
            continue
        parent, raw, int8 = pointing(registry)
        assert raw == (parent if parent in ("1.0.0", "1.1.0") else None)
        assert int8 == (parent if parent == "1.0.0" else None)


def _fill(registry: Registry) -> None:
    from ocad_registry import Draft, GateResult, PluginReference

    gate = GateResult(name="g", metric="m", op=">", threshold=0, observed=1, passed=True)
    plugin = PluginReference(name="p", version="1", package="p")
    for children in (("raw", "int8"), ("raw",), ()):
        values = {"plugin": plugin, "task": "ctr", "metrics": {"m": 1.0}, "gates": [gate]}
        parent = registry.publish(Draft(name="m", **values), [])
        for key in children:
            registry.publish(Draft(name=f"m-{key}", parents=[of(parent)], **values), [], parent.version)


def test_what_is_built_from_a_model_and_has_another_name_stays(
    registry: Registry, publish: Publisher, family: list[Version]
) -> None:
    publish("1.0.0", name="composite", parents=[of(family[0])])
    publish("1.0.0", name="m-other")
    registry.promote("composite@1.0.0", "production")
    registry.promote("m-other@1.0.0", "production")
    registry.promote("m@1.0.0", "production")
    registry.promote("m@1.2.0", "production")
    assert registry.aliases("composite") == registry.aliases("m-other") == {"production": "1.0.0"}


def test_a_child_of_another_number_is_found(registry: Registry, publish: Publisher) -> None:
    parent = publish("3.0.0", name="m")
    publish("1.0.0", name="m-raw", parents=[of(parent)])
    publish("1.5.0", name="m-raw", parents=[of(parent)])
    registry.promote("m@3.0.0", "production")
    assert registry.aliases("m-raw") == {"production": "1.5.0"}


def test_a_child_that_did_not_pass_or_is_damaged_holds_all_back(
    registry: Registry, publish: Publisher, make_draft: DraftMaker
) -> None:
    parent = publish(name="m")
    child = publish("1.0.0", observed=-1.0, name="m-raw", parents=[of(parent)])
    with pytest.raises(Refused, match=r"`m-raw@1\.0\.0` did not pass"):
        registry.promote("m@1.0.0", "production")
    assert pointing(registry) == [None, None, None]
    registry.promote("m@1.0.0", "production", force=True, reason="the raw form is not used")
    assert pointing(registry) == ["1.0.0", "1.0.0", None]
    assert [registry.history(name, "production")[-1].forced for name in ("m", "m-raw")] == [False, True]
    weights = child.path / "weights.bin"
    weights.chmod(0o644)
    weights.write_bytes(b"x")
    with pytest.raises(Corrupt, match=r"`weights\.bin` of `m-raw@1\.0\.0`"):
        registry.promote("m@1.0.0", "canary", force=True, reason="again")
    assert pointing(registry, "canary") == [None, None, None]
