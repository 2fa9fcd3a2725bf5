"""Hold-down: vectorised equals row by row, in any pieces, and both equal what the rule says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.detection.hold import Hold
from ocad.errors import UsageError

SCORES = st.lists(st.sampled_from([0.0, 0.9, 1.0, 1.5, 2.0, 2.9, 3.0, 7.0]), max_size=80)


def by_rule(scores: list[float], k: int, n: int, m: int) -> list[bool]:
    """The rule with on 2, instant 3, off 1, written as a reader would say it."""
    alarms: list[bool] = []
    for row, score in enumerate(scores):
        window = scores[max(0, row - n + 1) : row + 1]
        begins = score >= 3 or (score >= 2 and sum(one >= 2 for one in window) >= k)
        newest = scores[max(0, row - m + 1) : row + 1]
        quiet = len(newest) == m and all(one < 1 for one in newest) and all(alarms[row - m + 1 :])
        alarms.append(begins or (bool(alarms) and alarms[-1] and not quiet))
    return alarms


@settings(deadline=None)
@given(SCORES, st.integers(1, 12), st.integers(0, 4), st.integers(1, 4))
def test_both_forms_follow_the_rule(scores: list[float], k: int, more: int, m: int) -> None:
    expected = by_rule(scores, k, k + more, m)
    one_by_one = Hold(2.0, 3.0, k, k + more, 1.0, m)
    assert [one_by_one.step(score) for score in scores] == expected
    assert Hold(2.0, 3.0, k, k + more, 1.0, m).run(scores).tolist() == expected


@settings(deadline=None)
@given(SCORES, st.sampled_from([(1, 1), (2, 3), (3, 5)]), st.integers(1, 4), st.floats(0.3, 1.0))
def test_lower_levels_lose_no_row_in_alarm(scores: list[float], of: tuple[int, int], m: int, factor: float) -> None:
    high = Hold(2.0, 3.0, *of, 1.0, m).run(scores)
    low = Hold(2.0 * factor, 3.0 * factor, *of, factor, m).run(scores)
    fewer = Hold(2.0, 3.0, 1, of[1], 1.0, m).run(scores)
    assert (low | ~high).all()
    assert (fewer | ~high).all()


@settings(deadline=None)
@given(
    SCORES,
    st.lists(st.integers(0, 80), max_size=4),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(1, 4),
)
def test_pieces_and_a_restored_state_change_nothing(
    scores: list[float], cuts: list[int], k: int, more: int, m: int
) -> None:
    chosen = (2.0, 3.0, k, k + more, 1.0, m)
    whole = Hold(*chosen).run(scores).tolist()
    state: dict[str, object] = {}
    pieces: list[bool] = []
    for number, piece in enumerate(np.split(np.asarray(scores), sorted(cuts))):
        hold = Hold(*chosen)
        hold.restore(json.loads(json.dumps(state)))
        pieces += [hold.step(score) for score in piece] if number % 2 else hold.run(piece).tolist()
        state = hold.state()
    assert pieces == whole


@pytest.mark.parametrize("chosen", [(1, 3, 1, 1, 2, 1), (3, 1, 1, 1, 0, 1), (2, 3, 3, 2, 1, 1), (2, 3, 1, 2, 1, 0)])
def test_settings_out_of_order_are_refused(chosen: tuple[float, float, int, int, float, int]) -> None:
    with pytest.raises(UsageError, match="they must be"):
        Hold(*chosen)
