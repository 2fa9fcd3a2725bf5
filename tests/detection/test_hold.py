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


def by_rule(scores: list[float], k: int, n: int, m: int, rest: int = 0) -> list[bool]:
    """The rule with on 2, instant 3, off 1, written as a reader would say it."""
    alarms: list[bool] = []
    begun = start = 0
    armed = True
    for row, score in enumerate(scores):

        def quiet(rows: int, row: int = row, start: int = start) -> bool:
            return row - start >= rows and all(one < 1 for one in scores[row - rows + 1 : row + 1])

        if (alarms and alarms[-1]) or not armed:
            alarms.append(alarms[-1] and not quiet(m))
            armed = not alarms[-1] and quiet(max(m, rest))
            begun = row + 1
        else:
            window = scores[max(begun, row - n + 1) : row + 1]
            starts = score >= 3 or (score >= 2 and sum(one >= 2 for one in window) >= k)
            alarms.append(starts)
            start, armed = row, not starts
    return alarms


@settings(deadline=None)
@given(SCORES, st.integers(1, 12), st.integers(0, 4), st.integers(1, 4), st.integers(0, 9))
def test_both_forms_follow_the_rule(scores: list[float], k: int, more: int, m: int, rest: int) -> None:
    expected = by_rule(scores, k, k + more, m, rest)
    one_by_one = Hold(2.0, 3.0, k, k + more, 1.0, m, rest)
    assert [one_by_one.step(score) for score in scores] == expected
    assert Hold(2.0, 3.0, k, k + more, 1.0, m, rest).run(scores).tolist() == expected


def test_an_endpoint_that_flaps_is_told_of_once() -> None:
    scores = [9.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 9.0]
    chosen = (2.0, 3.0, 1, 1, 1.0, 2)
    assert np.flatnonzero(Hold(*chosen).run(scores)).tolist() == [0, 1, 3, 4, 8]
    assert np.flatnonzero(Hold(*chosen, rest=4).run(scores)).tolist() == [0, 1, 8]


@settings(deadline=None)
@given(
    SCORES,
    st.lists(st.integers(0, 80), max_size=4),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_pieces_and_a_restored_state_change_nothing(
    scores: list[float], cuts: list[int], k: int, more: int, m: int, rest: int
) -> None:
    chosen = (2.0, 3.0, k, k + more, 1.0, m, rest)
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
