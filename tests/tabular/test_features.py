"""Vocabularies, hashing, scales and times, each against a value worked out by hand or by another library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from ocad.catalogue import DataSource
from ocad.tabular.encoder import Encoder
from ocad.tabular.fitting import fit_encoder
from ocad.tabular.scalers import ScalerFit, Transform, mix
from ocad.tabular.spec import Categorical, Features, Label, Numeric, Split, Temporal, resolve
from ocad.tabular.temporal import HourlyRates, TemporalFit, hour_of, weekday_of
from ocad.tabular.vocabulary import ValueCounts, build_vocabulary, hash_integers


def encoder_of(features: Features, frame: pd.DataFrame, label: list[int] | None = None) -> Encoder:
    labels = np.asarray(label if label else [0] * len(frame), np.float32)
    return fit_encoder(features, lambda: [(pa.Table.from_pandas(frame), labels)])


def test_frequent_values_come_first_and_rare_ones_share_a_row() -> None:
    frame = pd.DataFrame({"x": ["b", "b", "b", "a", "a", "c", None]})
    encoder = encoder_of(Features(categorical=(Categorical(column="x", min_count=2),)), frame)
    assert encoder.transform(frame).ids[:, 0].tolist() == [1, 1, 1, 2, 2, 0, 3]
    assert encoder.table_rows == 4
    assert encoder.vocabularies["x"].statistics == {"values": 3, "rare_values": 1, "missing": 1}


def test_fields_lie_one_after_the_other_and_shared_ones_on_each_other() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [3, 4, 1], "c": ["x", "y", "x"]})
    columns = (Categorical(column="a"), Categorical(column="b", share="a"), Categorical(column="c"))
    encoder = encoder_of(Features(categorical=columns), frame)
    ids = encoder.transform(frame).ids
    assert [(field.name, field.group, field.offset, field.size) for field in encoder.fields] == [
        ("a", "a", 0, 5), ("b", "a", 0, 5), ("c", "c", 5, 3)
    ]  # fmt: skip
    assert ids[0, 0] == ids[2, 1]  # 1 in `a` and 1 in `b`
    assert ids[2, 0] == ids[0, 1]
    assert ids[:, 2].tolist() == [6, 7, 6]


def test_several_values_in_a_cell_take_slots() -> None:
    frame = pd.DataFrame({"g": ["a|b|c", "b", None]})
    encoder = encoder_of(Features(categorical=(Categorical(column="g", separator="|", slots=2),)), frame)
    assert [field.name for field in encoder.fields] == ["g_1", "g_2"]
    assert encoder.transform(frame).ids.tolist() == [[2, 1], [1, 3], [3, 3]]


@pytest.mark.parametrize(("values", "size"), [(15, 2), (254, 3), (300, 4), (9_000, 9)])
def test_adaptive_embedding_sizes(values: int, size: int) -> None:
    frame = pd.DataFrame({"x": range(values)})
    encoder = encoder_of(Features(categorical=(Categorical(column="x", embedding="auto"),)), frame)
    assert encoder.fields[0].embedding == size


@pytest.mark.parametrize("text", [False, True])
def test_too_many_values_are_hashed_and_the_collisions_reported(text: bool) -> None:
    values = pa.array(range(20_000)).cast(pa.string() if text else pa.int64())
    counts = ValueCounts()
    counts.add(values)
    vocabulary = build_vocabulary("x", counts, min_count=1, max_values=10_000, buckets=10_000)
    codes = vocabulary.codes(values)
    assert vocabulary.size == 10_001
    assert 1 <= codes.min() <= codes.max() <= 10_000
    rate = 1 - len(np.unique(codes)) / 20_000
    assert vocabulary.statistics["collision_rate"] == rate
    assert rate == pytest.approx(1 - (1 - np.exp(-2)) / 2, abs=0.12)  # as throwing 20,000 balls into 10,000 bins
    np.testing.assert_array_equal(vocabulary.codes(values[5:9]), codes[5:9])


def test_the_hash_of_integers_is_the_formula() -> None:
    values = np.asarray([0, 1, 123_456_789_012, -5], np.int64)
    expected = [value % (2**31 - 1) * 1_103_515_245 % (2**31 - 1) % 1000 for value in values.tolist()]
    assert hash_integers(values, 1000).tolist() == expected


@given(st.lists(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), max_size=9), min_size=1, max_size=6))
def test_moments_by_batches_are_those_of_the_whole(batches: list[list[float]]) -> None:
    fit = ScalerFit("standard")
    for batch in batches:
        fit.add(np.asarray(batch, np.float32))
    whole = np.concatenate([np.asarray(batch, np.float32) for batch in batches]).astype(np.float64)
    present = whole[~np.isnan(whole)]
    assert (fit.count, fit.missing) == (len(present), len(whole) - len(present))
    if len(present):
        scaler = fit.result("x")
        assert scaler.mean == pytest.approx(present.mean(), rel=1e-9, abs=1e-6)
        if present.std() > 1e-3:
            assert scaler.scale == pytest.approx(present.std(), rel=1e-6)


def test_scales_against_scikit_learn() -> None:
    values = np.random.default_rng(0).lognormal(1, 2, 5_000).astype(np.float32)
    wide = values.astype(np.float64)[:, None]
    references: dict[Transform, Any] = {
        "standard": StandardScaler().fit_transform(wide),
        "log": StandardScaler().fit_transform(np.log1p(wide)),
        "quantile": (QuantileTransformer(n_quantiles=101).fit_transform(wide) - 0.5) * np.sqrt(12),
    }
    for transform, reference in references.items():
        fit = ScalerFit(transform)
        fit.add(values)
        np.testing.assert_allclose(fit.result("x").apply(values), reference[:, 0], rtol=1e-4, atol=1e-5)


def test_a_missing_number_is_the_mean_and_may_be_indicated() -> None:
    frame = pd.DataFrame({"x": [1.0, 3.0, np.nan], "y": [4.0, 8.0, np.nan]})
    numeric = (Numeric(column="x", indicator=True), Numeric(column="y", transform="none"))
    encoder = encoder_of(Features(numeric=numeric), frame)
    assert encoder.numerics == ("x", "x_missing", "y")
    assert encoder.transform(frame).numerics.tolist() == [[-1, 0, 4], [1, 0, 8], [0, 1, 6]]


def test_hours_and_weekdays() -> None:
    moments = pd.to_datetime(["1970-01-01T00:30", "2024-02-29T23:59", "1969-12-31T01:00"]).as_unit("s")
    times = moments.astype("int64").to_numpy()
    assert hour_of(times).tolist() == moments.hour.tolist()
    assert weekday_of(times).tolist() == moments.day_of_week.tolist()


def test_the_historical_rate_knows_only_earlier_hours() -> None:
    day, hour = 86_400, 3_600
    fit = TemporalFit()
    fit.add(np.asarray([0, 0, hour, day]), np.asarray([1, 0, 1, 0], np.float32))
    rates = fit.rates(smoothing=2)
    got = rates.rate(np.asarray([0, hour, day, 2 * day])).tolist()
    expected = [
        0.5,  # nothing is known: one half
        1.5 / 3,  # 2 rows, 1 click before; none at this hour of the day
        (1 + 2 * 2.5 / 4) / (2 + 2),  # at this hour 2 rows, 1 click, and 3 rows, 2 clicks in all
        (1 + 2 * 2.5 / 5) / (3 + 2),
    ]
    assert got == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.integers(0, 500_000), st.integers(0, 1)), min_size=1, max_size=40), st.integers(0, 500_000)
)
def test_the_historical_rate_ignores_the_present_and_the_future(rows: list[tuple[int, int]], moment: int) -> None:
    def rate(kept: list[tuple[int, int]]) -> float:
        fit = TemporalFit()
        fit.add(np.asarray([time for time, _ in kept], np.int64), np.asarray([label for _, label in kept], np.float32))
        return float(fit.rates(10).rate(np.asarray([moment]))[0])

    assert rate(rows) == rate([row for row in rows if row[0] // 3600 < moment // 3600])


def test_encoders_survive_json() -> None:
    frame = pd.DataFrame({"a": ["x", None], "n": [1.5, 2.5], "t": [0, 7_200]})
    what = Features(
        categorical=(Categorical(column="a"),),
        numeric=(Numeric(column="n", transform="quantile"),),
        temporal=(Temporal(column="t", parts=("hour", "weekday", "recency", "historical_ctr")),),
    )
    encoder = encoder_of(what, frame, [0, 1])
    again = Encoder.from_json(encoder.to_json())
    np.testing.assert_array_equal(again.transform(frame).ids, encoder.transform(frame).ids)
    np.testing.assert_array_equal(again.transform(frame).numerics, encoder.transform(frame).numerics)
    assert isinstance(again.times["t"].rates, HourlyRates)


def test_auto_takes_columns_by_their_type() -> None:
    kinds = {"click": "int64", "timestamp": "int64", "word": "large_string", "count": "int32", "share": "float32"}
    kinds |= {"when": "date32", "true_probability": "float64", "leak": "int8"}
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in kinds.items()])
    source = DataSource(name="log", path=Path("log.parquet"), time_unit="ms")
    what = resolve(Features(auto=True, label=Label(column="click"), drop=("leak",)), Split(), schema, source).features
    assert [item.column for item in what.categorical] == ["word", "count"]
    assert [item.column for item in what.numeric] == ["share"]
    assert what.temporal == (Temporal(column="timestamp", unit="ms"),)


def test_mixing_is_uniform_and_another_for_another_seed() -> None:
    numbers = np.arange(100_000, dtype=np.uint64)
    counts = np.bincount((mix(numbers, 3) >> np.uint64(56)).astype(np.int64), minlength=256)
    assert np.square(counts - 100_000 / 256).sum() / (100_000 / 256) < 350  # chi-square, 255 degrees of freedom
    assert len(np.intersect1d(mix(numbers, 3), mix(numbers, 4))) == 0
