"""What the file system refuses or fails on: the smallest thing concerned is broken, everything else goes on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.needs import require

from ocad_registry import Corrupt, NotFound, Registry

from .conftest import Publisher
from .users import NOBODY, act, answered

Answer = dict[str, Any]

LOOK = """
import json

def ask(call):
    try:
        return call()
    except RegistryError as error:
        return [error.code, error.exit_code]

def work(root):
    store = Registry(root)
    return json.dumps({
        "list": ask(lambda: [[e.ref, e.broken and e.broken.partition(":")[0], e.aliases] for e in store.list()]),
        "first": ask(lambda: [e.ref for e in store.list(limit=1)]),
        "total": ask(lambda: store.page(limit=1).total),
        "last": ask(lambda: [e.ref for e in store.list(offset=store.page().total - 1)]),
        "query": ask(lambda: [e.ref for e in store.query("task = 'forecast'")]),
        "verify": ask(lambda: sorted([f.reference, f.kind] for f in store.verify() if f.severity == "error")),
        "resolve": ask(lambda: store.resolve("good").ref),
        "shut": ask(lambda: store.resolve("shut").ref),
    })
"""


def look(root: Path) -> Answer:
    """What an ordinary user sees: the super user is refused nothing."""
    require("another user")
    for parent in (root, *root.parents[:-1]):
        parent.chmod(parent.stat().st_mode | 0o055)
    answer: Answer = json.loads(answered(act(NOBODY, [], LOOK, root)))
    return answer


@pytest.fixture
def root(registry: Registry, publish: Publisher) -> Path:
    """`good@1.0.0` and `shut@1.0.0`, both in production, and `shut@1.1.0`."""
    for name, count in (("good", 1), ("shut", 2)):
        for _ in range(count):
            publish(name=name)
        registry.promote(f"{name}@1.0.0", "production")
    return Path(registry.root)


@pytest.mark.parametrize(
    ("place", "broken", "found", "resolved"),
    [
        ("shut", [["shut", "unreadable"]], [["shut", "unreadable"]], ["bad-alias-entry", 3]),
        ("shut/1.0.0", [["shut@1.0.0", "unreadable"]], [["shut@1.0.0", "unreadable"]], ["unreadable", 3]),
        ("shut/1.0.0/metadata.json", [["shut@1.0.0", "unreadable"]], [["shut@1.0.0", "unreadable"]], "shut@1.0.0"),
        ("shut/1.0.0/weights.bin", [], [["shut@1.0.0", "unreadable"]], "shut@1.0.0"),
        ("shut/1.0.0/metadata.sha256", [["shut@1.0.0", "metadata-digest"]], [["shut@1.0.0", "metadata-digest"]], "shut@1.0.0"),
        ("shut/deleted", [["shut", "unreadable"]], [["shut", "unreadable"]], ["unreadable", 3]),
        ("shut/aliases", [], [["shut", "unreadable"]], ["bad-alias-entry", 3]),
        ("shut/aliases/production", [], [["shut@production", "bad-alias-entry"]], ["bad-alias-entry", 3]),
        ("shut/aliases/production/000001.json", [], [["shut@production", "bad-alias-entry"]], ["bad-alias-entry", 3]),
    ],
)  # fmt: skip
def test_one_shut_place_breaks_only_itself(root: Path, place: str, broken: Any, found: Any, resolved: Any) -> None:
    (root / "shut" / "deleted").mkdir()
    (root / place).chmod(0)
    answer = look(root)
    (root / place).chmod(0o755)
    assert [entry[:2] for entry in answer["list"] if entry[1]] == broken
    assert answer["verify"] == found
    assert ["good@1.0.0", None, ["production"]] in answer["list"]
    assert (answer["resolve"], answer["shut"]) == ("good@1.0.0", resolved)
    assert "good@1.0.0" in answer["query"]
    assert answer["total"] == len(answer["list"])
    assert [answer["first"][0], answer["last"][-1]] == [answer["list"][0][0], answer["list"][-1][0]]
    assert [entry[1] for entry in look(root)["list"]] == [None, None, None], "and nothing wrong is remembered"


@pytest.mark.parametrize("call", ["open", "scandir", "lstat"])
def test_a_failing_disk_breaks_only_what_lies_there(
    root: Path, registry: Registry, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for `EIO`, also in a registry that remembers what it read before."""
    sound: Callable[..., Any] = getattr(os, call)

    def fail(place: Any, *arguments: Any, **options: Any) -> Any:
        if "/shut" in str(place):
            raise OSError(errno.EIO, "Input/output error", str(place))
        return sound(place, *arguments, **options)

    assert len(registry.list()) == 3
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        entries, findings = registry.list(), registry.verify()
        assert [entry.ref for entry in entries if entry.broken is None][-1:] == ["good@1.0.0"] or call == "open"
        assert "good@1.0.0" in [entry.ref for entry in entries]
        assert {finding.reference.partition("@")[0].partition("/")[0] for finding in findings} == {"shut"}
        assert registry.promote("good@1.0.0", "canary").number == 1
    assert [entry.broken for entry in registry.list()] == [None, None, None]


def test_garbage_is_collected_around_a_shut_model(root: Path, registry: Registry, publish: Publisher) -> None:
    publish(name="good")
    registry.delete("good@1.1.0")
    (root / "shut" / "deleted").symlink_to("/nonexistent")
    assert [garbage.removed for garbage in registry.collect_garbage(grace=0)] == [True]


def test_a_registry_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "typing-eror")
    for ask in (registry.require, registry.check_modes):
        with pytest.raises(NotFound, match=r"there is no registry `.*/typing-eror`: correct `--registry`") as error:
            ask()
        assert error.value.exit_code == 1
    assert not (tmp_path / "typing-eror").exists()
    (tmp_path / "empty").mkdir()
    Registry(tmp_path / "empty").require()


def test_an_entry_that_leaps_hides_nothing(root: Path, registry: Registry) -> None:
    folder = root / "shut" / "aliases" / "production"
    (folder / "999999999999999.json").write_bytes((folder / "000001.json").read_bytes())
    moved = registry.promote("shut@1.1.0", "production")
    assert (moved.number, registry.resolve("shut").version) == (2, "1.1.0")
    assert registry.rollback("shut", "production").number == 3
    assert [(finding.kind, finding.reference) for finding in registry.verify()] == [
        ("stray", "shut/aliases/production/999999999999999.json")
    ]


def test_the_highest_number_of_a_version_ends_nothing(registry: Registry, publish: Publisher) -> None:
    publish("1.999999999999999.0")
    assert publish().version == "2.0.0"
    publish("999999999999999.999999999999999.0")
    with pytest.raises(Exception, match="is no version") as error:
        publish()
    assert getattr(error.value, "code", None) == "invalid-name"
    assert registry.verify() == []


def test_corrupt_is_what_a_reader_sees(root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: Any, *_arguments: Any, **_options: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", place)

    version = registry.resolve("good@1.0.0")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(Corrupt, match=r"`good/1.0.0/metadata.json` cannot be read \(permission denied\)") as error:
            _ = version.manifest
    assert error.value.code == "unreadable"
