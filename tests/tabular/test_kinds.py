"""A column's kind is decided once and kept: what stands beside a row in its file never changes what the row means."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tabular.conftest import Prepare, log_frame

from ocad.catalogue import Column, DataSource, find_data
from ocad.clicks.config import ClickConfig
from ocad.config import load_config
from ocad.errors import ConfigError, DataError
from ocad.progress import SilentProgress
from ocad.tabular.encoder import Encoder
from ocad.tabular.fitting import fit_encoder
from ocad.tabular.kinds import KindFit
from ocad.tabular.prepare import load_encoder, prepare
from ocad.tabular.settings import PrepareConfig
from ocad.tabular.sources import Log
from ocad.tabular.spec import Categorical, DataSettings, Features, Label, Numeric, Split

AUTO = Features(auto=True)


def log_of(path: Path, **columns: list[Any]) -> Path:
    """A CSV of 300 rows: a label, and `columns` again and again."""
    rows = {name: [values[row % len(values)] for row in range(300)] for name, values in columns.items()}
    pd.DataFrame({"label": [int(row % 3 == 0) for row in range(300)], **rows}).to_csv(path, index=False)
    return path


def ids_of(encoder: Encoder, path: Path) -> list[list[int]]:
    log = Log(find_data(str(path)), path, encoder.features, kinds=encoder.kinds)
    return [row for table in log.tables(encoder.columns) for row in encoder.transform(table).ids.tolist()]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2", ""], "int64"),
        (["1", "NA"], "int64"),
        (["007", "012"], "string"),
        (["1", "x"], "string"),
        (["1", "2.5"], "double"),
        (["1e5", "3"], "double"),
        (["1e5", "2A"], "string"),
        (["True", "False", ""], "bool"),
        (["True", "unknown"], "string"),
        (["2024-01-05", "2024-01-06T10:00:00Z"], "timestamp[us, tz=UTC]"),
        (["12:30:00"], "string"),
        (["12000000000000000000", "1"], "string"),
        (["007", "1.5"], "string"),
        (["NA", ""], "string"),
        (["", ""], "null"),
    ],
)
def test_the_kind_of_cells(cells: list[str], kind: str) -> None:
    for batches in ([cells], [[cell] for cell in cells], [[cell] for cell in reversed(cells)]):
        fit = KindFit()
        for batch in batches:
            fit.add(pa.array(batch))
        assert str(fit.type) == kind


@pytest.mark.parametrize(
    ("trained", "asked"),
    [
        (["01234", "1050A", "90210"], ["01234", "90210"]),
        (["True", "False", "unknown"], ["True", "False"]),
        (["True", "False", "unknown"], ["unknown", "True"]),
        (["1e5", "2A", "3"], ["1e5", "3"]),
        (["NA", "US", "null"], ["NA", "null"]),
        (["007", "012"], ["007", "012"]),
        (["7", "12"], ["7", "12"]),
        (["2024-01-05", "later"], ["2024-01-05"]),
        (["1.0", "b"], ["1.0"]),
    ],
)
def test_the_same_row_whatever_stands_beside_it(
    prepared: Prepare, tmp_path: Path, trained: list[str], asked: list[str]
) -> None:
    data = prepared(log_of(tmp_path / "train.csv", code=trained), Features(categorical=(Categorical(column="code"),)))
    encoder = load_encoder(data.splits["train"].parent)
    ids_of(encoder, log_of(tmp_path / "all.csv", code=trained))
    whole = dict(zip(trained, ids_of(encoder, log_of(tmp_path / "all.csv", code=trained)), strict=False))
    alone = dict(zip(asked, ids_of(encoder, log_of(tmp_path / "some.csv", code=asked)), strict=False))
    assert alone == {value: whole[value] for value in asked}
    assert all(ids != [0] for ids in alone.values())
    assert sum(encoder.unseen.values()) == 0


@given(
    st.lists(st.sampled_from(["7", "007", "True", "NA", "1e5", "a", "2024-01-05", "1.0"]), min_size=1, max_size=8),
    st.data(),
)
def test_any_part_of_a_file_means_what_the_whole_means(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("kinds")
    path = log_of(folder / "all.csv", code=words)
    log = Log(find_data(str(path)), path, AUTO)
    features = Features(categorical=(Categorical(column="code"),), text=("code",))
    table = next(log.tables(["code"]))
    encoder = fit_encoder(features, lambda: [(table, np.zeros(len(table), np.float32))])
    word = data.draw(st.sampled_from(words))
    alone = log_of(folder / "one.csv", code=[word])
    assert ids_of(encoder, alone)[0] == ids_of(encoder, path)[words.index(word)]


def test_test_rows_whose_file_looks_otherwise_are_known(prepared: Prepare, tmp_path: Path) -> None:
    train = log_of(tmp_path / "train.csv", item=["007", "012", "A1"])
    test = log_of(tmp_path / "test.csv", item=["007", "012"])
    data = prepared(train, AUTO, data={"test": test})
    assert data.statistics["unseen"]["test"] == {"item": 0}


def test_a_part_that_training_knows_nothing_of_is_said(
    prepared: Prepare, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = log_of(tmp_path / "test.csv", item=["x", "y"])
    prepared(log_of(tmp_path / "train.csv", item=["a", "b"]), AUTO, data={"test": test})
    assert "no test row has a value of `item` that training had" in caplog.text


def test_kinds_are_stated_by_features_or_by_the_catalogue(prepared: Prepare, tmp_path: Path) -> None:
    path = log_of(tmp_path / "log.csv", code=["1", "2"])
    told = prepared(path, Features(auto=True, text=("code",)))
    assert load_encoder(told.splits["train"].parent).kinds["code"] == "text"
    source = DataSource(name="log", path=path, kind="clicks", columns={"code": Column(name="code", kind="text")})
    folder = tmp_path / "stated"
    prepare(source, AUTO, Split(), DataSettings(), seed=1, folder=folder, progress=SilentProgress())
    assert load_encoder(folder).kinds["code"] == "text"


def test_one_odd_value_is_counted_and_refuses_no_other_row(prepared: Prepare) -> None:
    data = prepared(log_frame())
    encoder = load_encoder(data.splits["train"].parent)
    rows = log_frame(50).astype({"user": object, "age": object, "bid": object, "time": object})
    expected = encoder.transform(rows)
    rows.loc[7, ["user", "age", "bid", "time"]] = ["anna", "old", "inf", "noon"]
    encoder.unseen = dict.fromkeys(encoder.unseen, 0)
    found = encoder.transform(rows)
    others = [row for row in range(50) if row != 7]
    np.testing.assert_array_equal(found.ids[others], expected.ids[others])
    np.testing.assert_array_equal(found.numerics[others], expected.numerics[others])
    assert np.isfinite(found.numerics).all()
    assert encoder.odd == {"time": 1, "age": 1, "bid": 1}
    assert encoder.unseen["user"] == 1


def test_a_column_of_another_kind_altogether_is_refused_by_name(prepared: Prepare) -> None:
    encoder = load_encoder(prepared(log_frame()).splits["train"].parent)
    with pytest.raises(DataError, match="column `age` does not hold numbers"):
        encoder.transform(log_frame(20).assign(age="old"))


def test_an_encoder_without_kinds_reads_as_its_vocabularies_say(prepared: Prepare) -> None:
    encoder = load_encoder(prepared(log_frame()).splits["train"].parent)
    value = encoder.to_json()
    del value["kinds"]
    old = Encoder.from_json(json.loads(json.dumps(value)))
    frame = log_frame(40, seed=3)
    np.testing.assert_array_equal(old.transform(frame).ids, encoder.transform(frame).ids)
    texts = frame.assign(user=frame["user"].astype(str))
    np.testing.assert_array_equal(old.transform(texts).ids, encoder.transform(frame).ids)


TYPES = {
    "string_view": pa.array(["a", "b"]).cast(pa.string_view()),
    "large_string": pa.array(["a", "b"], pa.large_string()),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "large dictionary": pa.array(["a", "b"], pa.large_string()).dictionary_encode(),
    "binary": pa.array([b"a", b"b"]),
    "binary_view": pa.array([b"a", b"b"]).cast(pa.binary_view()),
    "fixed binary": pa.array([b"a", b"b"], pa.binary(1)),
    "uint64": pa.array([12_000_000_000_000_000_000, 4_000_000_000_000_000_000], pa.uint64()),
    "bool": pa.array([True, False]),
    "int8": pa.array([1, 2], pa.int8()),
}


@pytest.mark.parametrize("kind", TYPES)
def test_auto_uses_every_spelling_of_text_and_ids(prepared: Prepare, tmp_path: Path, kind: str) -> None:
    column = (
        pa.concat_arrays([TYPES[kind]] * 150) if "dictionary" not in kind else TYPES[kind].take(pa.array([0, 1] * 150))
    )
    table = pa.table({"label": [int(row % 3 == 0) for row in range(300)], "x": column})
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    data = prepared(tmp_path / "log.parquet", AUTO)
    assert data.statistics["vocabularies"]["x"]["values"] == 2
    assert data.statistics["unused"] == {}


UNUSED = {
    "when": (pd.Timestamp("2024-01-01"), "times; list it under `features.temporal`"),
    "clock": (pd.Timestamp("2024-01-01 10:00").time(), "times of day; list it under `features.categorical`"),
    "parts": ([1, 2], "list<element: int64>, which no feature is made of"),
    "void": (None, "empty"),
    "gone": (np.nan, "no value in the training rows"),
    "conversion": (1, "known only after the click, or to the simulator"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_auto_names_what_it_does_not_use_and_why(
    prepared: Prepare, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    value, reason = UNUSED[name]
    with caplog.at_level(logging.WARNING, "ocad.data"):
        data = prepared(log_frame().assign(**{name: pd.Series([value] * 400)}), AUTO)
    assert data.statistics["unused"] == {name: reason}
    assert f"`{name}` ({reason})" in caplog.text


def test_an_index_without_a_name_is_no_feature_and_one_with_a_name_is(prepared: Prepare, tmp_path: Path) -> None:
    frame = log_frame()
    frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "plain.parquet")
    data = prepared(tmp_path / "plain.parquet", AUTO)
    assert data.statistics["unused"] == {"__index_level_0__": "an index without a name"}
    frame.set_index(["site", "user"]).to_parquet(tmp_path / "named.parquet")
    data = prepared(tmp_path / "named.parquet", Features(categorical=(Categorical(column="site"),)))
    assert data.statistics["vocabularies"]["site"]["values"] == 4


@pytest.mark.parametrize("labels", [["0", "1"], ["1.0", "0"], ["True", "False"], ["true", "false"]])
def test_a_label_that_is_text(prepared: Prepare, labels: list[str]) -> None:
    frame = log_frame()
    texts = frame.assign(label=[labels[value] for value in frame["label"]])
    only = Features(categorical=(Categorical(column="site"),))
    assert prepared(texts, only).splits["train"].read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_empty_label_is_no_label_whatever_is_a_click(tmp_path: Path, prepared: Prepare, suffix: str) -> None:
    clicks = Features(categorical=(Categorical(column="site"),), label=Label(positive="yes"))
    frame = log_frame().assign(label=lambda rows: rows["label"].map({0: "no", 1: " yes "}))
    assert prepared(frame, clicks).statistics["click_rate"]["train"] == pytest.approx(0.3, abs=0.1)
    frame.loc[7, "label"] = None
    path = tmp_path / f"log{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    with pytest.raises(DataError, match="label `label` is missing in row 7: remove the row"):
        prepared(path, clicks)


def test_two_rules_for_a_click_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"bad value for `features.label` in `--set`: `at_least` and `positive` both"):
        load_config(ClickConfig, None, ["features.label={positive: '1', at_least: 1}"])


DIALECTS: dict[str, tuple[str, str]] = {
    "semicolons and decimal commas": ("label;city;x\n{}", "utf-8"),
    "tabs": ("label\tcity\tx\n{}", "utf-8"),
    "a mark of byte order": ("label,city,x\n{}", "utf-8-sig"),
    "UTF-16": ("label,city,x\n{}", "utf-16"),
    "UTF-16 without its mark": ("label,city,x\n{}", "utf-16-le"),
    "UTF-16 the other way round": ("label,city,x\n{}", "utf-16-be"),
    "UTF-32": ("label,city,x\n{}", "utf-32"),
    "Western European": ("label,city,x\n{}", "cp1252"),
    "Excel's own mark": ("sep=;\nlabel;city;x\n{}", "utf-8"),
    "quoted line breaks": ('label,"city",x\n{}', "utf-8"),
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("packed", [False, True])
def test_csv_as_people_have_it(tmp_path: Path, name: str, packed: bool) -> None:
    head, encoding = DIALECTS[name]
    mark = next(mark for mark in ";\t," if mark in head)
    city = '"Köln\nDeutz"' if name == "quoted line breaks" else "Köln"
    decimal = "," if name.startswith("semicolons") else "."
    lines = [mark.join([str(row % 2), city, f"{row}{decimal}5"]) for row in range(30)]
    content = head.format("\n".join(lines)).encode(encoding)
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    log = Log(find_data(str(path)), path, Features())
    assert [str(field.type) for field in log.schema] == ["int64", "string", "double"]
    (table,) = log.tables(["x", "city"])
    assert table.column("x").to_pylist()[:2] == ["0.5", "1.5"]
    assert set(table.column("city").to_pylist()) == {city.strip('"')}


def test_bytes_that_no_encoding_has_are_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"label,city\n1,M\x81nchen\n")
    with pytest.raises(DataError, match=r"cannot read `.*log.csv` \(.*\): name the file's `encoding`"):
        Log(find_data(str(tmp_path / "log.csv")), tmp_path / "log.csv", Features())


def test_rows_of_another_width_are_bad_lines(tmp_path: Path, prepared: Prepare) -> None:
    path = log_of(tmp_path / "log.csv", site=["a", "b"])
    path.write_text(path.read_text() + "1,a,too many\n0\n")
    with pytest.raises(DataError, match=r"row 302 of `.*log.csv` has 3 cells where the header has 2: `1,a,too many`"):
        prepared(path, AUTO)
    data = prepared(path, AUTO, data={"max_bad_lines": 2})
    assert data.statistics["bad_lines"] == {"train": 2}
    assert sum(data.rows.values()) == 300


def test_two_columns_of_one_name_are_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("label,x,x\n1,2,3\n")
    with pytest.raises(DataError, match=r"`.*log.csv` has two columns named `x`: rename one of them"):
        find_data(str(tmp_path / "log.csv"))


def test_keys_of_a_join_are_compared_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from ocad.tabular.spec import Join

    (tmp_path / "log.csv").write_text("label,item\n1,007\n0,12\n")
    (tmp_path / "items.csv").write_text("item,genre\n007,war\n12,love\n")
    source = DataSource(name="log", path=tmp_path / "log.csv", files={"items": tmp_path / "items.csv"})
    what = Features(joins=(Join(file="items", on="item"),))
    (table,) = Log(source, source.path, what).tables(["genre"])
    assert table.to_pydict() == {"genre": ["war", "love"]}
    (tmp_path / "items.csv").write_text("item,genre\n9,war\n")
    assert list(Log(source, source.path, what).tables(["genre"]))
    assert "no row of the log has a `item` that stands in it" in caplog.text


def test_libsvm_begins_at_zero_and_keeps_the_layout_of_training(tmp_path: Path) -> None:
    (tmp_path / "log.libsvm").write_text("1 qid:3 0:0.5 4:2 # a comment\n# another\n0 qid:4 1:1\n")
    log = Log(find_data(str(tmp_path / "log.libsvm")), tmp_path / "log.libsvm", Features())
    assert log.schema.names == ["label", "qid", "x0", "x1", "x2", "x3", "x4"]
    (table,) = log.tables(["qid", "x0", "x4"])
    assert table.to_pydict() == {"qid": [3, 4], "x0": [0.5, 0], "x4": [2, 0]}
    (tmp_path / "short.libsvm").write_text("1 1:1\n0 2:1\n")
    short = Log(
        find_data(str(tmp_path / "short.libsvm")),
        tmp_path / "short.libsvm",
        Features(),
        kinds={"x0": "number", "x4": "number"},
    )
    (table,) = short.tables(["x0", "x1", "x4"])
    assert table.to_pydict() == {"x0": [0, 0], "x1": [1, 0], "x4": [0, 0]}


def test_a_mark_of_byte_order_is_no_part_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "log.libsvm").write_text("1 1:0.5\n0 1:1\n", encoding="utf-8-sig")
    (table,) = Log(find_data(str(tmp_path / "log.libsvm")), tmp_path / "log.libsvm", Features()).tables(["label", "x1"])
    assert table.to_pydict() == {"label": [1, 0], "x1": [0.5, 1]}


def test_a_query_that_is_the_group_is_no_feature_and_no_news(
    tmp_path: Path, prepared: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"{row % 2} qid:{row // 10} 1:{row % 7}.5 2:{row % 3}" for row in range(300)]
    (tmp_path / "log.libsvm").write_text("\n".join(lines))
    data = prepared(tmp_path / "log.libsvm", Features(auto=True, group="qid"))
    assert (list(data.statistics["numerics"]), data.statistics["unused"]) == (["x1", "x2"], {})
    assert "qid" not in caplog.text


@pytest.mark.parametrize(
    ("written", "auto"),
    [
        (["features.drop=[user]"], True),
        (["features.label.positive=yes", "features.text=[site]"], True),
        (["features.group=user"], True),
        (["features.auto=false", "features.drop=[user]"], False),
        (["features.categorical=[{column: site}]"], False),
        (["features.temporal=[{column: time}]", "features.auto=true"], True),
    ],
)
def test_auto_stays_on_until_a_feature_is_named(written: list[str], auto: bool) -> None:
    assert load_config(PrepareConfig, None, written).features.auto is auto
    assert load_config(ClickConfig, None, written).features.auto is auto


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 3:0.5 3:0.75", "line 1 of .* does not parse: `1 3:0.5 3:0.75`"),
        ("1 2:3:0.5", "has libFFM's form `field:index:value`"),
        ("1 age:3", "has names where indexes belong"),
        ("1 1:" + "9" * 5000, "line 1 of .* does not parse"),
        ("1 " + "9" * 5000 + ":1", "has no line|line 1 of .* does not parse"),
    ],
)
def test_a_line_that_no_libsvm_file_has(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "log.libsvm"
    path.write_text(f"{line}\n1 1:0.5\n")
    with pytest.raises(DataError, match=message):
        list(Log(find_data(str(path)), path, Features()).tables(["label"]))


@pytest.mark.parametrize("content", [b"1:3\t" + b"9" * 5000, b"1:3\t4000000000", b"1:\xff\t2", b"9" * 5000 + b":3\t1"])
def test_a_feature_index_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "featindex.txt").write_bytes(content + b"\n")
    (tmp_path / "log.yzx").write_text("1 5 1:1\n")
    with pytest.raises(DataError, match=r"featindex\.txt"):
        Log(find_data(str(tmp_path / "log.yzx")), tmp_path / "log.yzx", Features())


def test_a_feature_index_with_a_high_index_takes_no_memory_for_it(tmp_path: Path) -> None:
    (tmp_path / "featindex.txt").write_text("1:3\t999999999\n")
    (tmp_path / "log.yzx").write_text("1 5 999999999:1\n")
    log = Log(find_data(str(tmp_path / "log.yzx")), tmp_path / "log.yzx", Features())
    assert next(log.tables(["weekday"])).to_pydict() == {"weekday": ["3"]}


def test_numbers_that_are_listed_are_read_from_text(prepared: Prepare) -> None:
    frame = log_frame()
    listed = Features(numeric=(Numeric(column="age"),), label=Label())
    assert prepared(frame, listed).splits["train"].read_bytes() == (
        prepared(frame.assign(age=frame["age"].map(lambda age: None if np.isnan(age) else repr(age))), listed)
        .splits["train"]
        .read_bytes()
    )
