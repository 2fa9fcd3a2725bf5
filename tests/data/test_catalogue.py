"""The catalogue: names, files, selections, and that every set of it can be read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from ocad.catalogue import find_data, list_data
from ocad.cli.main import cli
from ocad.errors import ConfigError, DataError, UsageError
from ocad.project import project_root
from ocad.tabular.sources import Log
from ocad.tabular.spec import Features
from ocad.times import Clock
from ocad.timeseries.frame import read_frame
from ocad.timeseries.labels import put_labels, read_incidents
from ocad.yamls import load_yaml

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
    "oran_testbed_2",
    "oran_testbed_3",
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
    first, *others = json.loads(result.stdout)
    assert first == {**expected, **where}
    assert [source["name"] for source in others] == NAMES, "the built-in sets stay beside one's own"


def test_a_path_is_taken_from_the_project(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "near.yaml").write_text("path: data/near.csv\nfiles: {test: data/test.csv}\n")
    source = find_data("near")
    assert source.path == home.parents[1] / "data" / "near.csv"
    assert source.files["test"] == home.parents[1] / "data" / "test.csv"
    monkeypatch.delenv("OCAD_HOME")
    (home.parents[1] / ".ocad").touch()
    (home.parents[1] / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(home.parents[1] / "deep" / "er")
    assert project_root() == home.parents[1]
    monkeypatch.chdir("/")
    assert project_root() == ROOT


@pytest.mark.parametrize(
    ("mark", "mode", "own"),
    [(None, 0o755, False), (".ocad", 0o757, False), (".ocad", 0o755, True), (".git", 0o755, True)],
)
def test_a_folder_above_is_a_project_only_with_its_mark_and_if_nobody_else_may_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str | None, mode: int, own: bool
) -> None:
    """`/tmp/configs` is anybody's: its `alerts.yaml` would say where alerts go."""
    monkeypatch.delenv("OCAD_HOME", raising=False)
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs").chmod(mode)
    if mark:
        (tmp_path / mark).touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert project_root() == (tmp_path if own else ROOT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
@pytest.mark.parametrize("place", [".", "below"])
def test_the_folder_of_somebody_else_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.delenv("OCAD_HOME", raising=False)
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / ".ocad").touch()
    (tmp_path / "below").mkdir()
    os.chown(tmp_path / "configs", 65534, 65534)
    monkeypatch.chdir(tmp_path / place)
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("where: {site: {a: b}}", "bad value for `where.site` in the catalogue's `{path}`: "),
        (
            "time_format: '%H:%M'",
            "bad value for `time_format` in the catalogue's `{path}`: the format `%H:%M` has no year",
        ),
        ("{kind: clicks, columns: {a: b}}", "bad value in the catalogue's `{path}`: the column `a` of a click log"),
    ],
)
def test_a_wrong_value_is_named_as_it_was_written(home: Path, text: str, message: str) -> None:
    path = home / "odd.yaml"
    path.write_text(text.replace("{kind", "{path: x.csv, kind") if text.startswith("{") else f"path: x.csv\n{text}\n")
    with pytest.raises(ConfigError) as error:
        find_data("odd")
    assert str(error.value).startswith(message.format(path=path))


def test_an_entry_that_is_no_mapping_is_named(home: Path) -> None:
    (home / "odd.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match=r"cannot read the catalogue's .*: correct the YAML"):
        find_data("odd")


def test_a_broken_entry_breaks_only_itself(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "odd.yaml").write_text("path: a.csv\npath: b.csv\n")
    (home / "good.yaml").write_text("path: good.csv\n")
    assert [source.name for source in list_data()] == ["good", *NAMES]
    assert "the key `path` stands twice" in caplog.text
    result = ocad("data", "list", "--json")
    entry = next(row for row in json.loads(result.stdout) if row["name"] == "odd")
    assert "the key `path` stands twice" in entry["missing"]


def test_an_own_entry_takes_the_place_of_the_built_in_one(home: Path) -> None:
    (home / "adult.yaml").write_text("path: mine.csv\n")
    assert find_data("adult").path.name == "mine.csv"
    assert [source.name for source in list_data()].count("adult") == 1


OPERATOR = "Time;Link;RTT (ms);Loss %;Note\n20.10.2026 00:00:00;007;1,5;0,5;x\n20.10.2026 00:00:01;NA;2,5;100;y\n"


def test_somebody_elses_csv_is_mapped_on_the_command_line(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text(OPERATOR)
    options = [
        "--time",
        "Time",
        "--endpoint",
        "Link",
        "--time-format",
        "%d.%m.%Y %H:%M:%S",
        "--time-zone",
        "Europe/Madrid",
    ]
    columns = ["--map", "udp_echo=RTT (ms) [ms]", "--map", "ccm=Loss % [%]"]
    shown = json.loads(ocad("data", "show", str(path), *options, *columns, "--json").stdout)
    assert shown["endpoint_names"] == ["007", "NA"]
    assert [(metric["name"], metric["min"], metric["max"]) for metric in shown["metrics"]] == [
        ("udp_echo", 1500.0, 2500.0),
        ("ccm", 0.005, 1.0),
    ]
    assert shown["start"] == "2026-10-19T22:00:00+00:00"
    pd.testing.assert_frame_equal(
        read_frame(find_data(shown["name"])).data, read_frame(find_data(shown["name"] + ":*")).data
    )


def test_describe_writes_the_entry_that_reads_the_file(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text(OPERATOR)
    answer = json.loads(ocad("data", "describe", str(path), "--name", "mine", "--write", "--json").stdout)
    assert answer["path"] == str(home / "mine.yaml")
    frame = read_frame(find_data("mine"))
    assert frame.metrics == ("udp_echo", "ccm")
    assert frame.data["endpoint"].tolist() == ["007", "NA"]
    assert frame.data["udp_echo"].tolist() == [1500.0, 2500.0]
    again = ocad("data", "describe", str(path), "--name", "mine", "--write")
    assert again.returncode == 1
    assert "exists" in again.stderr


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("udp_echo?when=t", "the data reference has the unknown key `when`"),
        ("udp_echo?time_zone=Mars", "there is no time zone `Mars`"),
        ("udp_echo?map.udp_echo=rtt [kg]", "is measured in `µs`, not `kg`"),
    ],
)
def test_a_mapping_that_does_not_fit_is_named(reference: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        find_data(reference)


CLICKS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "a label and no times": ("log.csv\nlabel,code,age\n1,007,1.5\n0,012,2\n", [], {"code": "text", "age": "number"}),
    "a click and times": (
        "log.csv\nclick;seen;price\n1;2026-01-01T00:00:00Z;1,5\n0;2026-01-01T00:00:01Z;2,5\n",
        [],
        {"seen": "time", "price": "number"},
    ),
    "as it is said": (
        "log.csv\ntimestamp,user,price,label\n2026-01-01,7,1,1\n2026-01-02,8,2,0\n",
        ["--kind", "clicks"],
        {"timestamp": "time", "user": "whole", "price": "whole"},
    ),
    "libsvm": ("log.libsvm\n1 1:0.5\n0 1:1\n", [], {"x1": "number"}),
}


@pytest.mark.parametrize("name", CLICKS)
def test_describe_lists_the_kinds_of_a_click_log(tmp_path: Path, home: Path, name: str) -> None:
    written, options, kinds = CLICKS[name]
    file, _, text = written.partition("\n")
    (tmp_path / file).write_text(text)
    run = CliRunner().invoke(cli, ["data", "describe", str(tmp_path / file), "--name", "mine", "--write", *options])
    assert run.exception is None
    entry = load_yaml((home / "mine.yaml").read_text())
    assert {column: value["kind"] for column, value in entry["columns"].items()} == kinds
    assert (entry["kind"], entry["label"]) == ("clicks", "click" if "click" in text else "label")
    assert entry["timestamp"] == next((column for column, kind in kinds.items() if kind == "time"), None)
    source = find_data("mine")
    assert (source.kind, source.kinds) == ("clicks", kinds)
    assert Log(source, source.path, Features()).count_rows() == 2


@pytest.mark.parametrize("name", ["rows.csv", "rows.txt"])
def test_describe_finds_counts_with_decimal_commas_in_a_file_of_any_name(tmp_path: Path, home: Path, name: str) -> None:
    (tmp_path / name).write_text("t;rtt\n1775000000,5;1,5\n1775000001,5;2,5\n")
    run = CliRunner().invoke(cli, ["data", "describe", str(tmp_path / name), "--name", "mine", "--write"])
    assert run.exception is None
    frame = read_frame(find_data("mine"))
    assert frame.data["timestamp"].astype("int64").tolist() == [1_775_000_000_500_000, 1_775_000_001_500_000]
    assert frame.data["udp_echo"].tolist() == [1.5, 2.5]


def test_describe_says_why_a_table_is_neither(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    for options, message in (
        ([], "has no column of times"),
        (["--kind", "clicks"], "has no column `label` or `click`"),
    ):
        run = CliRunner().invoke(cli, ["data", "describe", str(tmp_path / "log.csv"), *options])
        assert message in str(run.exception)


def test_show_takes_a_click_log(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("label,site\n1,a\n0,b\n")
    shown = json.loads(ocad("data", "show", str(tmp_path / "log.csv"), "--json").stdout)
    assert (shown["kind"], shown["rows"]) == ("clicks", 2)


INCIDENTS = "link,from,to,kind\na,2026-01-01T00:00:01Z,2026-01-01T00:00:02Z,loss\n"


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    times = [f"2026-01-01 00:00:0{second}" for second in range(4)]
    rows = pd.DataFrame({"timestamp": times * 2, "endpoint": ["a"] * 4 + ["b"] * 4, "lbm": range(8)})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "rows.csv"


def test_incidents_of_a_list_become_labels(series: Path) -> None:
    (series.parent / "list.csv").write_text(INCIDENTS)
    answer = json.loads(
        ocad("data", "label", "rows.csv", "--incidents", "list.csv", "--out", "l.parquet", "--json").stdout
    )
    assert (answer["rows"], answer["labelled"]) == (8, 2)
    assert answer["incidents"] == [{"line": 1, "link": "a", "kind": "loss", "rows": 2}]
    rows = pd.read_parquet(series.parent / "l.parquet")
    assert rows["label"].tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert rows["kind"].tolist() == ["", "loss", "loss", "", "", "", "", ""]


def test_a_list_without_zones_is_read_in_the_zone_of_the_data(series: Path) -> None:
    (series.parent / "list.csv").write_text("link,from,to\nb,2026-01-01 00:00:01,2026-01-01 00:00:02\n")
    zone = ("--time-zone", "Europe/Madrid", "--out", "l.parquet", "--json")
    answer = json.loads(ocad("data", "label", "rows.csv", "--incidents", "list.csv", *zone).stdout)
    assert answer["labelled"] == 2


def test_a_list_is_read_in_the_format_of_the_data_or_as_iso_8601(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("link,from,to\na,01.10.2026 00:00:01,2026-10-01T00:00:02Z\n")
    (one,) = read_incidents(path, Clock(format="%d.%m.%Y %H:%M:%S"))
    assert (one.start_us, one.end_us) == (1_790_812_801_000_000, 1_790_812_802_000_000)


def test_predictions_are_a_parquet_file_by_name() -> None:
    run = CliRunner().invoke(cli, ["predict", "m", "--data", "rows.csv", "--output", "p.csv"])
    assert str(run.exception) == "`--output` names `p.csv`: predictions are a parquet file: end its name in `.parquet`"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "c,2026-01-01T00:00:01Z,2026-01-01T00:00:02Z",
            "incident 1 names the link `c`, which data `rows.csv` does not have",
        ),
        ("a,2026-01-01T00:00:02Z,2026-01-01T00:00:01Z", "incident 1 in `list.csv` ends before it begins"),
        ("a,2027-01-01T00:00:02Z,2027-01-01T00:00:03Z", "incident 1 lies outside the times of `a`"),
        ("a,2026-01-01T00:00:01.2Z,2026-01-01T00:00:01.3Z", "incident 1 lies between two rows"),
        ("a,noon,2026-01-01T00:00:01Z", "`from` of incident 1 in `list.csv` is `noon`, not a time"),
    ],
)
def test_a_list_that_does_not_fit_is_named(series: Path, line: str, message: str) -> None:
    (series.parent / "list.csv").write_text(f"link,from,to\n{line}\n")
    source = find_data("rows.csv")
    data = read_frame(source).data
    with pytest.raises(DataError, match=re.escape(message)):
        put_labels(source, data, read_incidents(Path("list.csv"), Clock()))
