"""A registry that a Unix group shares: two users of it write, a third one reads, and `doctor` mends what is not so."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.needs import require

from ocad_registry import Invalid, Registry

from .conftest import Publisher
from .users import act, answered

ANN, BOB, EVE, TEAM = 61_001, 61_002, 61_003, 61_000

WRITE = "work = write"
READ = """
def work(root):
    store = Registry(root)
    assert store.verify() == [], store.verify()
    return store.resolve("m@production").file("weights").read_text(), len(store.list())
"""
MEND = """
def work(root):
    return [(one.path, one.fixed) for one in Registry(root).check_modes(fix=True)]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can reach; pytest's own is the super user's alone."""
    require("another user")
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    (made / "weights.bin").write_text("any bytes")
    yield made
    shutil.rmtree(made)


def shared(folder: Path, mode: int = 0o2775) -> Path:
    root = folder / "models"
    root.mkdir()
    os.chown(root, ANN, TEAM)
    root.chmod(mode)
    return root


@pytest.mark.parametrize("umask", ["002", "022", "077"])
def test_two_users_of_a_group_write_and_a_third_reads(folder: Path, umask: str) -> None:
    root, weights = shared(folder), folder / "weights.bin"
    assert answered(act(ANN, [TEAM], WRITE, root, weights, umask)) == "m@1.1.0"
    assert answered(act(BOB, [TEAM], WRITE, root, weights, umask)) == "m@1.3.0"
    assert answered(act(ANN, [TEAM], WRITE, root, weights, umask)) == "m@1.5.0"
    assert answered(act(EVE, [], READ, root)) == "('any bytes', 3)"
    refused = act(EVE, [], WRITE, root, weights, umask)
    assert "no-access" in refused.stderr or "is refused" in refused.stderr
    folders = [path for path in root.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o2775}
    assert {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_file()} == {0o444}
    assert {path.stat().st_gid for path in root.rglob("*")} == {TEAM}
    assert Registry(root).check_modes() == []


def test_registry_json_asks_for_the_same(folder: Path) -> None:
    root, weights = shared(folder), folder / "weights.bin"
    (root / "registry.json").write_text('{"format": 1, "shared": "group"}')
    root.chmod(0o775)  # no setgid: a copy lost it
    assert [(one.path, one.fixed) for one in Registry(root).check_modes(fix=True)] == [(".", True)]
    assert stat.S_IMODE(root.stat().st_mode) == 0o2775
    answered(act(ANN, [TEAM], WRITE, root, weights, "022"))
    assert answered(act(BOB, [TEAM], WRITE, root, weights, "022")) == "m@1.3.0"


def test_doctor_opens_what_one_user_had_alone(folder: Path) -> None:
    root, weights = shared(folder, 0o755), folder / "weights.bin"
    answered(act(ANN, [TEAM], WRITE, root, weights, "022"))
    assert act(BOB, [TEAM], WRITE, root, weights, "022").returncode != 0
    root.chmod(0o2775)
    (root / "m" / "1.1.0" / "weights.bin").chmod(0)
    wrong = Registry(root).check_modes()
    assert {one.fixed for one in wrong} == {False}
    assert "m/1.1.0/weights.bin" in {one.path for one in wrong}
    assert all(one.fixed for one in Registry(root).check_modes(fix=True))
    assert Registry(root).check_modes() == []
    assert answered(act(BOB, [TEAM], WRITE, root, weights, "022")) == "m@1.3.0"
    assert answered(act(EVE, [], READ, root)) == "('any bytes', 2)"


def test_doctor_says_what_only_another_user_can_mend(folder: Path) -> None:
    root, weights = shared(folder), folder / "weights.bin"
    answered(act(ANN, [TEAM], WRITE, root, weights, "022"))
    (root / "m" / "aliases").chmod(0o700)
    assert answered(act(BOB, [TEAM], MEND, root)) == "[('m/aliases', False)]"
    assert answered(act(ANN, [TEAM], MEND, root)) == "[('m/aliases', True)]"


def test_a_root_made_here_takes_the_group_from_above(folder: Path) -> None:
    above, weights = shared(folder), folder / "weights.bin"
    answered(act(ANN, [TEAM], WRITE, above / "new", weights, "002"))
    assert stat.S_IMODE((above / "new").stat().st_mode) == 0o2775
    assert answered(act(BOB, [TEAM], WRITE, above / "new", weights, "002")) == "m@1.3.0"
    answered(act(ANN, [TEAM], WRITE, above / "own", weights, "022"))
    assert stat.S_IMODE((above / "own").stat().st_mode) == 0o2755
    assert act(BOB, [TEAM], WRITE, above / "own", weights, "022").returncode != 0


def test_a_registry_of_one_user_stays_it(registry: Registry, publish: Publisher) -> None:
    publish()
    assert registry.check_modes() == []
    place = Path(registry.root) / "tcn-udp_echo"
    place.chmod(0o700)
    found = registry.check_modes()
    assert [(one.path, one.found, one.wanted) for one in found] == [("tcn-udp_echo", "0700", "0755")]
    assert [one.fixed for one in registry.check_modes(fix=True)] == [True]


def test_an_object_store_has_no_modes() -> None:
    with pytest.raises(Invalid, match="is an object store, which has no modes"):
        Registry("memory://bucket/models").check_modes()
