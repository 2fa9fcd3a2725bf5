"""The testbed: its schedule, its load, its rows, and a short real recording over two links."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.errors import DataError, OcadError, UsageError
from ocad.probe import testbed
from ocad.probe.load import batches, link_of, offered_share
from ocad.probe.recording import Recorder, assemble
from ocad.probe.schedule import LINKS, IncidentKind, make_schedule, read_schedule
from ocad.probe.steps import METRICS, measured_sizes, step_rows

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "record_testbed.py"
RECORDED = ROOT / "data" / "oran_testbed"
SIZES: dict[IncidentKind, tuple[float, ...]] = {
    "congestion": (0.2, 0.4),
    "burst": (0.5,),
    "busy": (0.3,),
    "loss": (0.3,),
    "flap": (0.0,),
}


def script(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )


@given(seed=st.integers(0, 2**32), slots=st.integers(5, 80), slot=st.floats(80, 200))
def test_incidents_never_overlap_and_are_rare(seed: int, slots: int, slot: float) -> None:
    schedule = make_schedule(seed, slots * slot, SIZES, slots)
    assert schedule == make_schedule(seed, slots * slot, SIZES, slots)
    for link in schedule.links:
        times = [time for incident in link.incidents for time in (incident.start_s, incident.end_s)]
        assert times == sorted(times)
        assert times[0] > 0
        assert times[-1] < slots * slot
        kinds = Counter(incident.kind for incident in link.incidents)
        assert set(kinds) == set(SIZES)
        assert max(kinds.values()) - min(kinds.values()) <= 1
        assert sum(one.end_s - one.start_s for one in link.incidents) < 0.16 * slots * slot
    assert len({link.incidents for link in schedule.links}) == len(LINKS)


def test_a_schedule_survives_its_file(tmp_path: Path) -> None:
    schedule = make_schedule(3, 600, SIZES, 6)
    (tmp_path / "schedule.json").write_text(schedule.to_json())
    assert read_schedule(tmp_path / "schedule.json") == schedule


def test_a_missing_schedule_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_schedule(tmp_path / "none.json")
    assert str(error.value) == f"no schedule `{tmp_path / 'none.json'}`: write one with `--plan` and commit it"


@pytest.mark.parametrize("recording", ["oran_testbed", "oran_testbed_2", "oran_testbed_3"])
def test_the_committed_schedule_is_the_one_its_seed_gives(recording: str) -> None:
    schedule = read_schedule(ROOT / "data" / recording / "schedule.json")
    plan = runpy.run_path(str(SCRIPT))["PLANS"][recording]
    assert make_schedule(plan.seed, plan.duration_s, plan.sizes, plan.slots, plan.links) == schedule


def test_cross_traffic_offers_what_the_schedule_says() -> None:
    schedule = make_schedule(5, 300, SIZES, 5)
    for link in schedule.links:
        sent = np.array(list(batches(schedule, link)))
        offered = sent[:, 1].sum() * link.traffic.packet_bytes * 8 / (link.rate_mbit * 1e6 * schedule.duration_s)
        assert offered == pytest.approx(float(np.mean(offered_share(schedule, link))), rel=0.08)
        assert (np.diff(sent[:, 0]) >= 0).all()


def test_an_unknown_link_is_named() -> None:
    with pytest.raises(UsageError, match="no link `du9-ru9`"):
        link_of(make_schedule(5, 300, SIZES, 5), "du9-ru9")


def test_rows_are_means_of_steps_with_the_kind_of_the_incident_that_covers_them(tmp_path: Path) -> None:
    schedule = make_schedule(1, 4, SIZES, 5, links=LINKS[:1])
    epoch = 1_700_000_000_000_000_000
    for metric in METRICS:
        measured: list[tuple[float, float | None]] = [
            (-0.5, 9.0),
            (0.1, 1.0),
            (0.9, 3.0),
            (2.2, None),
            (3.5, 7.0),
            (4.1, 8.0),
        ]
        lines = [
            json.dumps({"timestamp": pd.Timestamp(epoch + int(at * 1e9), tz="UTC").isoformat(), metric: value})
            for at, value in measured
        ]
        (tmp_path / f"{LINKS[0].endpoint}.{metric}.jsonl").write_text("\n".join(lines))
    incident = {"endpoint": LINKS[0].endpoint, "kind": "flap", "size": 0.0, "start_s": 1.5, "end_s": 3.01}
    rows = step_rows(schedule, tmp_path, [incident], epoch)
    assert list(rows.columns) == ["timestamp", "endpoint", *METRICS, "label", "kind"]
    assert rows["udp_echo"].fillna(-1).tolist() == pytest.approx([3**0.5, -1.0, -1.0, 7.0])
    assert rows["kind"].tolist() == ["", "flap", "flap", ""]
    assert rows["label"].tolist() == [0, 1, 1, 0]
    assert rows["timestamp"].iloc[3] == pd.Timestamp(epoch + 3_000_000_000, tz="UTC")


def test_sizes_are_in_units_of_the_normal_rows_robust_noise() -> None:
    normal = [10.0, 11.0, 9.0, 10.0, 12.0, 8.0] * 5
    values = np.array([*normal, 40.0, 50.0])
    times = pd.to_datetime(np.arange(len(values)) * 1_000_000, unit="us", utc=True)
    label = np.array([0] * 30 + [1] * 2)
    columns = dict.fromkeys(METRICS[:3], values)
    rows = pd.DataFrame({"timestamp": times, "endpoint": "a", **columns, "ccm": label * 0.5, "label": label})
    incident: dict[str, Any] = {"endpoint": "a", "kind": "loss", "size": 0.5, "start_s": 30.2, "end_s": 31.9}
    (sized,) = measured_sizes(rows, [incident])
    assert sized["sigmas"]["lbm"] == pytest.approx(35 / 1.4826, abs=0.01)
    assert sized["size_sigmas"] == sized["sigmas"]["udp_echo"]
    assert sized["ccm"] == 0.5


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


@pytest.mark.needs("root", "ip", "tc")
def test_a_short_recording_measures_all_four_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocad.probe.recording.LEAD_SECONDS", 20.0)
    schedule = make_schedule(11, 15, SIZES, 5, links=LINKS[:1])
    schedule_file = tmp_path / "schedule.json"
    schedule_file.write_text(schedule.to_json())
    said: list[str] = []
    rows, about = Recorder(schedule, schedule_file, tmp_path, said.append).record()
    assert len(rows) == 15
    assert len(said) == len(about["incidents"]) == 5
    for metric in METRICS:
        assert rows.loc[rows["label"] == 0, metric].notna().mean() > 0.5
    assert rows.loc[rows["kind"] == "loss", "ccm"].max() > 0.1
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert not [
        name for name in names.splitlines() if name.startswith("ocad-") and LINKS[0].endpoint in name and "-0" in name
    ]


def test_what_was_recorded_before_a_cut_is_kept(tmp_path: Path) -> None:
    """Two and a half seconds of four, the last lines torn: two whole steps, and only the incident that had ended."""
    schedule = make_schedule(1, 4, SIZES, 5, links=LINKS[:1])
    epoch = 1_700_000_000_000_000_000
    for metric in METRICS:
        times = [pd.Timestamp(epoch + ms * 1_000_000, tz="UTC").isoformat() for ms in (100, 1_100, 2_500)]
        lines = "".join(json.dumps({"timestamp": at, metric: 2.0}) + "\n" for at in times)
        (tmp_path / f"{LINKS[0].endpoint}.{metric}.jsonl").write_text(lines + '{"timestamp": "2023-11-')
    with pytest.raises(DataError, match=f"no begun recording in `{tmp_path}`: name its folder with `--raw`"):
        assemble(schedule, tmp_path)
    incident = {"endpoint": LINKS[0].endpoint, "kind": "loss", "size": 0.1, "start_s": 1.0}
    (tmp_path / "incidents.json").write_text(json.dumps([incident | {"end_s": 1.5}, incident | {"start_s": 2.0}]))
    (tmp_path / "start.json").write_text(json.dumps({"epoch_ns": epoch, "nice": 0}))
    rows, about = assemble(schedule, tmp_path)
    assert rows["kind"].tolist() == ["", "loss"]
    assert rows["ccm"].tolist() == [2.0, 2.0]
    assert about["cut_short_at_s"] == pytest.approx(2.5)
    assert len(about["incidents"]) == 1


def test_the_recording_is_whole() -> None:
    rows = pd.read_parquet(RECORDED / "trace.parquet")
    about = json.loads((RECORDED / "recording.json").read_text())
    schedule = read_schedule(RECORDED / "schedule.json")
    assert (RECORDED / "trace.parquet").stat().st_size < 4_000_000
    assert rows.groupby("endpoint")["timestamp"].apply(lambda times: times.is_monotonic_increasing).all()
    assert len(rows) == about["rows"] == int(about["cut_short_at_s"]) * len(schedule.links) == 7195 * 4
    assert set(rows.loc[rows["label"] == 1, "kind"]) == set(SIZES)
    assert set(rows.loc[rows["label"] == 0, "kind"]) == {""}
    assert rows["label"].mean() <= 0.10
    test = [one for one in about["incidents"] if one["start_s"] >= schedule.split.test * schedule.duration_s]
    assert len(about["incidents"]) == sum(len(link.incidents) for link in schedule.links)
    assert len(test) >= 100
