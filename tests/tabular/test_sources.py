"""Every format gives the same rows; lines that do not parse are counted with their number."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.tabular.conftest import Prepare, log_frame

from ocad.catalogue import DataSource, find_data
from ocad.errors import DataError
from ocad.tabular import text
from ocad.tabular.sources import Log
from ocad.tabular.spec import Categorical, Features, Join, Numeric

FEATINDEX = "truncate\t0\n1:other\t1\n1:3\t2\n8:other\t3\n8:1.2.3.*\t4\n26:other\t5\n26:cars\t6\n26:food\t7\n"


def read(path: Path, features: Features | None = None, max_bad_lines: int = 0) -> pd.DataFrame:
    log = Log(find_data(str(path)), path, features or Features(), max_bad_lines)
    frame: pd.DataFrame = pa.concat_tables(log.tables(log.schema.names)).to_pandas()
    return frame


def test_parquet_and_csv_prepare_alike(prepared: Prepare, tmp_path: Path) -> None:
    frame = log_frame(2_000)
    frame.to_csv(tmp_path / "log.csv", index=False)
    from_parquet, from_csv = prepared(frame), prepared(tmp_path / "log.csv")
    for part, path in from_parquet.splits.items():
        assert path.read_bytes() == from_csv.splits[part].read_bytes()


def test_a_csv_of_numbers_that_begin_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocad.tables.CSV_BLOCK_BYTES", 1_000)
    rows = pd.DataFrame({"label": 0, "x": ["1"] * 2_000 + ["1.5"]})
    rows.to_csv(tmp_path / "log.csv", index=False)
    log = Log(find_data(str(tmp_path / "log.csv")), tmp_path / "log.csv", Features())
    assert log.schema.field("x").type == pa.float64(), "the kind comes from all rows"
    assert read(tmp_path / "log.csv", Features(numeric=(Numeric(column="x"),)))["x"].iloc[-1] == "1.5"


def test_a_campaign_is_read_through_its_feature_index(tmp_path: Path) -> None:
    (tmp_path / "featindex.txt").write_text(FEATINDEX)
    (tmp_path / "train.yzx.txt").write_text("0 23 0:1 2:1 4:1 6:1 7:1\n1 5.5 0:1 1:1 3:1 5:1\n\n")
    (tmp_path / "test.yzx.txt").write_text("0 1 0:1 4:1\n")
    source = find_data(str(tmp_path))
    assert (source.kind, source.label, source.files) == ("clicks", "click", {"test": tmp_path / "test.yzx.txt"})
    rows = read(source.path)
    assert rows["click"].tolist() == [0, 1]
    assert rows["paid_price"].tolist() == [23, 5.5]
    assert rows["weekday"].tolist() == ["3", "other"]
    assert rows["IP"].tolist() == ["1.2.3.*", "other"]
    assert rows["usertag"].tolist() == ["cars,food", "other"]
    assert rows["creative"].isna().all()


def test_without_an_index_features_are_told_apart_by_place(tmp_path: Path) -> None:
    places = " ".join(f"{place * 10}:1" for place in range(17))
    (tmp_path / "log.yzx").write_text(f"1 7 {places} 901:1 902:1\n0 8 {places} 903:1\n")
    rows = read(tmp_path / "log.yzx")
    assert rows["weekday"].tolist() == ["10", "10"]
    assert rows["slotprice"].tolist() == ["160", "160"]
    assert rows["usertag"].tolist() == ["901,902", "903"]


@pytest.mark.parametrize("bad", ["2 5 0:1", "0 5", "0 x 0:1", "0 5 0:2", "0 5 a:1", "0 5 99:1", "\xff\xfe", "0"])
def test_a_yzx_line_that_does_not_parse(tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str) -> None:
    (tmp_path / "featindex.txt").write_text(FEATINDEX)
    path = tmp_path / "log.yzx"
    path.write_bytes(f"0 1 0:1 2:1\n0 1 0:1 2:1\n{bad}\n1 1 0:1 2:1\n".encode("latin-1"))
    shown = bad if bad.isascii() else r"\xff\xfe"
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == (
        f"line 3 of `{path}` does not parse: `{shown}`: "
        "correct it, or allow more with `--max-bad-lines` (`data.max_bad_lines`)"
    )
    assert len(read(path, max_bad_lines=1)) == 3
    assert caplog.messages == [f"`{path}`: 1 lines do not parse, left out; the first is 3"]


def test_one_bad_line_too_many_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", 64)
    path = tmp_path / "log.libsvm"
    lines = ["1 3:1 4:1"] * 40
    lines[10] = lines[20] = lines[30] = "1 three:1"
    path.write_text("\n".join(lines))
    assert len(read(path, max_bad_lines=3)) == 37
    with pytest.raises(DataError, match=r"line 31 of `.*` does not parse and only 2 may be left out: `1 three:1`"):
        read(path, max_bad_lines=2)


def test_bad_lines_are_counted_in_the_statistics(prepared: Prepare, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = [
        f"{generator.integers(0, 2)} {generator.integers(0, 9)}:1 {generator.integers(9, 20)}:1" for _ in range(300)
    ]
    lines[7] = "what is this"
    (tmp_path / "log.libfm").write_text("\n".join(lines))
    data = prepared(tmp_path / "log.libfm", Features(auto=True), data={"max_bad_lines": 5})
    assert data.statistics["bad_lines"] == {"train": 1}
    assert sum(data.rows.values()) == 299


def test_libfm_ids_are_columns_by_place_and_numbers_by_index(tmp_path: Path) -> None:
    ids, numbers = tmp_path / "ids.libfm", tmp_path / "numbers.svm"
    ids.write_text("-1 10:1 250:1\n+1 11:1 251:1\n1 12:1\n")
    rows = read(ids)
    assert rows["label"].tolist() == [0, 1, 1]
    assert rows["f1"].tolist() == [10, 11, 12]
    assert rows["f2"].isna().tolist() == [False, False, True]
    numbers.write_text("1 1:0.5 3:-2e1\n0 2:1\n")
    rows = read(numbers)
    assert list(rows.columns) == ["label", "x1", "x2", "x3"]
    assert rows.to_numpy().tolist() == [[1, 0.5, 0, -20], [0, 0, 1, 0]]


def test_a_libsvm_file_without_a_layout(tmp_path: Path) -> None:
    path = tmp_path / "log.svm"
    path.write_text("0\n1\n")
    with pytest.raises(DataError, match=re.escape("has no line `label index:value …`")):
        read(path)
    path.write_text("0 5000:0.5\n")
    with pytest.raises(DataError, match="has 5000 columns of numbers, at most 4096"):
        read(path)


def test_a_featindex_that_does_not_parse(tmp_path: Path) -> None:
    (tmp_path / "featindex.txt").write_text("truncate\t0\nnonsense\n")
    (tmp_path / "log.yzx").write_text("0 1 0:1\n")
    with pytest.raises(DataError, match=r"line 2 of `.*featindex.txt` does not parse: `nonsense`"):
        read(tmp_path / "log.yzx")


def test_a_join_adds_columns_by_key(tmp_path: Path) -> None:
    pd.DataFrame({"label": [0, 1, 0], "item": [2, 1, 9]}).to_parquet(tmp_path / "log.parquet")
    pd.DataFrame({"item": [1, 2], "genre": ["war", "love"], "label": [5, 5]}).to_parquet(tmp_path / "items.parquet")
    source = DataSource(name="log", path=tmp_path / "log.parquet", files={"items": tmp_path / "items.parquet"})
    what = Features(categorical=(Categorical(column="genre"),), joins=(Join(file="items", on="item"),))
    log = Log(source, source.path, what)
    (table,) = log.tables(["genre", "label"])
    assert table.to_pydict() == {"genre": ["love", "war", None], "label": [0, 1, 0]}
    with pytest.raises(DataError, match=r"`features.joins` names the column `items`, which is not there"):
        Log(source, source.path, what.model_copy(update={"joins": (Join(file="items", on="items"),)}))
