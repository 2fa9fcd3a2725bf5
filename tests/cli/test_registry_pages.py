"""`ocad registry list` and `query` in parts: what a person is shown, and what a program gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.registry.writers import draft

from ocad_registry import DataReference, Registry

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


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of four versions of `m`, the last one without `auc`, and the pattern's own `skill`."""
    folder = tmp_path_factory.mktemp("measured") / "models"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for metrics in ({"auc": 0.7, "val.auc": 0.6}, {"auc": 0.9}, {"auc": 0.8}, {}):
            shown = draft().model_copy(update={"metrics": {"skill": 1.0, **metrics}, "params": {"seed": 7}})
            Registry(folder).publish(shown, [])
    return folder


@pytest.mark.parametrize(
    ("arguments", "headings", "first", "order"),
    [
        (
            ["list", "--sort", "metrics.auc", "--columns", "version,metrics.auc"],
            ["version", "metrics.auc"],
            "0.9",
            "1203",
        ),
        (["list", "--sort", "auc", "--lowest", "--columns", "version, auc"], ["version", "auc"], "0.7", "0213"),
        (["query", "metrics.auc > 0.75", "--columns", "version,skill"], ["version", "skill"], "1", "21"),
        (["list", "--sort", "version", "--columns", "version,val.auc"], ["version", "val.auc"], "-", "3210"),
    ],
)
def test_the_columns_that_are_asked_for(
    measured: Path, arguments: list[str], headings: list[str], first: str, order: str
) -> None:
    lines = [line.split() for line in run(measured, *arguments).stdout.splitlines()]
    assert lines[0] == headings
    assert lines[1][1] == first
    assert [line[0] for line in lines[1:]] == [f"m@1.{number}.0" for number in order]
    answer = json.loads(run(measured, *arguments, "--json").stdout)
    assert [entry["ref"] for entry in answer] == [line[0] for line in lines[1:]]
    assert set(answer[0]) == {"name", "version", "ref", "plugin", "task", "metric"} | {
        "created_at",
        "aliases",
        "metrics",
        "passed",
    }


def test_a_query_shows_the_metrics_that_it_names(measured: Path) -> None:
    lines = run(measured, "query", "metrics.auc >= 0.8 and metrics.skill = 1").stdout.splitlines()
    assert lines[0].split()[-2:] == ["metrics.auc", "metrics.skill"]
    assert lines[1].split()[-2:] == ["0.8", "1"]
    assert "params" not in run(measured, "query", "params.seed = 7").stdout, "a list knows no parameters to show"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "metrics.auk > 0.5"], "no version has the metric `auk`: did you mean `auc`?"),
        (["query", "metrics.auc > 0 or not metrics.lof < 1"], "no version has the metric `lof`"),
        (["query", 'metrics["val.auk"] > 0'], "no version has the metric `val.auk`: did you mean `val.auc`?"),
        (["query", "params.sed = 7"], "no version has the parameter `sed`"),
        (["list", "--sort", "metrics.auk"], "no version has the metric `auk`: did you mean `auc`?"),
        (["list", "--columns", "version,pasted"], "no version has the metric `pasted`"),
    ],
)
def test_a_name_that_no_version_has_is_told(measured: Path, arguments: list[str], message: str) -> None:
    done = run(measured, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    told = json.loads(run(measured, *arguments, "--json").stdout)["error"]["message"]
    assert message.startswith(told)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["query", "metrics.auc > 0.95"], 0),
        (["query", "metrics.auc > 0.95", "--exit-code"], 3),
        (["query", "metrics.auc > 0.85", "--exit-code"], 0),
        (["list", "other", "--exit-code"], 3),
        (["list", "--offset", "9", "--exit-code"], 3),
    ],
)
def test_an_empty_answer_has_an_exit_code_where_asked(measured: Path, arguments: list[str], code: int) -> None:
    done = run(measured, *arguments, "--json")
    assert (done.returncode, json.loads(done.stdout) == []) == (code, arguments[-1] != "--exit-code" or code == 3)


@pytest.mark.parametrize(
    "arguments", [["list"], ["query", "passed = true"], ["show", "m"], ["verify"], ["history", "m", "a"], ["gc"]]
)
def test_a_registry_that_does_not_exist_is_no_empty_one(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path / "nowhere", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no registry `{tmp_path / 'nowhere'}`" in done.stderr


def test_show_is_a_page_for_a_person_and_whole_for_a_program(measured: Path) -> None:
    document = json.loads(run(measured, "show", "m@1.1.0", "--json").stdout)
    assert {"metrics", "params", "environment", "aliases", "path"} <= set(document)
    page = run(measured, "show", "m@1.1.0").stdout
    assert page.startswith("m@1.1.0  passed")
    assert len(page.splitlines()) < 40
    for part in ("tcn", "skill", "0.9", str(measured)):
        assert part in page


def test_diff_says_when_metrics_come_from_different_rows(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    same = DataReference(name="log", fingerprint="a" * 64, rows=100, splits={"test": 10})
    for rows, fingerprint, auc in ((100, "a", 0.7), (100, "a", 0.8), (100, "b", 0.8), (120, "c", 0.9)):
        data = same.model_copy(update={"rows": rows, "fingerprint": fingerprint * 64})
        registry.publish(draft().model_copy(update={"metrics": {"skill": 1.0, "auc": auc}, "data": data}), [])
    for second, expected, told in ((1, True, ""), (2, None, "may come from"), (3, False, "metrics come from")):
        done = run(tmp_path / "models", "diff", "m@1.0.0", f"m@1.{second}.0")
        assert told in done.stderr
        assert bool(done.stderr) is bool(told)
        changes = json.loads(run(tmp_path / "models", "diff", "m@1.0.0", f"m@1.{second}.0", "--json").stdout)
        assert [one["same_rows"] for one in changes if one["section"] == "metrics"] == [expected]
