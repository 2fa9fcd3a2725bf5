"""`ocad plugins new`: what it writes is clean, typed, tested and keeps the contract as it is; what it refuses."""

from __future__ import annotations

import json
import os
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ocad.errors import OcadError, UsageError
from ocad.scaffold import TASKS, write_plugin

from .conftest import Workshop

ROOT = Path(__file__).resolve().parents[2]
LONGEST = "zebra-" + "z" * 26


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "task", ["forecast", *(pytest.param(task, marks=pytest.mark.slow) for task in ("detect", "ctr"))]
)
def test_it_is_clean_typed_tested_and_keeps_the_contract_as_it_is(task: str, workshop: Workshop) -> None:
    answer = json.loads(workshop.must("ocad", "plugins", "new", "my-first", "--task", task, "--json"))
    package = workshop.folder / "ocad-my-first"
    assert (answer["folder"], answer["module"]) == (package.name, "ocad_my_first")
    assert {file.relative_to(package).as_posix() for file in package.rglob("*") if file.is_file()} == {*answer["files"]}
    workshop.must("ruff", "format", "--no-cache", "--check", ".", at=package)
    workshop.must("ruff", "check", "--no-cache", ".", at=package)
    workshop.must("mypy", at=package)
    workshop.install(package)
    assert " passed" in workshop.must("pytest", "-p", "no:cacheprovider", at=package)
    findings = json.loads(workshop.must("ocad", "plugins", "check", "my-first", "--json"))
    assert {finding["verdict"] for finding in findings} == {"passed", "skipped"}
    assert sum(finding["verdict"] == "passed" for finding in findings) >= 13
    shown = json.loads(workshop.must("ocad", "plugins", "show", "my-first", "--json"))
    assert (shown["package"], shown["task"]) == ("ocad-my-first 0.1.0", task)


@pytest.mark.parametrize("name", ["a", LONGEST])
@pytest.mark.parametrize("task", TASKS)
def test_it_is_clean_under_the_shortest_and_the_longest_name(task: str, name: str, workshop: Workshop) -> None:
    package = write_plugin(name, task, workshop.folder / "package").folder
    workshop.must("ruff", "format", "--no-cache", "--check", ".", at=package)
    workshop.must("ruff", "check", "--no-cache", ".", at=package)
    assert not [file for file in package.rglob("*") if file.is_file() and "${" in file.read_text(encoding="utf-8")]


def test_it_is_judged_by_the_rules_of_the_project(tmp_path: Path) -> None:
    def rules(folder: Path) -> dict[str, Any]:
        tools = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
        lint = tools["ruff"]["lint"]
        return {
            **{key: tools["ruff"][key] for key in ("line-length", "target-version")},
            **{key: lint[key] for key in ("select", "ignore")},
            "tests": lint["per-file-ignores"]["tests/**"],
            "strict": tools["mypy"]["strict"],
        }

    assert rules(write_plugin("judged", "forecast", tmp_path / "judged").folder) == rules(ROOT)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        *(
            (name, f"`{name}` is no plugin name", "use a-z, 0-9")
            for name in ("", "Tcn", "9a", "a-", "a--b", "a b", "é")
        ),
        ("a" * 33, f"`{'a' * 33}` is no plugin name", "at most 32"),
        ("tcn", "a plugin `tcn` is installed already, by `ocad ", "choose another name"),
        ("registry", "a module `ocad_registry` is there already", "choose another name"),
    ],
)
def test_a_bad_or_taken_name_writes_nothing(name: str, message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_plugin(name, "forecast", tmp_path / "new")
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(workshop: Workshop) -> None:
    (workshop.folder / "ocad-mine").mkdir()
    (workshop.folder / "dangling").symlink_to("nowhere")
    for options, folder in (((), "ocad-mine"), (("--folder", "dangling"), "dangling")):
        refused = workshop.run("ocad", "plugins", "new", "mine", *options)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == f"error: `{folder}` exists already: name another folder with `--folder`\n"
    assert list((workshop.folder / "ocad-mine").iterdir()) == []
    assert {path.name for path in workshop.folder.iterdir()} == {"ocad-mine", "dangling"}


def test_where_nothing_can_be_written_nothing_half_written_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OcadError, match=r"cannot write `.*` \(no such file or directory\)"):
        write_plugin("mine", "forecast", tmp_path / "nowhere" / "mine")

    def full(self: Path, *_arguments: object, **_options: object) -> int:
        raise OSError(28, os.strerror(28))

    write = Path.write_text
    monkeypatch.setattr(
        Path, "write_text", lambda self, *a, **k: (full if self.name == "model.py" else write)(self, *a, **k)
    )
    with pytest.raises(OcadError, match=r"cannot write `.*` \(no space left on device\)"):
        write_plugin("mine", "forecast", tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_task_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no template for the task `index`: known: `forecast`, `detect`, `ctr`"):
        write_plugin("mine", "index", tmp_path / "mine")


@pytest.mark.slow
def test_the_wheel_of_the_project_brings_the_templates(workshop: Workshop) -> None:
    workshop.must("hatchling", "build", "-t", "wheel", "-d", workshop.site, at=ROOT)
    (wheel,) = workshop.site.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("ocad/scaffold/")}
    here = {
        path.relative_to(ROOT / "core").as_posix()
        for path in (ROOT / "core/ocad/scaffold").rglob("*.*")
        if path.is_file()
    }
    assert packed == {name for name in here if "__pycache__" not in name}
    assert len(packed) > 15
