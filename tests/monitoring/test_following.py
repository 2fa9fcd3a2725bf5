"""What a followed detector has learnt outlives it in a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tests.monitoring.conftest import session_of
from tests.monitoring.test_monitoring import lines_of, run

from ocad.detection.alerts.rules import SEVERITIES
from ocad.detection.clocks import StreamClock
from ocad.detection.following import Follower, StateFile, follow
from ocad.detection.incidents import Incident
from ocad.errors import DataError, UsageError
from ocad.monitoring import open_watch

OWNER = {"ref": "composite-links@1.0.0", "metadata_sha256": "00"}


def follower_of(folder: Path) -> Follower:
    session = session_of(folder)
    return Follower(open_watch(session.registry.resolve("composite-links@1.0.0"), session))


@pytest.fixture(scope="module")
def lines(folder: Path) -> list[str]:
    return lines_of(pd.read_parquet(folder / "rows.parquet"))


def told(follower: Follower, lines: list[str]) -> list[tuple[str, Incident]]:
    results = (result.incident for _, result in follow(lines, follower, pytest.fail))
    news = ((follower.news(incident), incident) for incident in results if incident)
    return [(kind, incident) for kind, incident in news if kind]


def test_a_restart_from_the_file_tells_what_no_restart_would_have_told(
    folder: Path, lines: list[str], tmp_path: Path
) -> None:
    expected = told(follower_of(folder), lines)
    path = tmp_path / "new folder" / "state.json"
    first = follower_of(folder)
    kept = StateFile(path, OWNER, first, pytest.fail)
    assert not kept.restore()
    before = told(first, lines[:600])
    cut = 600
    while before[-1][0] != "opened":  # an incident is under way
        before += told(first, [lines[cut]])
        cut += 1
    assert kept.save()
    second = follower_of(folder)
    assert StateFile(path, OWNER, second, pytest.fail).restore()
    assert before + told(second, lines[cut:]) == expected


def test_a_state_from_the_future_is_begun_anew(folder: Path, lines: list[str], tmp_path: Path) -> None:
    """A clock that was a century ahead, and the state that it left, must not make every later row late."""
    expected = told(follower_of(folder), lines)
    path = tmp_path / "state.json"
    ahead = follower_of(folder)
    ahead.clock = StreamClock(max_ahead_s=1e11)
    list(follow([line.replace("2026-", "2126-") for line in lines[:100]], ahead, pytest.fail))
    assert StateFile(path, OWNER, ahead, pytest.fail).save()
    after, notes = follower_of(folder), list[str]()
    assert StateFile(path, OWNER, after, pytest.fail).restore()
    news = [(after.news(one.incident), one.incident) for _, one in follow(lines, after, notes.append) if one.incident]
    assert [found for found in news if found[0]] == expected
    assert notes == ["the state is ahead of this machine's clock: all endpoints are followed anew"]


def test_rows_that_come_again_after_a_restart_are_refused(folder: Path, lines: list[str], tmp_path: Path) -> None:
    first, second = follower_of(folder), follower_of(folder)
    told(first, lines[:100])
    StateFile(tmp_path / "state", OWNER, first, pytest.fail).save()
    StateFile(tmp_path / "state", OWNER, second, pytest.fail).restore()
    warnings: list[str] = []
    assert list(follow(lines[:100], second, warnings.append)) == []
    assert list(second.refused.values()) == [100]
    assert len(warnings) == 1


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"of": {}}', '{"of": {"ref": "composite-links@1.0.0"}, "state": 1}']
)
def test_a_file_that_holds_no_state_is_named(folder: Path, content: str, tmp_path: Path) -> None:
    (tmp_path / "state").write_text(content)
    with pytest.raises(DataError, match=r"state` holds no state of a detector: remove the file"):
        StateFile(tmp_path / "state", OWNER, follower_of(folder), pytest.fail).restore()


def test_the_state_of_another_version_is_refused(folder: Path, tmp_path: Path) -> None:
    follower = follower_of(folder)
    StateFile(tmp_path / "state", {**OWNER, "metadata_sha256": "11"}, follower, pytest.fail).save()
    with pytest.raises(UsageError, match="is of another version"):
        StateFile(tmp_path / "state", OWNER, follower, pytest.fail).restore()


def test_a_state_that_cannot_be_saved_is_told_of_once_and_then_saved(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    warnings: list[str] = []
    kept = StateFile(tmp_path / "taken" / "state", OWNER, follower_of(folder), warnings.append, every_s=0)
    kept.row_taken()
    assert not kept.save()
    assert len(warnings) == 1
    assert warnings[0].startswith("cannot save the state in")
    (tmp_path / "taken").unlink()
    assert kept.save()


def test_the_state_is_saved_when_it_is_time_to(folder: Path, lines: list[str], tmp_path: Path) -> None:
    follower = follower_of(folder)
    kept = StateFile(tmp_path / "state", OWNER, follower, pytest.fail, every_s=3600)
    told(follower, lines[:10])
    kept.row_taken()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_keeps_its_state_and_ends_well(
    folder: Path, lines: list[str], number: signal.Signals, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-m", "ocad", "detect", "composite-links", "--data", "-", "--follow", "--json"]
    options = ["--state", str(state), "--registry", str(folder / "models")]
    with subprocess.Popen(
        [*command, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("".join(f"{line}\n" for line in lines[:400]))
        process.stdin.flush()
        opened = json.loads(process.stdout.readline())
        process.send_signal(number)
        rest, noted = process.stdout.read(), process.stderr.read()
        assert process.wait(600) == 0, noted
    assert opened["news"] == "opened"
    taken = int(noted.rpartition(" rows")[0].split()[-1])
    done = run(folder, *command[4:], "--state", str(state), rows="\n".join(lines[taken:]))
    assert done.returncode == 0, done.stderr
    assert "goes on from the state" in done.stderr
    news = [opened, *map(json.loads, rest.splitlines()), *map(json.loads, done.stdout.splitlines())]
    expected = [{"news": kind, **incident.to_json()} for kind, incident in told(follower_of(folder), lines)]
    assert all(one.pop("severity") in SEVERITIES for one in news), "the command rates what the follower finds"
    assert news == [
        {key: value for key, value in one.items() if key != "severity"} for one in json.loads(json.dumps(expected))
    ]


def test_what_is_no_text_is_a_refused_row(folder: Path, lines: list[str]) -> None:
    command = [sys.executable, "-m", "ocad", "detect", "composite-links", "--data", "-", "--follow"]
    rows = b'\xff\xfe\n{"timestamp": "9999-99"}\n' + b"[" * 100_000 + b"\n" + lines[0].encode() + b"\n"
    done = subprocess.run(
        [*command, "--registry", str(folder / "models")], input=rows, capture_output=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert b"1 rows, 3 refused" in done.stderr
