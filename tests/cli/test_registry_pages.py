"""`ocad registry list` and `query` in parts: what a person is shown, and what a program gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.registry.writers import draft

from ocad_registry import Registry

COUNT = 53


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of 53 versions of `m`."""
    folder = tmp_path_factory.mktemp("pages") / "models"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for _ in range(COUNT):
            Registry(folder).publish(draft(), [])
    return folder


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ocad", "registry", *arguments, "--registry", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def shown(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split()[0] for line in done.stdout.splitlines()[1:]]


def newest(count: int, offset: int = 0) -> list[str]:
    return [f"m@1.{number}.0" for number in range(COUNT - 1 - offset, COUNT - 1 - offset - count, -1)]


def test_a_person_sees_the_newest_fifty_and_how_many_more_there_are(root: Path) -> None:
    done = run(root, "list")
    assert shown(done) == newest(50)
    assert done.stderr == "3 more of 53: see `--offset 50`, or all with `--all`\n"
    rest = run(root, "list", "m", "--offset", "50")
    assert (shown(rest), rest.stderr) == (newest(3, 50), "")
    everything = run(root, "query", "metrics.skill = 1", "--all")
    assert (shown(everything), everything.stderr) == (newest(COUNT), "")


def test_a_program_gets_everything_it_does_not_limit(root: Path) -> None:
    everything = run(root, "list", "--json")
    assert [entry["ref"] for entry in json.loads(everything.stdout)] == newest(COUNT)
    page = run(root, "query", "task = 'forecast'", "--json", "--limit", "2", "--offset", "1")
    assert [entry["ref"] for entry in json.loads(page.stdout)] == newest(2, 1)


def test_all_of_at_most_so_many_is_a_contradiction(root: Path) -> None:
    done = run(root, "list", "--all", "--limit", "3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "`--all` and `--limit` exclude each other" in done.stderr


@pytest.mark.parametrize("arguments", [["list"], ["query", "metrics.skill = 1"], ["show", "m@1.3.0"]])
def test_a_warm_index_spares_the_imports_that_cost_most(root: Path, arguments: list[str]) -> None:
    run(root, "list")
    heavy = "{'pydantic', 'rich', 'torch', 'fsspec'} & set(sys.modules)"
    code = f"import sys; from ocad.__main__ import run; assert run() == 0; assert not ({heavy}), {heavy}"
    command = [sys.executable, "-c", code, "registry", *arguments, "--registry", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "1.3.0" in done.stdout) == (0, True), done.stderr
