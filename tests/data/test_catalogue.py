"""The catalogue: names, files, selections, and that every set of it can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ocad.catalogue import find_data, list_data
from ocad.errors import ConfigError, UsageError
from ocad.project import project_root
from ocad.timeseries.frame import read_frame

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "adult",
    "bank_full",
    "cicv5g",
    "cicv5g_urban",
    "clicks_simulated",
    "ml_latest_small",
    "nab",
    "open_bandit",
    "oran_testbed",
    "ripe_rtt",
    "skab",
    "smd",
    "tsn_bridge",
    "udp_echo",
]


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_HOME", str(ROOT))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own with an empty catalogue; returns the catalogue's folder."""
    folder = tmp_path / "configs" / "data"
    folder.mkdir(parents=True)
    monkeypatch.setenv("OCAD_HOME", str(tmp_path))
    return folder


def ocad(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ocad", *arguments], capture_output=True, text=True, check=False)


def test_the_catalogue_lists_every_set() -> None:
    assert [source.name for source in list_data()] == NAMES
    assert all(source.path.is_absolute() for source in list_data())
    assert all(source.description and source.source and source.licence for source in list_data())


def test_the_default_data_is_the_recorded_trace() -> None:
    frame = read_frame(find_data("udp_echo"), ["udp_echo"])
    assert frame.counts.rows >= 36_000
    assert (frame.counts.duplicates, frame.counts.unsorted, frame.counts.zoneless) == (0, 0, 0)
    assert 0 < frame.data["label"].mean() <= 0.1
    assert frame.counts.missing["udp_echo"] > 0
    assert find_data("udp_echo").unit_of("udp_echo") == "µs"


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "rows", "endpoints", "metrics"),
    [
        ("ripe_rtt", 306_031, 35, ["udp_echo"]),
        ("cicv5g", 238_667, 76, ["udp_echo", "velocity", "sinr", "rsrp"]),
        ("cicv5g_urban", 206_206, 45, ["udp_echo", "velocity", "sinr", "rsrp"]),
        ("tsn_bridge", 3_000, 3, ["ecpri"]),
        ("nab", 365_509, 58, ["value"]),
        ("smd", 142_158, 3, [f"m{i}" for i in range(38)]),
    ],
)
def test_a_shared_series_reads(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str, rows: int, endpoints: int, metrics: list[str]
) -> None:
    monkeypatch.setenv("OCAD_SHARED_DATA", str(shared_data))
    frame = read_frame(find_data(name))
    assert (frame.counts.rows, frame.counts.endpoints, list(frame.metrics)) == (rows, endpoints, metrics)


@pytest.mark.shared_data
def test_units_are_converted(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_SHARED_DATA", str(shared_data))
    quiet = read_frame(find_data("tsn_bridge:nocross"), ["ecpri"]).data
    assert quiet["ecpri"].median() == pytest.approx(4.55)
    assert read_frame(find_data("skab:valve1/0.csv")).counts.unlabelled == 0


@pytest.mark.shared_data
def test_endpoints_are_chosen_by_pattern(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_SHARED_DATA", str(shared_data))
    two = read_frame(find_data("ripe_rtt:11119,1113*"))
    assert two.data["endpoint"].unique().tolist() == ["11119", "11134"]
    urban, chosen = read_frame(find_data("cicv5g_urban")), read_frame(find_data("cicv5g:*Urban*"))
    pd.testing.assert_frame_equal(urban.data, chosen.data)
    assert find_data("cicv5g:*Urban*").name == "cicv5g:*Urban*", "the name finds the same rows again"


@pytest.mark.shared_data
def test_click_tables_are_described(shared_data: Path) -> None:
    for name, rows, tables in (("adult", 32_561, 2), ("open_bandit", 10_000, 6), ("ml_latest_small", 100_004, 3)):
        shown = json.loads(ocad("data", "show", name, "--json").stdout)
        assert (shown["rows"], len(shown["tables"])) == (rows, tables)


def test_show_counts_what_is_odd(tmp_path: Path) -> None:
    times = pd.to_datetime([0, 1, 1, 3, 2, 20], unit="s", utc=True)
    rows = pd.DataFrame({"timestamp": times, "lbm": [1, 2, 3, None, 5, 6], "label": [0, 0, 0, 1, 0, 0]})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    shown = json.loads(ocad("data", "show", str(tmp_path / "rows.csv"), "--json").stdout)
    counts = ("rows", "duplicates", "unsorted", "gaps", "zoneless", "labelled", "step_s")
    assert [shown[key] for key in counts] == [5, 1, 1, 1, 0, 1, 1.0]
    assert (shown["start"], shown["end"]) == ("1970-01-01T00:00:00+00:00", "1970-01-01T00:00:20+00:00")
    expected = {"name": "lbm", "unit": "µs", "missing": 1, "min": 1.0, "p50": 3.5, "p95": 5.85, "max": 6.0}
    assert shown["metrics"] == [pytest.approx(expected)]
    text = ocad("data", "show", str(tmp_path / "rows.csv")).stdout
    assert ["duplicates", "1"] in [line.split() for line in text.splitlines()]


def test_list_says_what_is_not_here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "far.yaml").write_text("path: ${OCAD_SHARED_DATA}/far.parquet\ncolumns:\n  lbm: rtt\n")
    monkeypatch.setenv("OCAD_SHARED_DATA", "/nowhere")
    result = ocad("data", "list", "--json")
    expected = {"name": "far", "kind": "timeseries", "metrics": ["lbm"], "description": ""}
    where = {"path": "/nowhere/far.parquet", "missing": "there is no file `/nowhere/far.parquet`"}
    assert json.loads(result.stdout) == [{**expected, **where}]


def test_a_path_is_taken_from_the_project(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "near.yaml").write_text("path: data/near.csv\nfiles: {test: data/test.csv}\n")
    source = find_data("near")
    assert source.path == home.parents[1] / "data" / "near.csv"
    assert source.files["test"] == home.parents[1] / "data" / "test.csv"
    monkeypatch.delenv("OCAD_HOME")
    (home.parents[1] / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(home.parents[1] / "deep" / "er")
    assert project_root() == home.parents[1]
    monkeypatch.chdir("/")
    assert project_root() == ROOT


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("udp_ech", "unknown data `udp_ech`: did you mean `udp_echo`? (or give a .parquet or .csv file)"),
        ("udp_echo:a*", "data `udp_echo` has no endpoints to choose from: write it without `:a*`"),
    ],
)
def test_a_wrong_reference_says_what_to_write(reference: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        find_data(reference)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: x.csv\nendpont: site\n", "unknown key `endpont` in the catalogue's `{path}`: did you mean `endpoint`?"),
        ("endpoint: site\n", "bad value for `path` in the catalogue's `{path}`: field required: correct it"),
        (
            "path: x.csv\nstep_s: 0\n",
            "bad value for `step_s` in the catalogue's `{path}`: input should be greater than 0: correct it",
        ),
    ],
)
def test_a_wrong_entry_is_named(home: Path, text: str, message: str) -> None:
    path = home / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        find_data("odd")
    assert str(error.value) == message.format(path=path)


def test_an_entry_that_is_no_mapping_is_named(home: Path) -> None:
    (home / "odd.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match=r"cannot read the catalogue's .*: correct the YAML"):
        list_data()
