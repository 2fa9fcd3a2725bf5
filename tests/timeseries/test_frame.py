"""Frames: what is put right and counted, and what is refused with which words."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.catalogue import Column, DataSource, find_data, mapped_reference
from ocad.errors import DataError, OcadError, UsageError
from ocad.timeseries.frame import Frame, read_frame

TIMES = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]


def write(folder: Path, columns: dict[str, Any], suffix: str = ".parquet") -> str:
    path = folder / f"rows{suffix}"
    rows = pd.DataFrame(columns)
    rows.to_parquet(path) if suffix == ".parquet" else rows.to_csv(path, index=False)
    return str(path)


def read(folder: Path, columns: dict[str, Any], metrics: list[str] | None = None, suffix: str = ".parquet") -> Frame:
    return read_frame(find_data(write(folder, columns, suffix)), metrics)


def test_a_column_with_some_numbers_names_the_first_other_cell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = {"timestamp": TIMES, "lbm": [1, 2, 3], "rtt": ["4", "lost", "-"], "note": ["a", "b", ""]}
    assert read(tmp_path, columns, suffix=".csv").metrics == ("lbm",)
    assert "`rtt` (`lost` in row 1 is no number), `note` (text)" in caplog.text


@pytest.mark.parametrize("metrics", [None, ["lbm"]])
def test_rows_of_another_width_are_left_out_where_that_is_allowed(
    tmp_path: Path, metrics: list[str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "".join(["timestamp,lbm\n", *(f"{time},{row}\n" for row, time in enumerate(TIMES)), "total,3,rows\n"])
    )
    with pytest.raises(DataError, match=r"row 5 of .* has 3 cells .*, or allow more with `--max-bad-lines`"):
        read_frame(find_data(str(path)), metrics)
    frame = read_frame(find_data(mapped_reference(str(path), {"max_bad_lines": 1})), metrics)
    assert frame.data["lbm"].tolist() == [0, 1, 2]
    said = "1 rows have another number of cells than the header, left out; the first is row 5"
    assert caplog.text.count(said) == 1


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_tidy_file_comes_back_as_it_is(tmp_path: Path, suffix: str) -> None:
    frame = read(tmp_path, {"timestamp": TIMES, "lbm": [1, 2, 3], "note": ["a", "b", "c"]}, suffix=suffix)
    assert list(frame.data.columns) == ["timestamp", "endpoint", "lbm"]
    assert str(frame.data["timestamp"].dtype) == "datetime64[us, UTC]"
    assert frame.data["endpoint"].tolist() == ["", "", ""]
    assert frame.data["lbm"].dtype == np.float64
    expected = {"rows": 3, "endpoints": 1, "missing": {"lbm": 0}}
    assert frame.counts.as_dict() == {**dict.fromkeys(frame.counts.as_dict(), 0), **expected}
    assert frame.metrics == ("lbm",)


def test_names_units_and_labels_are_mapped(tmp_path: Path) -> None:
    rows = {"t": [10, 20], "delay_ns": [4500, np.nan], "site": ["b", "a"], "bad": [1, None], "kept": ["x", "x"]}
    path = Path(write(tmp_path, rows))
    source = DataSource(
        name="mapped",
        path=path,
        timestamp="t",
        time_unit="s",
        endpoint="site",
        label="bad",
        columns={"ecpri": Column(name="delay_ns", factor=0.001)},
    )
    frame = read_frame(source)
    assert frame.data["endpoint"].tolist() == ["a", "b"]
    assert frame.data["ecpri"].tolist()[1] == pytest.approx(4.5)
    assert frame.data["label"].tolist() == [0, 1]
    assert frame.data["timestamp"].astype("int64").tolist() == [20_000_000, 10_000_000]
    assert (frame.counts.unlabelled, frame.counts.missing) == (1, {"ecpri": 1})


def test_gaps_are_counted_for_each_endpoint(tmp_path: Path) -> None:
    seconds = [0, 1, 2, 6, 7, 0, 10, 20, 30]
    rows = {
        "timestamp": pd.to_datetime(seconds, unit="s", utc=True),
        "endpoint": ["fast"] * 5 + ["slow"] * 4,
        "lbm": np.arange(9.0),
    }
    assert read(tmp_path, rows).counts.gaps == 1


def test_rows_without_times_are_a_step_apart(tmp_path: Path) -> None:
    path = Path(write(tmp_path, {"machine": ["a", "b", "a"], "m0": [1.0, 2.0, 3.0]}))
    frame = read_frame(DataSource(name="rows", path=path, timestamp=None, step_s=60, endpoint="machine"))
    assert frame.data["timestamp"].astype("int64").tolist() == [0, 60_000_000, 0]


def test_times_without_a_zone_are_utc_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = ["2026-01-01 00:00:00", "2026-01-01T01:00:01+01:00", "2026-01-01 00:00:02.5"]
    path = write(tmp_path, {"timestamp": times, "lbm": [1.0, 2.0, 3.0]}, ".csv")
    with caplog.at_level(logging.WARNING, "ocad.data"):
        frame = read_frame(find_data(path))
    assert frame.counts.zoneless == 2
    assert frame.data["timestamp"].dt.second.tolist() == [0, 1, 2]
    assert caplog.messages == [f"data `{path}`: 2 times without a zone, read as UTC"]


def test_zoneless_parquet_times_are_counted_too(tmp_path: Path) -> None:
    frame = read(tmp_path, {"timestamp": pd.to_datetime(["2026-01-01", "2026-01-02"]), "lbm": [1.0, 2.0]})
    assert frame.counts.zoneless == 2


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6)), min_size=1, max_size=30))
def test_any_order_is_sorted_and_any_repeat_left_out(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[str, int]]
) -> None:
    """The first row of each endpoint and time stays, no other row is lost, and the counts say what happened."""
    endpoint, seconds = [place[0] for place in places], [place[1] for place in places]
    values = np.arange(len(places), dtype=float)
    rows = {"timestamp": pd.to_datetime(seconds, unit="s", utc=True), "endpoint": endpoint, "lbm": values}
    frame = read(tmp_path_factory.mktemp("frame"), rows)
    first = {place: float(i) for i, place in reversed(list(enumerate(places)))}
    times = frame.data["timestamp"].astype("int64") // 1_000_000
    found = list(zip(frame.data["endpoint"], times, frame.data["lbm"], strict=True))
    assert found == [(*place, first[place]) for place in sorted(first)]
    assert frame.counts.duplicates == len(places) - len(first)
    one = {name: [second for where, second in places if where == name] for name in "ab"}
    backwards = sum(later < earlier for line in one.values() for earlier, later in pairwise(line))
    assert frame.counts.unsorted == backwards


REFUSED: list[tuple[str, dict[str, Any], list[str] | None, type[OcadError], str]] = [
    (
        "unknown metric",
        {"timestamp": TIMES, "udp_echo": [1.0, 2.0, 3.0]},
        ["udp_ech"],
        UsageError,
        "data `{path}` has no metric `udp_ech`: did you mean `udp_echo`?",
    ),
    (
        "text in a metric",
        {"timestamp": TIMES, "lbm": ["1", "2", "fast"]},
        ["lbm"],
        DataError,
        "column `lbm` holds `fast` in row 2, not a number: choose a numeric column",
    ),
    (
        "infinite",
        {"timestamp": TIMES, "lbm": [1.0, -np.inf, 3.0]},
        None,
        DataError,
        "column `lbm` is infinite in row 1: write a missing value as NaN",
    ),
    (
        "all NaN",
        {"timestamp": TIMES, "lbm": [np.nan] * 3},
        ["lbm"],
        DataError,
        "metric `lbm` of data `{path}` has no values: every row is NaN: choose another",
    ),
    (
        "constant",
        {"timestamp": TIMES, "lbm": [5.0, np.nan, 5.0]},
        ["lbm"],
        DataError,
        "metric `lbm` of data `{path}` is 5 in every row: a constant series cannot be standardised; choose another",
    ),
    (
        "no rows",
        {"timestamp": pd.Series([], dtype=str), "lbm": pd.Series([], dtype=float)},
        ["lbm"],
        DataError,
        "data `{path}` has no rows: write it again",
    ),
    (
        "no numbers",
        {"timestamp": TIMES, "note": ["a", "b", "c"]},
        None,
        DataError,
        "data `{path}` has no numeric column: check that it is a table of measurements",
    ),
    (
        "no times",
        {"time": TIMES, "lbm": [1.0, 2.0, 3.0]},
        ["lbm"],
        DataError,
        "data `{path}` has no column `timestamp`: did you mean `time`?",
    ),
    (
        "numbers for times",
        {"timestamp": [1, 2, 3], "lbm": [1.0, 2.0, 3.0]},
        ["lbm"],
        DataError,
        "column `timestamp` holds numbers, not times: give its `time_unit` in `configs/data/`, or write times as ISO 8601",
    ),
    (
        "text for a time",
        {"timestamp": [*TIMES[:2], "noon"], "lbm": [1.0, 2.0, 3.0]},
        ["lbm"],
        DataError,
        "column `timestamp` holds `noon` in row 2, not a time: write times as ISO 8601",
    ),
    (
        "an empty time",
        {"timestamp": [TIMES[0], None, TIMES[2]], "lbm": [1.0, 2.0, 3.0]},
        ["lbm"],
        DataError,
        "column `timestamp` has no time in row 1: remove the row",
    ),
    (
        "a label of its own kind",
        {"timestamp": TIMES, "lbm": [1.0, 2.0, 3.0], "label": [0, 2, 1]},
        ["lbm"],
        DataError,
        "label `label` is 2 in row 1: a label is 0 or 1",
    ),
]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(
    ("columns", "metrics", "kind", "message"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_bad_data_is_refused_in_these_words(
    tmp_path: Path, columns: dict[str, Any], metrics: list[str] | None, kind: type[OcadError], message: str, suffix: str
) -> None:
    path = write(tmp_path, columns, suffix)
    with pytest.raises(OcadError) as error:
        read_frame(find_data(path), metrics)
    assert type(error.value) is kind
    assert str(error.value) == message.format(path=path)


def test_a_constant_series_can_be_read_where_nothing_is_fitted(tmp_path: Path) -> None:
    path = write(tmp_path, {"timestamp": TIMES, "lbm": [5.0, 5.0, 5.0]})
    assert read_frame(find_data(path), ["lbm"], varying=False).data["lbm"].tolist() == [5.0, 5.0, 5.0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    with pytest.raises(DataError) as error:
        read_frame(find_data(str(path)))
    hint = "check the path, or set `OCAD_SHARED_DATA`"
    assert str(error.value) == f"data `{path}` is not here: there is no file `{path}`: {hint}"


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_an_empty_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    with pytest.raises(DataError) as error:
        read_frame(find_data(str(path)))
    assert str(error.value) == f"data `{path}` is empty: `{path}` has 0 bytes: write it again"


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=f"cannot read `{path}` .*: check that it is a parquet or CSV table"):
        read_frame(find_data(str(path)), ["lbm"])


def test_endpoints_that_nobody_has_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"timestamp": TIMES, "endpoint": ["a", "b", "b"], "lbm": [1.0, 2.0, 3.0]})
    assert read_frame(find_data(f"{path}:b")).counts.rows == 2
    with pytest.raises(DataError) as error:
        read_frame(find_data(f"{path}:c*,d"))
    expected = f"no row of data `{path}:c*,d` has a `endpoint` like `c*`, `d`: see `ocad data show {path}`"
    assert str(error.value) == expected


def test_a_click_table_is_no_series(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read_frame(DataSource(name="clicks", path=tmp_path, kind="clicks"))
    assert str(error.value) == "data `clicks` is a table of clicks, not a time series: see `ocad data list`"


@pytest.mark.parametrize("index", [["timestamp"], ["endpoint", "timestamp"], ["lbm"]])
def test_an_index_that_pandas_kept_is_a_column(tmp_path: Path, index: list[str]) -> None:
    rows = pd.DataFrame({"timestamp": pd.to_datetime(TIMES), "endpoint": ["a", "b", "b"], "lbm": [1.0, 2.0, 3.0]})
    rows.set_index(index).to_parquet(tmp_path / "rows.parquet")
    frame = read_frame(find_data(str(tmp_path / "rows.parquet")))
    assert frame.data["lbm"].tolist() == [1.0, 2.0, 3.0]
    assert frame.data["endpoint"].tolist() == ["a", "b", "b"]


def test_an_index_of_times_without_a_name_is_the_time(tmp_path: Path) -> None:
    rows = pd.DataFrame({"lbm": [1.0, 2.0, 3.0]}, index=pd.to_datetime(TIMES))
    rows.to_parquet(tmp_path / "rows.parquet")
    assert read_frame(find_data(str(tmp_path / "rows.parquet"))).data["timestamp"].dt.second.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("bytes_", "message"),
    [
        (
            b"timestamp,lbm\n2026-01-01T00:00:00Z,1,2\n",
            "row 2 of `.*` has 3 cells where the header has 2: `.*`: correct it, or allow more with `--max-bad-lines`$",
        ),
        ("timestamp,lbm,é\n2026-01-01T00:00:00Z,1,a\n".encode() + b"x,1,\xff\n", "line 3 of `.*` is not UTF-8"),
        (b"timestamp,lbm,lbm\n2026-01-01T00:00:00Z,1,2\n", "two columns named `lbm`"),
    ],
)
def test_a_csv_that_is_damaged_is_named(tmp_path: Path, bytes_: bytes, message: str) -> None:
    (tmp_path / "rows.csv").write_bytes(bytes_)
    with pytest.raises(DataError, match=message):
        read_frame(find_data(str(tmp_path / "rows.csv")))


def test_columns_that_are_no_metric_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = {
        "timestamp": TIMES,
        "lbm": [1, 2, 3],
        "note": ["a", "b", "c"],
        "up": [True, False, True],
        "void": [None] * 3,
    }
    assert read(tmp_path, rows).metrics == ("lbm",)
    assert "`note` (text), `up` (true or false), `void` (empty)" in caplog.text
