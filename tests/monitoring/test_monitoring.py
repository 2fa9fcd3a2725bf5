"""A registered detector over a file and over arriving rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.monitoring.conftest import ROWS, session_of

import ocad
from ocad.detection.following import Follower, follow
from ocad.detection.wording import incident_line
from ocad.errors import DataError, UsageError
from ocad.monitoring import Findings, detect_data, open_watch


@pytest.fixture(scope="module", params=["rule_based-links@1.0.0", "composite-links@1.0.0"])
def findings(request: pytest.FixtureRequest, folder: Path) -> Findings:
    session = session_of(folder)
    return detect_data(session.registry.resolve(request.param), session, str(folder / "rows.parquet"))


def lines_of(rows: pd.DataFrame) -> list[str]:
    table = rows.sort_values("timestamp", kind="stable")
    times = table["timestamp"].map(pd.Timestamp.isoformat)
    columns = zip(times, table["endpoint"], table["lbm"], table["ccm"], strict=True)
    return [
        json.dumps({"timestamp": moment, "endpoint": endpoint, "lbm": None if np.isnan(lbm) else lbm, "ccm": ccm})
        for moment, endpoint, lbm, ccm in columns
    ]


def test_incidents_of_a_file_are_told_under_the_contract(findings: Findings) -> None:
    told = json.loads(json.dumps(findings.to_json("scores.parquet"), allow_nan=False))
    assert set(told) == {"ref", "rows", "incidents", "scores", "metrics", "latency_us"}
    assert told["rows"] == 2 * ROWS
    assert set(told["metrics"]) == {"event_precision", "event_recall", "event_f1", "point_fpr"}
    assert told["metrics"]["event_recall"] > 0.9
    assert told["metrics"]["event_precision"] > 0.9
    assert {"endpoint", "metrics", "start", "end", "kind", "score", "detectors"} <= set(told["incidents"][0])
    assert {one["kind"] for one in told["incidents"]} >= {"loss"}
    assert told["latency_us"]["p50"] <= told["latency_us"]["p99"]


def test_scores_stand_beside_the_rows(findings: Findings) -> None:
    scores = findings.scores()
    assert len(scores) == 2 * ROWS
    assert scores.loc[scores["label"] == 1, "score"].median() > scores.loc[scores["label"] == 0, "score"].quantile(0.95)
    assert scores["alarm"].dtype == bool


def test_following_rows_finds_what_the_file_had(folder: Path, findings: Findings) -> None:
    session = session_of(folder)
    follower = Follower(open_watch(session.registry.resolve(findings.ref), session))
    told: dict[str, Any] = {}
    for _, result in follow(lines_of(pd.read_parquet(folder / "rows.parquet")), follower, warn=pytest.fail):
        if result.incident is not None:
            told[result.incident.id] = result.incident
    assert follower.rows == 2 * ROWS
    batch = {one.id: (one.kind, one.rows, one.end_us) for one in findings.detection.incidents}
    assert {key: (one.kind, one.rows, one.end_us) for key, one in told.items()} == batch


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "a line is no JSON"),
        ("[]", "a row has no `timestamp`"),
        ('{"timestamp": "soon"}', "a row's `timestamp` is no time"),
        ('{"timestamp": "2026-01-02T00:00:00Z", "lmb": 1, "ccm": 0}', "a row has no `lbm`: did you mean `lmb`?"),
        ('{"timestamp": "2026-01-02T00:00:00Z", "lbm": "x", "ccm": 0}', "a row's `lbm` is no number"),
        ('{"timestamp": "2026-01-02T00:00:00Z", "lbm": 1, "ccm": 0, "lbm": 2}', "a row has two values of `lbm`"),
        (
            '{"timestamp": "2026-01-01T00:00:00Z", "endpoint": "north", "lbm": 1, "ccm": 0}',
            "the clock of endpoint `north`",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_and_changes_nothing(folder: Path, line: str, reason: str) -> None:
    session = session_of(folder)
    follower = Follower(open_watch(session.registry.resolve("composite-links@1.0.0"), session))
    follower.take('{"timestamp": "2026-01-02T00:00:00Z", "endpoint": "north", "lbm": 200, "ccm": 0}')
    before = follower.watch.state()
    with pytest.raises(DataError) as error:
        follower.take(line)
    assert str(error.value).startswith(reason)
    assert follower.watch.state() == before
    warnings: list[str] = []
    follower.refused.clear()
    follower.notes.clear()
    assert list(follow([line, line, "", line], follower, warnings.append)) == []
    assert warnings == [f"a row was refused: {error.value}"]
    assert list(follower.refused.values()) == [3]


def test_an_endpoint_never_seen_is_judged_and_flagged(folder: Path) -> None:
    session = session_of(folder)
    rows = pd.read_parquet(folder / "rows.parquet").assign(endpoint="west").drop_duplicates("timestamp")
    rows.to_csv(folder / "west.csv", index=False)
    findings = detect_data(session.registry.resolve("composite-links@1.0.0"), session, str(folder / "west.csv"))
    assert findings.detection.counts["unseen"] == 1
    assert findings.watch is not None
    assert findings.watch.unseen == {"west"}
    assert len(findings.detection.incidents) > 0


def test_one_line_says_what_where_and_how_far(findings: Findings) -> None:
    loss = next(one for one in findings.detection.incidents if one.kind == "loss")
    line = incident_line(loss)
    assert line.startswith(f"loss on {loss.endpoint} since 2026-01-02T00:")
    assert " sigmas)" in line
    assert "lost " in line


def test_loaded_in_python_it_detects(folder: Path) -> None:
    detector: Any = ocad.load("composite-links@production", folder / "models")
    detection = detector.detect(pd.read_parquet(folder / "rows.parquet"))
    assert len(detection.scores) == 2 * ROWS
    assert detection.incidents


def test_what_detects_nothing_is_named(folder: Path) -> None:
    session = session_of(folder)
    train_data = str(Path(__file__).resolve().parents[2] / "data" / "udp_echo" / "trace.parquet")
    version = session.registry.resolve("rule_based-links@1.0.0")
    with pytest.raises(UsageError, match="nothing here has a graph"):
        detect_data(version, session, train_data, server="http://127.0.0.1:9")


def test_a_detector_whose_parts_do_not_fit_together_is_named_before_any_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(folder)
    version = session.registry.resolve("rule_based-links@1.0.0")
    value = json.loads(version.file("estimator").read_text())
    value["metrics"].append("udp_echo")
    other = folder / "other.json"
    other.write_text(json.dumps(value))
    monkeypatch.setattr(type(version), "file", lambda self, role: other)
    with pytest.raises(
        DataError, match=r"the detector `rule_based-links` of `rule_based-links@1.0.0` cannot score a row"
    ):
        detect_data(version, session, "nothing.parquet")


def run(folder: Path, *arguments: str, rows: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OCAD_ALERTS": str(folder / "alerts")}
    command = [sys.executable, "-m", "ocad", "detect", *arguments, "--registry", str(folder / "models")]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, input=rows, env=environment, timeout=600
    )


def test_the_command_follows_rows_and_raises_alerts(folder: Path) -> None:
    rows = pd.read_parquet(folder / "rows.parquet")
    settings = folder / "alerts.yaml"
    settings.write_text("group_wait_s: 0\nsinks: {console: {}, jsonl: {path: alerts.jsonl}}\n")
    lines = "\n".join(lines_of(rows[rows["endpoint"] == "north"]))
    done = run(
        folder,
        "composite-links",
        "--data",
        "-",
        "--follow",
        "--alert-config",
        str(settings),
        "--json",
        rows=f"{lines}\nnonsense\n",
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["news"] for one in told} >= {"opened", "closed"}
    assert "1500 rows, 1 refused" in done.stderr
    assert "a line is no JSON" in done.stderr
    alerts = [json.loads(line) for line in (folder / "alerts" / "alerts.jsonl").read_text().splitlines()]
    assert {one["status"] for one in alerts} >= {"firing", "resolved"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "-"), "`--follow` and `--data -` belong together"),
        (("--data", "rows.parquet", "--follow"), "`--follow` and `--data -` belong together"),
        (("--data", "-", "--follow", "--report", "r.html"), "`--follow` writes no `--report`"),
        (("--data", "rows.parquet", "--state", "s.json"), "`--state` needs `--follow`"),
        (("--data", "rows.parquet", "--output", "s.csv"), "`--output` names `s.csv`"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(folder, "rule_based-links@1.0.0", *arguments, rows="")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")


SETTINGS = {
    "as shipped": "sinks: {console: null, jsonl: {}}\n",
    "at once, told again and again": "group_wait_s: 0\nhold_down_s: 5\nrepeat_s: 20\nsinks: {console: null, jsonl: {}}\n",
    "by what an incident looks like": (
        "group_by: [endpoint, kind]\ngroup_wait_s: 3\nhold_down_s: 10\nsinks: {console: null, jsonl: {}}\n"
        "severity: {warning: {score: 4}, critical: {score: 8, times: 1.5}}\n"
    ),
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_file_and_its_rows_as_they_arrive_give_the_same_notifications(
    folder: Path, tmp_path: Path, settings: str
) -> None:
    (tmp_path / "alerts.yaml").write_text(SETTINGS[settings])
    (tmp_path / "models").symlink_to(folder / "models")
    rows = folder / "rows.parquet"
    config = ("--alert-config", str(tmp_path / "alerts.yaml"))
    file = run(tmp_path, "rule_based-links@1.0.0", "--data", str(rows), "--alerts", "file", *config)
    lines = "\n".join(lines_of(pd.read_parquet(rows))) + "\n"
    live = run(tmp_path, "rule_based-links@1.0.0", "--data", "-", "--follow", "--alerts", "live", *config, rows=lines)
    assert (file.returncode, live.returncode) == (0, 0), file.stderr + live.stderr
    told = [
        [json.loads(line) for line in (tmp_path / name / "alerts.jsonl").read_text().splitlines()]
        for name in ("file", "live")
    ]
    assert len(told[0]) > 3
    assert told[0] == told[1]


def test_times_are_told_in_the_zone_that_was_asked_for(folder: Path) -> None:
    rows = pd.read_parquet(folder / "rows.parquet").head(60)
    rows.to_parquet(folder / "first.parquet", index=False)
    arguments = ("rule_based-links@1.0.0", "--data", "first.parquet", "--time-zone", "Asia/Tokyo")
    told = run(folder, *arguments, "--report", "tokyo.html")
    assert told.returncode == 0, told.stderr
    assert "2026-01-02T09:00:4" in told.stdout
    assert "2026-01-02 09:00:4" in (folder / "tokyo.html").read_text()
    document = json.loads(run(folder, *arguments, "--json").stdout)
    assert document["incidents"][0]["start"].startswith("2026-01-02T00:00:4")
    live = run(folder, *arguments[:1], "--data", "-", "--follow", *arguments[3:], rows="\n".join(lines_of(rows)))
    assert "opened: spike on north since 2026-01-02T09:00:4" in live.stdout
    wrong = run(folder, *arguments[:3], "--time-zone", "Mars/Olympus")
    assert (wrong.returncode, wrong.stderr[:7]) == (2, "error: ")
    assert "there is no time zone `Mars/Olympus`" in wrong.stderr


def test_every_incident_is_rated(findings: Findings) -> None:
    severities = {one.kind: one.severity for one in findings.detection.incidents}
    assert set(severities.values()) <= {"info", "warning", "critical"}
    assert severities["loss"] == "critical"
