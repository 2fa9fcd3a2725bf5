"""Files and streams read the same row alike: one table of cells, read as CSV, as parquet and as a line of JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.catalogue import DataSource, find_data
from ocad.errors import DataError
from ocad.times import Clock, TimeError
from ocad.timeseries.frame import read_frame
from ocad.timeseries.rows import RowReader

USUAL = "2026-04-01T00:00:00Z"
MADRID = {"time_zone": "Europe/Madrid"}
READ: list[tuple[Any, Any, Any, dict[str, Any]]] = [
    (USUAL, "north", 400, {}),
    (USUAL, "007", 400.5, {}),
    (USUAL, "NA", "400", {}),
    (USUAL, "null", "1e3", {}),
    (USUAL, "True", ".5", {}),
    (USUAL, "1e5", "+5", {}),
    ("2026-04-01 00:00:00", "a", 1, {}),
    ("2026-04-01 00:00:00", "a", 1, MADRID),
    ("2026-03-29 02:30:00", "a", 1, MADRID),
    ("2026-10-25 02:30:00", "a", 1, MADRID),
    ("2026-W14-3T00:00:00Z", "a", 1, {}),
    ("2026-04-01T00:00:00,5Z", "a", 1, {}),
    ("2026-04-01T00:00:00+02", "a", 1, {}),
    ("2026-04-01 00:00:00 +02:00", "a", 1, {}),
    ("2026-04-01T00:00:00.1234567Z", "a", 1, {}),
    ("20260401T000000Z", "a", 1, {}),
    ("2026-04-01", "a", 1, {}),
    ("1775000000", "a", 1, {"time_unit": "s"}),
    ("1775000000123", "a", 1, {"time_unit": "ms"}),
    ("1775000000.25", "a", 1, {"time_unit": "s"}),
    ("1775000000,25", "a", 1, {"time_unit": "s"}),
    ("01.04.2026 00:00:00", "a", 1, {"time_format": "%d.%m.%Y %H:%M:%S"}),
    ("01.04.2026 00:00:00.123456", "a", 1, {"time_format": "%d.%m.%Y %H:%M:%S.%f"}),
]
GERMAN = {"time_format": "%d.%m.%Y"}
REFUSED: list[tuple[Any, ...]] = [
    ("now", "a", 1, GERMAN),
    (" Today", "a", 1, GERMAN),
    ("01.04.2026 00:00:00.1234567", "a", 1, {"time_format": "%d.%m.%Y %H:%M:%S.%f"}),
    (2**64 - 1, "a", 1, {"time_unit": "s"}),
    (USUAL, "a", "\u0661\u0662"),
    ("0001-01-01T00:00:00Z", "a", 1),
    ("9999-01-01T00:00:00Z", "a", 1),
    ("2026-02-30T00:00:00Z", "a", 1),
    ("noon", "a", 1),
    ("1775000000", "a", 1),
    ("", "a", 1),
    (USUAL, "a", "fast"),
    (USUAL, "a", "inf"),
    (USUAL, "a", "9" * 5000),
]


def of_stream(time: Any, endpoint: Any, value: Any, options: dict[str, Any]) -> tuple[str, int, list[float]]:
    line = json.dumps({"timestamp": time, "endpoint": endpoint, "lbm": value})
    return RowReader.of(["lbm"], DataSource(name="s", path=Path("s"), **options)).read(json.loads(line))


def of_file(path: Path, options: dict[str, Any]) -> tuple[str, int, list[float]]:
    source = find_data(str(path)).model_copy(update=options)
    row = read_frame(source, ["lbm"], varying=False).data.iloc[0]
    return row["endpoint"], int(row["timestamp"].value // 1000), [row["lbm"]]


@pytest.mark.parametrize(("time", "endpoint", "value", "options"), READ, ids=[f"{row[0]} {row[1]}" for row in READ])
def test_a_row_is_read_alike(tmp_path: Path, time: Any, endpoint: Any, value: Any, options: dict[str, Any]) -> None:
    expected = of_stream(time, endpoint, value, options)
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"rows{suffix}"
        rows = pd.DataFrame({"timestamp": [time], "endpoint": [endpoint], "lbm": [value]})
        rows.to_csv(path, index=False, sep=";") if suffix == ".csv" else rows.to_parquet(path)
        assert of_file(path, options) == expected


@pytest.mark.parametrize("row", REFUSED, ids=[str(row[:1] + row[2:])[:40] for row in REFUSED])
def test_a_row_is_refused_alike(tmp_path: Path, row: tuple[Any, ...]) -> None:
    time, endpoint, value, options = (*row, {}) if len(row) == 3 else row
    with pytest.raises(DataError):
        of_stream(time, endpoint, value, options)
    rows = pd.DataFrame({"timestamp": [time], "endpoint": [endpoint], "lbm": [value]})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    rows.to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.parquet"):
        with pytest.raises(DataError):
            of_file(tmp_path / name, options)


def test_a_decimal_is_a_count_since_1970(tmp_path: Path) -> None:
    rows = {"timestamp": [Decimal("1775000000.25")], "endpoint": ["a"], "lbm": [1.0]}
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    assert of_file(tmp_path / "rows.parquet", {"time_unit": "s"})[1] == 1_775_000_000_250_000


@pytest.mark.parametrize("names", [[["a", "b"]], [{"name": "a"}]], ids=["a list", "a mapping"])
def test_several_values_name_no_endpoint(tmp_path: Path, names: list[Any]) -> None:
    with pytest.raises(DataError, match="`endpoint` is no text"):
        of_stream(USUAL, names[0], 1, {})
    pd.DataFrame({"timestamp": [USUAL], "endpoint": names, "lbm": [1]}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"column `endpoint` holds .*, which names nothing"):
        of_file(tmp_path / "rows.parquet", {})


@pytest.mark.parametrize("text", ["%q", "%s", "%-d.%m.%Y", "%H:%M:%S", "%d.%m.", "%"])
def test_a_format_that_tells_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="format"):
        DataSource(name="s", path=Path("s"), time_format=text)


@pytest.mark.parametrize(
    ("sent", "name"),
    [(0, "0"), (7.0, "7"), (7.5, "7.5"), (None, ""), ("", ""), ("0", "0"), (True, "true"), ("7.0", "7.0")],
)
def test_an_endpoint_is_text_never_missing_by_its_spelling(tmp_path: Path, sent: Any, name: str) -> None:
    assert of_stream(USUAL, sent, 1, {})[0] == name
    pd.DataFrame({"timestamp": [USUAL], "endpoint": [sent], "lbm": [1]}).to_parquet(tmp_path / "rows.parquet")
    assert of_file(tmp_path / "rows.parquet", {})[0] == name


def test_half_a_surrogate_is_no_endpoint() -> None:
    with pytest.raises(DataError, match="`endpoint` is no text"):
        of_stream(USUAL, "cell-\udcb2", 1, {})


def test_the_doubled_hour_is_told_apart_by_the_order_of_each_endpoint() -> None:
    local = [f"2026-10-25 {hour}:{minute:02}:00" for hour in ("01", "02", "02", "03") for minute in range(0, 60, 10)]
    endpoints = [name for _ in local for name in ("a", "b")]
    texts = [text for text in local for _ in "ab"]
    one, many = Clock(zone="Europe/Madrid"), Clock(zone="Europe/Madrid")
    moments = many.read_column(pa.array(texts), endpoints)
    assert [one.read(text, name) for text, name in zip(texts, endpoints, strict=True)] == moments.tolist()
    steps = set((moments[2::2] - moments[:-2:2]).tolist())
    assert steps == {600_000_000}, "twenty-four rows ten minutes apart, across the hour that is there twice"
    assert (many.doubled, many.skipped) == (24, 0)


@given(
    st.datetimes(datetime(1901, 1, 1), datetime(2199, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    st.sampled_from("T "),
)
def test_any_time_means_itself_one_by_one_and_in_a_column(
    when: datetime, minutes: int, spec: str, between: str
) -> None:
    when = when.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = when.isoformat(between, spec)
    expected = (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert Clock().read(text) == expected
    assert Clock().read_column(pa.array([text])).tolist() == [expected]


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_a_reason_in_both(text: str) -> None:
    try:
        one: int | str = Clock().read(text)
    except TimeError as error:
        one = error.reason
    moments, reasons = Clock().try_column(pa.array([text]))
    assert reasons.get(0, int(moments[0])) == one
