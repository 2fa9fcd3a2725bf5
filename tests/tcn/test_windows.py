"""Windows never cross a border of any kind, and no statistic sees more than the training part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.errors import DataError
from ocad.timeseries.baselines import fit_baselines
from ocad.timeseries.scaling import SCALINGS, fit_scaling
from ocad.timeseries.windows import GAP_FACTOR, make_windows, read_windows, segment_rows, split_rows, split_windows

SHARES = (0.7, 0.15, 0.15)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Up to three endpoints with gaps and missing values; the metric counts the rows, so that a window shows its rows."""
    parts = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        steps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 9]), min_size=1, max_size=60))
        time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.cumsum(steps), unit="s")
        parts.append(pd.DataFrame({"timestamp": time, "endpoint": name}))
    frame = pd.concat(parts, ignore_index=True)
    frame["value"] = np.arange(len(frame), dtype=np.float64)
    missing = draw(st.lists(st.integers(0, len(frame) - 1), max_size=4))
    frame.loc[missing, "value"] = np.nan
    return frame


def unbroken(frame: pd.DataFrame, rows: list[int]) -> bool:
    """The definition, read row by row: one endpoint, no missing value, no step of more than 3 medians."""
    part = frame.iloc[rows]
    if part["endpoint"].nunique() > 1 or part["value"].isna().any():
        return False
    whole = frame[frame["endpoint"] == part["endpoint"].iloc[0]]
    median = whole["timestamp"].diff().median()
    return bool((part["timestamp"].diff().iloc[1:] <= GAP_FACTOR * median).all())


@settings(deadline=None, max_examples=60)
@given(frames(), st.integers(2, 5))
def test_windows_are_all_unbroken_stretches_and_no_other(frame: pd.DataFrame, length: int) -> None:
    windows = make_windows(frame, "value", length)
    firsts = [start for start in range(len(frame) - length) if unbroken(frame, list(range(start, start + length + 1)))]
    assert windows.sequence[:, 0].tolist() == firsts
    assert np.array_equal(windows.sequence, np.array(firsts)[:, None] + np.arange(length))
    assert windows.target.tolist() == [first + length for first in firsts]
    assert windows.endpoint.tolist() == frame["endpoint"].iloc[[first + length for first in firsts]].tolist()


@settings(deadline=None, max_examples=60)
@given(frames(), st.integers(0, 5))
def test_parts_are_in_time_order_and_apart(frame: pd.DataFrame, gap: int) -> None:
    part = split_rows(frame, SHARES, gap)
    for _, rows in frame.groupby("endpoint"):
        seen = part[rows.index]
        kept = seen[seen >= 0]
        assert (np.diff(kept) >= 0).all()
        for earlier, later in ((0, 1), (1, 2), (0, 2)):
            if (seen == earlier).any() and (seen == later).any():
                assert np.flatnonzero(seen == later)[0] - np.flatnonzero(seen == earlier)[-1] > gap


@settings(deadline=None, max_examples=40)
@given(frames(), st.integers(0, 3), st.integers(2, 4))
def test_no_row_is_in_windows_of_two_parts(frame: pd.DataFrame, gap: int, length: int) -> None:
    part = split_rows(frame, SHARES, gap)
    for index in range(3):
        windows = make_windows(frame, "value", length, part == index)
        used = set(windows.sequence.ravel().astype(int)) | set(windows.target.astype(int))
        assert used <= set(np.flatnonzero(part == index))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e6))
def test_statistics_never_see_validation_or_test(seed: int, size: float) -> None:
    frame = series(300, seed)
    changed = frame.copy()
    later = split_rows(frame, SHARES, 20) != 0
    changed.loc[later, "value"] = changed.loc[later, "value"] * size + size
    one, other = (split_windows(table, "value", 10, SHARES, 20)["train"] for table in (frame, changed))
    for kind in SCALINGS:
        assert fit_scaling(kind, one.target) == fit_scaling(kind, other.target)
    for before, after in zip(fit_baselines(one), fit_baselines(other), strict=True):
        assert np.array_equal(before.weights, after.weights)
        assert before.bias == after.bias


def series(rows: int, seed: int = 0) -> pd.DataFrame:
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s")
    value = 100 + np.random.default_rng(seed).normal(size=rows).cumsum()
    return pd.DataFrame({"timestamp": time, "endpoint": "", "value": value})


def test_windows_survive_the_disk(tmp_path: Path) -> None:
    windows = make_windows(series(50), "value", 10)
    windows.write(tmp_path / "deep" / "train.parquet")
    again = read_windows(tmp_path / "deep" / "train.parquet")
    for name in ("sequence", "target", "timestamp", "endpoint"):
        assert np.array_equal(getattr(windows, name), getattr(again, name)), name
    table = pd.read_parquet(tmp_path / "deep" / "train.parquet")
    assert list(table.columns) == ["timestamp", "endpoint", "sequence", "target"]
    assert table["sequence"].iloc[3].tolist() == windows.sequence[3].tolist()


def test_a_gap_is_longer_than_three_medians() -> None:
    frame = series(8)
    frame["timestamp"] = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta([0, 1, 2, 5, 6, 10, 11, 12], unit="s")
    assert segment_rows(frame).tolist() == [1, 1, 1, 1, 1, 2, 2, 2]


def test_too_few_rows_is_said() -> None:
    with pytest.raises(DataError) as caught:
        split_windows(series(40), "value", 10, SHARES, 5)
    assert str(caught.value) == (
        "too few rows of `value`: 40 rows leave no window of 10 + 1 in the validation part: "
        "give a longer series, or one with fewer gaps and missing values"
    )


def test_all_missing_is_said() -> None:
    with pytest.raises(DataError) as caught:
        split_windows(series(400).assign(value=np.nan), "value", 10, SHARES, 5)
    assert str(caught.value) == "the metric `value` has no values: all 400 rows are missing: give another metric"


def test_a_constant_training_part_is_said() -> None:
    frame = series(400)
    frame.loc[:300, "value"] = 7.5
    with pytest.raises(DataError) as caught:
        split_windows(frame, "value", 10, SHARES, 5)
    assert str(caught.value) == (
        "the metric `value` is constant (7.5) in the training part: "
        "there is nothing to learn: give another metric or a longer series"
    )
