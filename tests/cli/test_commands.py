"""What the commands answer: the JSON shapes that other programs rely on, and the lines for a person."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ocad.contexts import RunContext, VersionDraft
from ocad.hookspecs import hookimpl
from ocad_registry import AliasEntry, Version

from .conftest import HELLO, CommandLine

ENTRY = {"name", "version", "ref", "plugin", "task", "metric", "created_at", "aliases", "metrics", "passed"}
MOVE = {"number", "kind", "version", "metadata_sha256", "moved_at", "by", "reason", "forced"}
METADATA = {
    *("format", "name", "version", "created_at", "plugin", "task", "metric", "signature", "files", "params", "metrics"),
    *("gates", "parity", "passed", "data", "parents", "git_commit", "environment", "description", "tags"),
}
GATE = {"name", "metric", "op", "threshold", "observed", "passed"}
PARITY = {"reference", "samples", "max_scaled_diff", "tolerance", "passed"}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def answer_of(ocad: CommandLine, *arguments: str) -> Any:
    """The JSON answer of a command that succeeds."""
    answer = ocad(*arguments, "--json")
    assert answer.code == 0, answer
    return answer.value


def test_train_answers_with_the_version_and_its_evidence(ocad: CommandLine, work: Path) -> None:
    answer = answer_of(ocad, *HELLO, "--version", "v3.0.0", "--promote", "canary")
    assert set(answer) == {"name", "version", "ref", "path", "run", "metrics", "gates", "parity", "passed"}
    assert (answer["name"], answer["version"], answer["ref"]) == ("hello-udp_echo", "3.0.0", "hello-udp_echo@3.0.0")
    assert Path(answer["path"]).resolve() == work / "models" / "hello-udp_echo" / "3.0.0"
    assert set(answer["gates"][0]) == GATE
    assert set(answer["parity"]) == PARITY
    assert answer["passed"] is True
    run = work / answer["run"]
    assert {"config.yaml", "metrics.json", "request.json", "result.json", "data", "export"} <= {
        f.name for f in run.iterdir()
    }
    assert answer_of(ocad, "registry", "show", "hello-udp_echo@canary")["version"] == "3.0.0"


@pytest.mark.parametrize("group", [(), ("registry",), ("plugins",), ("data",)])
def test_a_group_alone_shows_its_help(ocad: CommandLine, group: tuple[str, ...]) -> None:
    answer = ocad(*group)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == ocad(*group, "--help").out


def test_train_tells_a_person_what_to_do_next(ocad: CommandLine) -> None:
    answer = ocad(*HELLO)
    lines = answer.out.splitlines()
    assert lines[0] == "hello-udp_echo@2.1.0  passed"
    assert lines[-1] == "next     ocad registry promote hello-udp_echo@2.1.0 production"
    promoted = ocad(*HELLO, "--promote", "canary").out.splitlines()
    assert promoted[-1] == "next     ocad predict hello-udp_echo@canary --data series.parquet"


def test_list_answers_with_every_version_newest_first(ocad: CommandLine) -> None:
    entries = answer_of(ocad, "registry", "list")
    assert [(entry["ref"], entry["passed"], entry["aliases"]) for entry in entries] == [
        ("hello-udp_echo@2.0.0", False, []),
        ("hello-udp_echo@1.1.0", True, ["staging"]),
        ("hello-udp_echo@1.0.0", True, []),
    ]
    assert all(set(entry) == ENTRY for entry in entries)
    assert (entries[0]["plugin"], entries[0]["task"], entries[0]["metric"]) == ("hello", "forecast", "udp_echo")
    assert re.fullmatch(TIME, entries[0]["created_at"])
    assert answer_of(ocad, "registry", "list", "hello-udp_echo") == entries


@pytest.mark.parametrize("asked", [("list",), ("query", "task = 'ctr'"), ("verify",), ("doctor",)])
def test_a_registry_that_does_not_exist_is_no_empty_one(ocad: CommandLine, asked: tuple[str, ...]) -> None:
    answer = ocad("registry", *asked, "--registry", "elsewhere", "--json")
    assert answer.code == 1
    assert (answer.value["error"]["code"], answer.value["error"]["message"]) == (
        "not-found",
        "there is no registry `elsewhere`",
    )


def test_list_keeps_a_broken_version_with_its_cause(ocad: CommandLine, work: Path) -> None:
    metadata = work / "models" / "hello-udp_echo" / "1.0.0" / "metadata.json"
    metadata.chmod(0o644)
    metadata.write_text("{")
    entries = {entry["version"]: entry for entry in answer_of(ocad, "registry", "list")}
    assert set(entries["1.0.0"]) == ENTRY | {"broken"}
    assert entries["1.0.0"]["broken"]
    assert set(entries["1.1.0"]) == ENTRY
    assert entries["1.0.0"]["broken"] in ocad("registry", "list").out


def test_query_answers_as_list(ocad: CommandLine) -> None:
    entries = {entry["ref"]: entry for entry in answer_of(ocad, "registry", "list")}
    found = answer_of(ocad, "registry", "query", "task = 'forecast' and passed = true and version = '1.0.0'")
    assert found == [entries["hello-udp_echo@1.0.0"]]
    assert answer_of(ocad, "registry", "query", "metrics.mase < 0") == []


def test_show_answers_with_the_metadata_its_aliases_and_path(ocad: CommandLine, work: Path) -> None:
    shown = answer_of(ocad, "registry", "show", "hello-udp_echo@staging")
    assert set(shown) == METADATA | {"aliases", "path"}
    assert (shown["format"], shown["version"], shown["aliases"]) == (1, "1.1.0", ["staging"])
    assert Path(shown["path"]).resolve() == work / "models" / "hello-udp_echo" / "1.1.0"
    assert {file["role"]: file["path"] for file in shown["files"]} == {"onnx": "model.onnx", "report": "parity.npz"}


def test_an_alias_moves_forth_and_back_and_ends(ocad: CommandLine) -> None:
    name = "hello-udp_echo"
    moves = [
        answer_of(ocad, "registry", "promote", f"{name}@1.0.0", "production", "--reason", "first"),
        answer_of(ocad, "registry", "promote", f"{name}@1.1.0", "production", "--expect", "1.0.0"),
        answer_of(ocad, "registry", "promote", f"{name}@2.0.0", "production", "--force", "--reason", "a trial"),
        answer_of(ocad, "registry", "rollback", name, "production", "--reason", "too slow"),
        answer_of(ocad, "registry", "unset", name, "production"),
    ]
    assert all(set(move) == MOVE for move in moves)
    assert [(move["number"], move["kind"], move["version"], move["reason"], move["forced"]) for move in moves] == [
        (1, "promote", "1.0.0", "first", False),
        (2, "promote", "1.1.0", "", False),
        (3, "promote", "2.0.0", "a trial", True),
        (4, "rollback", "1.1.0", "too slow", False),
        (5, "unset", None, "", False),
    ]
    assert re.fullmatch(TIME, moves[0]["moved_at"])
    assert answer_of(ocad, "registry", "history", name, "production") == moves
    plain = ocad("registry", "promote", f"{name}@1.0.0", "production")
    assert plain.out == f"{name}@production -> 1.0.0 (entry 6, promote)\n"


def test_extensions_hear_of_everything_in_its_order(ocad: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, ...]] = []

    @hookimpl
    def ocad_run_started(context: RunContext) -> None:
        heard.append(("run", context.plugin, str(context.metric)))

    @hookimpl
    def ocad_before_register(draft: VersionDraft) -> None:
        heard.append(("before", draft.name, str(draft.passed)))

    @hookimpl
    def ocad_version_registered(version: Version) -> None:
        heard.append(("registered", version.ref))

    @hookimpl
    def ocad_alias_moved(name: str, alias: str, entry: AliasEntry) -> None:
        heard.append(("moved", f"{name}@{alias}", str(entry.version)))

    module = importlib.import_module("ocad_hello.log")
    for hook in (ocad_run_started, ocad_before_register, ocad_version_registered, ocad_alias_moved):
        monkeypatch.setattr(module, hook.__name__, hook, raising=False)
    answer_of(ocad, *HELLO, "--promote", "canary")
    answer_of(ocad, "registry", "promote", "hello-udp_echo@1.0.0", "canary")
    answer_of(ocad, "registry", "unset", "hello-udp_echo", "canary")
    assert heard == [
        ("run", "hello", "udp_echo"),
        ("before", "hello-udp_echo", "True"),
        ("registered", "hello-udp_echo@2.1.0"),
        ("moved", "hello-udp_echo@canary", "2.1.0"),
        ("moved", "hello-udp_echo@canary", "1.0.0"),
        ("moved", "hello-udp_echo@canary", "None"),
    ]


def test_verify_of_the_registry_answers_with_findings(ocad: CommandLine, work: Path) -> None:
    assert answer_of(ocad, "registry", "verify") == []
    (work / "models" / "hello-udp_echo" / "1.0.0" / "model.onnx").unlink()
    answer = ocad("registry", "verify", "--json")
    assert answer.code == 3
    assert [(finding["severity"], finding["reference"]) for finding in answer.value] == [
        ("error", "hello-udp_echo@1.0.0")
    ]
    assert answer_of(ocad, "registry", "verify", "hello-udp_echo@1.1.0") == []


def test_verify_of_a_version_measures_parity_and_gates_again(ocad: CommandLine) -> None:
    verdict = answer_of(ocad, "verify", "hello-udp_echo@1.0.0")
    shown = answer_of(ocad, "registry", "show", "hello-udp_echo@1.0.0")
    assert verdict == {"ref": "hello-udp_echo@1.0.0", **{key: shown[key] for key in ("parity", "gates", "passed")}}
    assert ocad("verify", "hello-udp_echo@1.0.0").out.startswith("hello-udp_echo@1.0.0  verified\n")
    refused = ocad("verify", "hello-udp_echo@2.0.0")
    assert (refused.code, refused.out.splitlines()[0]) == (3, "hello-udp_echo@2.0.0  refused")


def test_evaluate_measures_the_same_again(ocad: CommandLine, work: Path) -> None:
    answer = answer_of(ocad, "evaluate", "hello-udp_echo@1.0.0")
    metrics = answer_of(ocad, "registry", "show", "hello-udp_echo@1.0.0")["metrics"]
    rows = {"name": "series.parquet", "part": "test", "rows": answer["data"]["rows"], "as_fitted": False}
    assert answer == {"ref": "hello-udp_echo@1.0.0", "data": rows, "metrics": metrics}
    kept = answer_of(ocad, "evaluate", "hello-udp_echo@1.0.0", "--data", "link", "--output", "kept")
    assert kept == {"ref": "hello-udp_echo@1.0.0", "data": rows | {"name": "link"}, "metrics": metrics, "plots": []}
    assert (work / "kept" / "data" / "test.parquet").is_file()


def test_predict_answers_and_writes_what_the_graph_says(ocad: CommandLine, work: Path) -> None:
    asked = ("predict", "hello-udp_echo@1.0.0", "--data", "windows.npz")
    answer = answer_of(ocad, *asked)
    assert (answer["rows"], answer["ref"], answer["output"]) == (2, "hello-udp_echo@1.0.0", None)
    expected = [row["forecast"] for row in answer["predictions"]]
    written = answer_of(ocad, *asked, "--output", "out/forecast.parquet")
    assert written == {"rows": 2, "output": "out/forecast.parquet", "ref": "hello-udp_echo@1.0.0"}
    assert pd.read_parquet(work / "out" / "forecast.parquet")["forecast"].tolist() == expected
    assert np.load(work / "windows.npz")["values"][:, -1].tolist() == expected


def test_detect_scores_every_row(ocad: CommandLine, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hello` as a detector: the distance from the endpoint's median."""

    @hookimpl
    def ocad_detect(frame: pd.DataFrame) -> Any:
        return (frame["udp_echo"] - frame.groupby("endpoint")["udp_echo"].transform("median")).abs().fillna(0)

    monkeypatch.setattr(importlib.import_module("ocad_hello"), "ocad_detect", ocad_detect, raising=False)
    asked = ("detect", "hello-udp_echo@1.0.0", "--data", "link", "--output", "scores.parquet")
    rows = len(pd.read_parquet(work / "series.parquet"))
    answer = answer_of(ocad, *asked)
    assert set(answer) == {"ref", "rows", "incidents", "scores", "latency_us"}
    assert (answer["rows"], answer["incidents"], answer["scores"]) == (rows, [], "scores.parquet")
    scored = pd.read_parquet(work / "scores.parquet")
    assert scored.nlargest(6, "score")["label"].tolist() == [1] * 6
    assert "scores are not calibrated: no incidents" in ocad(*asked).out


def test_the_doctor_says_what_needs_attention(ocad: CommandLine) -> None:
    answer = ocad("doctor", "--json")
    rows = {row["check"]: row for row in answer.value}
    assert answer.code == 1
    assert all(set(row) == {"check", "state", "value", "advice"} for row in answer.value)
    assert {name for name, row in rows.items() if row["state"] == "attention"} == {
        f"plugin {name}" for name in ("raises-on-import", "wrong-api", "wrong-info")
    }
    assert rows["registry"]["value"] == "models: 3 versions of 1 models"
    assert rows["data link"]["state"] == "ok"
