"""What a forecaster sees: the last values, never one that is missing, abnormal, or from before a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocad_residual import windows
from ocad_residual.windows import Window, whole_windows

NAN = np.nan
Floats = NDArray[np.float64]


class Recorder:
    """Forecasts the oldest value of a window and keeps every window that it sees."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.seen: list[list[float]] = []

    def forecast(self, rows: Floats) -> Floats:
        self.seen += rows.tolist()
        return np.asarray(rows)[:, 0].copy()

    def next_value(self, window: Sequence[float]) -> float:
        return float(window[0])

    def to_json(self) -> dict[str, Any]:
        return {}


def windows_of(values: Sequence[float], broken: Sequence[int] = (0,), low: float = -1e9, high: float = 1e9) -> Any:
    """The forecasts of `values`, and the windows of length 3 that they were made from."""
    recorder = Recorder(3)
    starts = np.isin(np.arange(len(values)), broken)
    forecasts = Window(3, low, high).forecast(recorder, np.asarray(values, float), starts)
    return forecasts.tolist(), recorder.seen


def test_a_stretch_begins_flat_and_a_value_never_sees_itself() -> None:
    forecasts, seen = windows_of([5, 6, 7, 8, 9])
    assert seen == [[5, 5, 5], [5, 5, 6], [5, 6, 7], [6, 7, 8]]
    assert forecasts[1:] == [5, 5, 5, 6]
    assert np.isnan(forecasts[0])


def test_a_missing_value_holds_the_last_one() -> None:
    _, seen = windows_of([NAN, 5, NAN, NAN, 8, 9])
    assert seen == [[5, 5, 5], [5, 5, 5], [5, 5, 5], [5, 5, 8]]


def test_nothing_is_known_before_the_first_value() -> None:
    forecasts, seen = windows_of([NAN, NAN])
    assert np.isnan(forecasts).all()
    assert seen == []


def test_a_gap_begins_anew() -> None:
    forecasts, seen = windows_of([1, 2, 50, 60], broken=[0, 2])
    assert seen == [[1, 1, 1], [50, 50, 50]]
    assert np.isnan(forecasts)[[0, 2]].all()


def test_abnormal_values_stop_at_the_border() -> None:
    _, seen = windows_of([99, 2, -7, 4], low=0, high=10)
    assert seen == [[10, 10, 10], [10, 10, 2], [10, 2, 0]]


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_whole_in_pieces_and_by_row_are_the_same(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "CHUNK", chunk)
    random = np.random.default_rng(0)
    values = random.normal(size=200)
    values[random.random(200) < 0.3] = NAN
    broken = random.random(200) < 0.1
    broken[0] = True
    whole, pieces, single, recorder = (Window(4, -1, 1), Window(4, -1, 1), Window(4, -1, 1), Recorder(4))
    expected = whole.forecast(recorder, values, broken)
    cuts = [1, 2, 50, 51, 199]
    split = zip(np.split(values, cuts), np.split(broken, cuts), strict=True)
    parts = [pieces.forecast(recorder, *part) for part in split]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    for value, begins, forecast in zip(values.tolist(), broken.tolist(), expected.tolist(), strict=True):
        if begins:
            single.values = []
        np.testing.assert_equal(recorder.next_value(single.values) if single.values else NAN, forecast)
        single.slide(value)
    assert single.values == whole.values == pieces.values


def test_no_rows() -> None:
    forecasts, seen = windows_of([], broken=[])
    assert (forecasts, seen) == ([], [])


def test_training_windows_are_whole() -> None:
    values = np.array([1, 2, 3, 4, NAN, 6, 7, 8, 9.0])
    broken = np.isin(np.arange(9), [0, 7])
    made = whole_windows(np.arange(9), values, broken, 2)
    assert made.sequence.tolist() == [[1, 2], [2, 3]]  # 6, 7 | 8 crosses the gap, 8, 9 has nothing after it
    assert made.target.tolist() == [3, 4]
    assert len(whole_windows(np.arange(2), values[:2], broken[:2], 5)) == 0
