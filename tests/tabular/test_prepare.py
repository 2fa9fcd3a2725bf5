"""Preparing a log: the files, the same bytes for the same seed, splits, and no statistic of a held-out row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.tabular.conftest import FEATURES, Prepare, log_frame

from ocad.catalogue import DataSource
from ocad.contexts import PreparedData
from ocad.progress import SilentProgress
from ocad.tabular.dataset import load_clicks
from ocad.tabular.prepare import FILES, load_encoder, prepare
from ocad.tabular.spec import DataSettings, Split
from ocad.tabular.splits import Shares, assigner
from ocad.times import Clock

HELD_OUT = st.fixed_dictionaries(
    {
        "label": st.integers(0, 1),
        "site": st.sampled_from(["news", "a new site", ""]),
        "user": st.integers(-5, 10**9),
        "age": st.one_of(st.none(), st.floats(-1e6, 1e6)),
        "bid": st.floats(0, 1e9),
        "time": st.integers(1, 2_000_000_000),
    }
)


def test_the_files_and_their_columns(prepared: Prepare) -> None:
    data = prepared(log_frame())
    folder = data.splits["train"].parent
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*FILES.values(), "preprocess.json", "vocab.json", "stats.json", "fingerprint.txt"]
    )
    schema = pq.read_schema(folder / "train_data.parquet")
    fields = ["site", "user", "time_hour", "time_weekday"]
    numbers = ["age", "age_missing", "bid", "time_recency", "time_historical_ctr"]
    assert schema.names == [f"id_{name}" for name in fields] + [f"num_{name}" for name in numbers] + ["label", "group"]
    assert {str(schema.field(f"id_{name}").type) for name in fields} == {"int32"}
    assert {str(schema.field(name).type) for name in schema.names if name.startswith("num_")} == {"float"}
    assert json.loads((folder / "stats.json").read_text())["rows"] == data.rows
    assert (folder / "fingerprint.txt").read_text().strip() == data.fingerprint


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(prepared: Prepare) -> None:
    first, again, other = (prepared(log_frame(), seed=seed) for seed in (7, 7, 8))
    for path in first.splits["train"].parent.iterdir():
        assert path.read_bytes() == (again.splits["train"].parent / path.name).read_bytes(), path.name
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_clicks_hold_what_the_encoder_answers(prepared: Prepare) -> None:
    frame = log_frame()
    data = prepared(frame, split=Split(kind="time", column="time"))
    encoder = load_encoder(data.splits["train"].parent)
    clicks = load_clicks(data.splits["train"])
    encoded = encoder.transform(frame.iloc[: len(clicks)])
    np.testing.assert_array_equal(clicks.ids, encoded.ids)
    np.testing.assert_array_equal(clicks.numerics, encoded.numerics)
    np.testing.assert_array_equal(clicks.label, frame["label"].iloc[: len(clicks)])
    assert clicks.group is not None
    assert clicks.ids.min() >= 0
    assert clicks.ids.max() < encoder.table_rows
    for position, field in enumerate(encoder.fields):
        assert clicks.ids[:, position].min() >= field.offset
        assert clicks.ids[:, position].max() < field.offset + field.size
    np.testing.assert_array_equal(clicks.group, frame["user"].iloc[: len(clicks)])


@given(held_out=st.lists(HELD_OUT, min_size=4, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_statistic_sees_validation_or_test(tmp_path: Path, held_out: list[dict[str, object]]) -> None:
    train = log_frame(60).assign(part="train")
    rows = pd.DataFrame(held_out).assign(
        part=["validation", "test"] * (len(held_out) // 2) + ["test"] * (len(held_out) % 2)
    )
    for part in ("validation", "test"):  # both classes in each part, or nothing is written
        rows.loc[rows.index[rows["part"] == part][:2], "label"] = [0, 1]
    alone, mixed = (
        prepare_frame(tmp_path, frame)
        for frame in (other_rows(train), pd.concat([train, rows]).sample(frac=1, random_state=1))
    )
    assert load_encoder(mixed).to_json()["vocabularies"] == load_encoder(alone).to_json()["vocabularies"]
    for name in ("preprocess.json", "vocab.json"):
        assert equal_but_for_rounding(mixed / name, alone / name)


@pytest.mark.parametrize("kind", ["random", "time", "group"])
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_statistic_sees_what_a_split_holds_out(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """What decides the part (row number, `time`, `user`) stays; everything else of held-out rows may be anything."""
    split = Split(kind=kind, validation=0.3, test=0.3, column={"time": "time", "group": "user"}.get(kind))  # type: ignore[arg-type]
    frame = log_frame(80)
    held_out = np.flatnonzero(parts_of(frame, split) > 0)
    other = frame.copy()
    for row in data.draw(st.lists(st.sampled_from(held_out.tolist()), unique=True, max_size=10)):
        values = data.draw(HELD_OUT)
        fixed = {"time": ("time",), "group": ("user",)}.get(kind, ())
        for name in ("site", "user", "age", "bid", "time"):
            if name not in fixed:
                other.loc[row, name] = values[name]  # type: ignore[call-overload]
    ours, theirs = (prepare_frame(tmp_path, one, split) for one in (frame, other.astype(frame.dtypes)))
    for name in ("preprocess.json", "vocab.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def parts_of(frame: pd.DataFrame, split: Split) -> NDArray[np.int8]:
    """The part of each row under `prepare_frame`'s seed."""
    table, shares = pa.Table.from_pandas(frame), Shares(split.validation, split.test)
    return assigner(split, split.column, shares, 1, lambda: [table], lambda: Clock("s"))(table, 0)


def other_rows(train: pd.DataFrame) -> pd.DataFrame:
    """The training rows with four plain rows to hold out."""
    rest = log_frame(4, seed=9).assign(part=["validation", "validation", "test", "test"], label=[0, 1, 0, 1])
    return pd.concat([train, rest])


def prepare_frame(tmp_path: Path, frame: pd.DataFrame, split: Split | None = None) -> Path:
    """The folder that `frame`, which says each row's part or is split otherwise, was prepared in."""
    path = tmp_path / "log.parquet"
    frame.to_parquet(path, index=False)
    folder = tmp_path / f"of{len(list(tmp_path.iterdir()))}"
    source = DataSource(name="log", path=path)
    split = split or Split(kind="given", column="part")
    prepare(source, FEATURES, split, DataSettings(), seed=1, folder=folder, progress=SilentProgress())
    return folder


def equal_but_for_rounding(first: Path, second: Path) -> bool:
    """Whether two JSON files agree; sums over rows in another order may differ in the last digits."""

    def flat(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for key, item in value.items() for leaf in (key, *flat(item))]
        return [leaf for item in value for leaf in flat(item)] if isinstance(value, list) else [value]

    ours, theirs = (flat(json.loads(path.read_text())) for path in (first, second))
    return len(ours) == len(theirs) and all(
        one == pytest.approx(other, rel=1e-9) if isinstance(one, float) else one == other
        for one, other in zip(ours, theirs, strict=True)
    )


def rates(data: PreparedData) -> dict[str, float]:
    total = sum(data.rows.values())
    return {part: rows / total for part, rows in data.rows.items()}


def test_a_random_split_has_the_shares_that_are_asked_for(prepared: Prepare) -> None:
    got = rates(prepared(log_frame(20_000), split=Split(validation=0.2, test=0.05)))
    assert got == pytest.approx({"train": 0.75, "validation": 0.2, "test": 0.05}, abs=0.01)


def test_a_split_by_time_trains_on_the_past(prepared: Prepare) -> None:
    frame = log_frame(1_000).sample(frac=1, random_state=3)
    data = prepared(frame, split=Split(kind="time", column="time"))
    assert data.rows == {"train": 800, "validation": 100, "test": 100}
    latest = np.sort(frame["time"].to_numpy())
    encoder = load_encoder(data.splits["train"].parent)
    assert encoder.times["time"].newest == latest[799]


def test_a_split_by_group_never_parts_a_group(prepared: Prepare) -> None:
    data = prepared(log_frame(3_000), split=Split(kind="group", validation=0.2, test=0.2))
    groups = [set(np.unique(load_clicks(path).group).tolist()) for path in data.splits.values()]  # type: ignore[arg-type]
    assert all(groups)
    assert sum(map(len, groups)) == len(set().union(*groups)) == 50


def test_a_file_given_for_a_part_is_that_part(prepared: Prepare, tmp_path: Path) -> None:
    log_frame(150, seed=5).to_parquet(tmp_path / "test.parquet", index=False)
    data = prepared(log_frame(1_000), data={"test": tmp_path / "test.parquet"})
    assert data.rows["test"] == 150
    assert data.rows["train"] + data.rows["validation"] == 1_000
    assert data.rows["validation"] == pytest.approx(100, abs=30)
