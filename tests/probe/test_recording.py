"""The testbed: its schedule, its load, its labels, and a short real recording between two namespaces."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.errors import DataError, OcadError
from ocad.probe import testbed
from ocad.probe.load import batches
from ocad.probe.recording import label_rows
from ocad.probe.schedule import make_schedule, read_schedule

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "record_testbed.py"
RECORDED = ROOT / "data" / "udp_echo"
NEEDED = 1 << 12 | 1 << 21  # CAP_NET_ADMIN and CAP_SYS_ADMIN

privileged = pytest.mark.skipif(
    testbed.effective_capabilities() & NEEDED != NEEDED, reason="needs CAP_NET_ADMIN and CAP_SYS_ADMIN"
)


def script(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )


@given(seed=st.integers(0, 2**32), duration=st.floats(20, 2000))
def test_incidents_never_overlap_and_are_rare(seed: int, duration: float) -> None:
    schedule = make_schedule(seed, duration)
    assert schedule == make_schedule(seed, duration)
    times = [time for incident in schedule.incidents for time in (incident.start_s, incident.end_s)]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < duration
    kinds = Counter(incident.kind for incident in schedule.incidents)
    assert len(kinds) == 3
    assert max(kinds.values()) - min(kinds.values()) <= 1
    if duration > 300:
        assert sum(incident.end_s - incident.start_s for incident in schedule.incidents) < 0.16 * duration


def test_a_schedule_survives_its_file(tmp_path: Path) -> None:
    schedule = make_schedule(3, 60)
    (tmp_path / "schedule.json").write_text(schedule.to_json())
    assert read_schedule(tmp_path / "schedule.json") == schedule


def test_a_missing_schedule_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_schedule(tmp_path / "none.json")
    assert str(error.value) == f"no schedule `{tmp_path / 'none.json'}`: write one with `--plan` and commit it"


def test_the_committed_schedule_is_the_one_its_seed_gives() -> None:
    schedule = read_schedule(RECORDED / "schedule.json")
    assert make_schedule(schedule.seed, schedule.duration_s) == schedule


def test_cross_traffic_offers_what_the_schedule_says() -> None:
    schedule = make_schedule(5, 200)
    sent = np.array(list(batches(schedule)))
    link, traffic = schedule.link, schedule.traffic
    seconds = len(traffic.share) * traffic.step_s
    bursts = sum(i.size * (i.end_s - i.start_s) for i in schedule.incidents if i.kind == "burst")
    expected = float(np.mean(traffic.share)) + bursts / seconds
    offered = sent[:, 1].sum() * traffic.packet_bytes * 8 / (link.rate_mbit * 1e6 * seconds)
    assert offered == pytest.approx(expected, rel=0.05)
    assert (np.diff(sent[:, 0]) >= 0).all()


def test_rows_are_labelled_by_the_incident_they_were_sent_in() -> None:
    times = pd.to_datetime([0, 1_000_000, 2_000_000, 3_000_000], unit="us", utc=True)
    rows = pd.DataFrame({"timestamp": times, "udp_echo": [1.0, 2.0, np.nan, 4.0], "seq": range(4)})
    incidents = [{"kind": "flap", "start_s": 1.5, "end_s": 2.5}]
    labelled = label_rows(rows, incidents, epoch=0)
    assert labelled["kind"].tolist() == ["", "", "flap", ""]
    assert labelled["label"].tolist() == [0, 0, 1, 0]
    assert list(labelled.columns) == ["timestamp", "udp_echo", "label", "kind"]


def test_the_recorded_trace_is_whole() -> None:
    rows = pd.read_parquet(RECORDED / "trace.parquet")
    about = json.loads((RECORDED / "recording.json").read_text())
    assert len(rows) == about["rows"] >= 36_000
    assert (RECORDED / "trace.parquet").stat().st_size < 2_000_000
    assert rows["timestamp"].is_monotonic_increasing
    assert set(rows.loc[rows["label"] == 1, "kind"]) == {"congestion", "burst", "flap"}
    assert set(rows.loc[rows["label"] == 0, "kind"]) == {""}
    assert len(about["incidents"]) == len(read_schedule(RECORDED / "schedule.json").incidents)


def test_a_schedule_that_is_not_committed_is_refused(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    require_committed = runpy.run_path(str(SCRIPT))["require_committed"]
    schedule = tmp_path / "schedule.json"
    schedule.write_text("{}")
    expected = f"`{schedule}` is not the committed schedule: commit it before recording"
    git("init")
    with pytest.raises(DataError) as error:
        require_committed(schedule)
    assert str(error.value) == expected
    git("add", "schedule.json")
    git("commit", "-m", "schedule")
    require_committed(schedule)
    schedule.write_text("{ }")
    with pytest.raises(DataError) as error:
        require_committed(schedule)
    assert str(error.value) == expected


def test_a_schedule_is_never_drawn_twice(tmp_path: Path) -> None:
    assert script("--plan", "--folder", str(tmp_path)).returncode == 0
    again = script("--plan", "--folder", str(tmp_path))
    path = tmp_path / "schedule.json"
    assert again.returncode == 1
    assert again.stderr == (
        f"error: `{path}` exists: a schedule is drawn once; remove it in a commit of its own to draw another\n"
    )


def test_what_the_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocad.probe.testbed.shutil.which", lambda program: None if program == "tc" else program)
    with pytest.raises(OcadError) as error:
        testbed.require_capabilities()
    assert str(error.value) == "the testbed needs the program `tc`: install the package `iproute2`"
    monkeypatch.setattr("ocad.probe.testbed.shutil.which", lambda program: program)
    monkeypatch.setattr(testbed, "effective_capabilities", lambda: 1 << 12)
    with pytest.raises(OcadError) as error:
        testbed.require_capabilities()
    expected = "the testbed needs the capability `CAP_SYS_ADMIN`: run it as root, or in a privileged container"
    assert str(error.value) == expected


@privileged
@pytest.mark.slow
def test_a_rehearsal_measures_what_it_causes_and_leaves_nothing(tmp_path: Path) -> None:
    before = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    result = script("--rehearse", "12", "--folder", str(tmp_path))
    assert result.returncode == 0, result.stderr
    rows = pd.read_parquet(tmp_path / "trace.parquet")
    assert len(rows) == 720
    assert set(rows["kind"]) == {"", "congestion", "burst", "flap"}
    by_kind = rows.groupby("kind")["udp_echo"]
    lost = by_kind.apply(lambda part: float(part.isna().mean()))
    assert lost["flap"] > 0.8
    assert lost[""] < 0.2
    assert by_kind.median()["burst"] > by_kind.median()[""]
    assert subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout == before
