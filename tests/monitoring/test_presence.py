"""Endpoints that fall silent: in rhythms, in frames, and in streams, which agree."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocad.detection.clocks import StreamClock
from ocad.detection.incidents import Incident
from ocad.detection.presence import Presence, Rhythm, silences

SECOND = 1_000_000
START = 1_770_000_000 * SECOND
Steps = NDArray[np.int64]


def steady(count: int, step_s: float = 1.0) -> Steps:
    return np.full(count, round(step_s * SECOND))


def jittered(count: int, spread: float, seed: int = 1) -> Steps:
    """Steps of a second, each off by a share that is normal."""
    return np.round(SECOND * np.clip(np.random.default_rng(seed).normal(1, spread, count), 0.05, None)).astype(np.int64)


def irregular(count: int, seed: int = 1) -> Steps:
    """Rows as they happen to come: exponential steps."""
    return np.maximum(1, np.random.default_rng(seed).exponential(SECOND, count)).astype(np.int64)


def lossy(count: int, share: float, seed: int = 1) -> Steps:
    """A row a second, of which `share` never arrive."""
    kept = np.flatnonzero(np.random.default_rng(seed).random(count) >= share)
    return np.diff(kept) * SECOND


def bursty(count: int) -> Steps:
    """Ten rows a second apart, then a minute of nothing."""
    return np.where(np.arange(count) % 10 == 9, 60, 1) * SECOND


def frame_of(links: Mapping[str, Any]) -> pd.DataFrame:
    """Times in µs by link as a frame, sorted as `read_frame` has it."""
    parts = [
        pd.DataFrame(
            {"timestamp": pd.to_datetime(np.asarray(times), unit="us", utc=True), "endpoint": name, "lbm": 1.0}
        )
        for name, times in links.items()
    ]
    data = pd.concat(parts, ignore_index=True)
    data["timestamp"] = data["timestamp"].dt.as_unit("us")
    return data


def times_of(steps: Steps, start: int = START) -> NDArray[np.int64]:
    return start + np.concatenate([[0], np.cumsum(steps)])


def found_in(links: dict[str, Any], fitted: dict[str, float] | None = None) -> list[tuple[str, float, float | None]]:
    """Endpoint, start and end in seconds of each silence."""
    told = silences(frame_of(links), ("lbm",), fitted or {})
    return [
        (one.endpoint, (one.start_us - START) / SECOND, None if one.end_us is None else (one.end_us - START) / SECOND)
        for one, _ in told
    ]


@pytest.mark.parametrize(
    "steps",
    [steady(5000), jittered(5000, 0.05), jittered(5000, 0.3), irregular(20_000), lossy(20_000, 0.03),
     lossy(20_000, 0.1), steady(5000, 60), steady(5000, 0.001)],
    ids=["steady", "jitter", "more jitter", "irregular", "3 % lost", "10 % lost", "a minute", "a millisecond"],
)  # fmt: skip
@pytest.mark.parametrize("fitted", [None, 1.0, 0.3])
def test_what_is_usual_is_no_silence(steps: Steps, fitted: float | None) -> None:
    known = {"a": fitted * float(np.median(steps))} if fitted else {}
    assert found_in({"a": times_of(steps)}, known) == []


def test_pauses_that_come_again_and_again_are_told_once() -> None:
    assert found_in({"a": times_of(bursty(3000))}) == [("a", 9, 69)]


@pytest.mark.parametrize("step_s", [0.1, 1.0, 60.0])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.1])
def test_a_silence_is_plain_within_three_rhythms(step_s: float, spread: float) -> None:
    rhythm = Rhythm()
    for step in jittered(500, spread):
        rhythm.add(round(step * step_s))
    assert 2.1 * step_s * SECOND < rhythm.allowance_us <= 3 * step_s * SECOND


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({"a": [*range(20), *range(50, 80)]}, [("a", 19, 50)]),
        ({"a": [*range(20), *range(21, 40)]}, []),
        ({"a": [*range(20), *range(22, 40)]}, [("a", 19, 22)]),
        ({"a": range(100), "b": range(60)}, [("b", 59, None)]),
        ({"a": range(100), "b": range(98)}, []),
        ({"a": range(100), "b": range(40, 97)}, [("b", 96, None)]),
        ({"a": range(100), "b": [3]}, []),
        ({"a": range(100), "b": range(5)}, []),
        ({"a": [5]}, []),
    ],
)
def test_silences_in_a_frame(links: dict[str, Sequence[int]], expected: list[tuple[str, float, float | None]]) -> None:
    assert found_in({name: [START + SECOND * second for second in times] for name, times in links.items()}) == expected


def test_a_fitted_link_needs_few_rows_to_be_missed() -> None:
    links = {"a": START + SECOND * np.arange(100), "b": START + SECOND * np.arange(5)}
    assert found_in(links, {"b": 1.0 * SECOND}) == [("b", 4, None)]


def test_a_silence_says_who_and_since_when() -> None:
    one, told = next(silences(frame_of({"a": START + SECOND * np.r_[0:50, 90:100]}), ("lbm", "ccm"), {}))
    assert (one.kind, one.metrics, one.deviations, one.detectors, one.rows) == ("silent", ("lbm", "ccm"), {}, {}, 0)
    assert told == START + round(51.5 * SECOND)
    assert Incident.from_json(json.loads(json.dumps(one.to_json()))) == one


steps_of_a_link = st.lists(
    st.sampled_from([SECOND, SECOND, SECOND, SECOND + 50_000, SECOND - 50_000, 2 * SECOND, 7 * SECOND, 300 * SECOND]),
    min_size=1, max_size=120,
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(links=st.lists(steps_of_a_link, min_size=1, max_size=4), fitted=st.booleans(), cut=st.integers(0, 400))
def test_a_stream_tells_what_the_frame_has_and_goes_on_from_its_state(
    links: list[list[int]], fitted: bool, cut: int
) -> None:
    """Rows in the order of time; the state is written and read once in between."""
    named = {f"link-{number}": times_of(np.array(steps)) for number, steps in enumerate(links)}
    known = {"link-0": float(SECOND)} if fitted else {}
    expected = {one.id: one for one, _ in silences(frame_of(named), ("lbm",), known)}
    rows = sorted((int(time), name) for name, times in named.items() for time in times)
    clock, presence = StreamClock(), Presence(("lbm",), known)
    told: dict[str, Incident] = {}
    for number, (time, name) in enumerate(rows):
        if number == cut:
            kept = json.loads(json.dumps([clock.state(), presence.state()]))
            clock, presence = StreamClock(), Presence(("lbm",), known)
            clock.restore(kept[0])
            presence.restore(kept[1])
        clock.take(name, time)
        assert clock.now_us == time
        told |= {one.id: one for _, one in presence.due(time)}
        if ended := presence.heard(name, time, time):
            told[ended.id] = ended
    assert told == expected


@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps=steps_of_a_link, fitted=st.sampled_from([None, 1.0 * SECOND]))
def test_a_rhythm_is_the_same_by_rows_and_by_frames(steps: list[int], fitted: float | None) -> None:
    one, whole = Rhythm(fitted), Rhythm(fitted)
    by_rows = []
    for place, step in enumerate(steps):
        if step > one.allowance_us:
            by_rows.append((place, one.allowance_us))
        one.add(step)
    by_frame = [(place, whole.allowance_us) for place in whole.odd(np.array(steps))]
    assert by_frame == by_rows
    assert json.loads(json.dumps(one.state())) == json.loads(json.dumps(whole.state()))


def test_what_a_sender_delivers_in_bursts_is_missed_once_and_then_known() -> None:
    """Rows of each second that come a minute's worth at a time."""
    presence = Presence(("lbm",), {"a": 1.0 * SECOND})
    told = 0
    for minute in range(20):
        now = START + 60 * SECOND * (minute + 1)
        told += sum(1 for _ in presence.due(now))
        for second in range(60):
            presence.heard("a", START + SECOND * (60 * minute + second), now)
    assert told <= 1


def test_memory_is_for_so_many_endpoints_and_those_that_were_fitted_go_last() -> None:
    presence = Presence(("lbm",), {"known": 1.0 * SECOND}, most=50)
    forgotten = []
    presence.heard("known", START, START)
    for number in range(2000):
        now = START + number
        presence.heard(f"name-{number}", now, now)
        if gone := presence.forget_oldest(now):
            forgotten.append(gone[0])
    assert len(presence) == 50
    assert forgotten == [f"name-{number}" for number in range(1951)]
    assert presence.last_us("known") == START


def test_of_those_that_are_silent_one_that_is_forgotten_ends() -> None:
    presence = Presence(("lbm",), {"a": 1.0 * SECOND}, most=1)
    for second in range(20):
        presence.heard("a", START + SECOND * second, START + SECOND * second)
    now = START + 60 * SECOND
    assert [one.open for _, one in presence.due(now)] == [True]
    presence.heard("b", now, now)
    gone = presence.forget_oldest(now)
    assert gone is not None
    assert gone[0] == "b", "a link that was fitted is not forgotten for a stranger"
    presence.heard("a", now, now)
    assert not list(presence.due(now + SECOND))


def test_a_link_with_no_rhythm_yet_is_never_missed() -> None:
    assert math.isinf(Rhythm().allowance_us)
