"""Incidents: kinds on made series, deviations in units and sigmas, row by row as by frame, bounded memory, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocad.detection.incidents import Deviation, Incident, iso_time, time_us
from ocad.detection.kinds import Baseline, Contrast, contrast, deviations_of, likeliest_kind
from ocad.detection.tracker import BEFORE_ROWS, GUARD_ROWS, LOOK_BACK, IncidentTracker, fingerprint
from ocad.detection.unfolding import MOST_ROWS

Floats = NDArray[np.float64]
LEVEL, SIGMA = 400.0, 5.0
START = 1_700_000_000_000_000


def noise(rows: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(LEVEL, SIGMA, rows)


def contrasted(before: Floats, during: Floats, unit: str = "") -> Contrast:
    return contrast(Baseline.of(before, unit), during, unit)


def lossy(rows: Floats, share: float) -> Floats:
    lost = np.random.default_rng(9).random(len(rows)) < share
    return np.where(lost, np.nan, rows)


def outage(rows: Floats, length: int) -> Floats:
    return np.where(np.arange(len(rows)) < length, np.nan, rows)


SHAPES: dict[str, tuple[str, Callable[[Floats], Floats], int]] = {
    "one row": ("spike", lambda rows: rows + 60, 1),
    "three rows": ("spike", lambda rows: rows + 60, 3),
    "downwards": ("spike", lambda rows: rows - 60, 2),
    "level": ("shift", lambda rows: rows + 30, 60),
    "lower level": ("shift", lambda rows: rows - 30, 60),
    "short level": ("shift", lambda rows: rows + 40, 5),
    "noisy level": ("shift", lambda rows: LEVEL + 60 + 1.5 * (rows - LEVEL), 80),
    "slope": ("drift", lambda rows: rows + np.linspace(0, 60, len(rows)), 120),
    "slope seen late": ("drift", lambda rows: rows + np.linspace(15, 60, len(rows)), 80),
    "falling": ("drift", lambda rows: rows - np.linspace(0, 60, len(rows)), 120),
    "wide": ("jitter", lambda rows: LEVEL + 6 * (rows - LEVEL), 80),
    "wide and a little higher": ("jitter", lambda rows: LEVEL + 10 + 6 * (rows - LEVEL), 80),
    "silent": ("loss", lambda rows: np.full(len(rows), np.nan), 30),
    "silent for one row": ("loss", lambda rows: np.full(len(rows), np.nan), 1),
    "mostly lost": ("loss", lambda rows: lossy(rows, 0.7), 60),
    "a third lost": ("loss", lambda rows: lossy(rows, 0.35), 60),
    "a third lost on a slope": ("loss", lambda rows: lossy(rows + np.linspace(0, 5e5, len(rows)), 0.35), 160),
    "an outage, then a slope": ("loss", lambda rows: outage(rows + np.linspace(0, 5e5, len(rows)), 150), 1000),
    "a level with a few lost": ("shift", lambda rows: lossy(rows + 60, 0.1), 60),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_kind_of_made_series(shape: str, seed: int) -> None:
    kind, change, rows = SHAPES[shape]
    found = {"udp_echo": contrasted(noise(256, seed), change(noise(rows, seed + 100)), "µs")}
    assert likeliest_kind(found, rows) == kind


@pytest.mark.parametrize(
    ("ccm", "delay", "kind"),
    [(1.0, 0.0, "loss"), (0.3, 0.0, "loss"), (0.0, 40.0, "shift"), (0.1, 100.0, "shift"), (0.9, 100.0, "loss")],
)
def test_missed_continuity_checks_are_loss_unless_delay_dominates(ccm: float, delay: float, kind: str) -> None:
    found = {
        "udp_echo": contrasted(noise(256, 1), noise(60, 2) + delay, "µs"),
        "ccm": contrasted(np.zeros(256), np.full(60, ccm), "share"),
    }
    assert likeliest_kind(found, 60) == kind


def test_deviations_say_how_far_in_the_metrics_own_unit() -> None:
    before, units = noise(256, 1), {"udp_echo": "µs", "ccm": "share", "lbm": "µs"}
    during = {"udp_echo": noise(60, 2) + 50, "ccm": np.full(60, 0.0), "lbm": noise(60, 3) + 100}
    baseline = {"udp_echo": before, "ccm": np.zeros(256), "lbm": before}
    found = {metric: contrasted(baseline[metric], rows, units[metric]) for metric, rows in during.items()}
    deviations = deviations_of(found, "shift")
    assert list(deviations) == ["lbm", "udp_echo"]
    echo = deviations["udp_echo"]
    assert echo.unit == "µs"
    assert echo.value == pytest.approx(450, abs=3)
    assert echo.normal == pytest.approx(400, abs=2)
    assert echo.sigmas == pytest.approx(10, rel=0.2)


def test_deviations_follow_the_kind() -> None:
    before = noise(256, 1)
    spike = {"udp_echo": contrasted(before, np.array([405.0, 300.0]), "µs")}
    assert deviations_of(spike, "spike")["udp_echo"].value == 300.0
    wide = {"udp_echo": contrasted(before, LEVEL + 6 * (noise(200, 2) - LEVEL), "µs")}
    jitter = deviations_of(wide, "jitter")["udp_echo"]
    assert jitter.value == pytest.approx(6 * SIGMA, rel=0.2)
    assert jitter.normal == pytest.approx(SIGMA, rel=0.2)
    lost = {"udp_echo": contrasted(before, np.full(9, np.nan), "µs")}
    silence = deviations_of(lost, "loss")["udp_echo"]
    assert silence == Deviation(1.0, 0.0, "share", silence.sigmas, lost=9, expected=9, measure="lost")
    assert silence.sigmas == pytest.approx(np.sqrt(257))


@pytest.mark.parametrize("before", [np.empty(0), np.full(4, np.nan), np.full(200, 7.0), np.zeros(50)])
@pytest.mark.parametrize("during", [np.array([7.0]), np.array([np.nan]), np.full(30, 9.0)])
def test_numbers_are_finite_whatever_comes_before(before: Floats, during: Floats) -> None:
    found = {"m": contrasted(before, during)}
    deviation = deviations_of(found, likeliest_kind(found, len(during)))["m"]
    assert np.isfinite([deviation.value, deviation.normal, deviation.sigmas]).all()


def made_rows(rows: int, seed: int) -> tuple[NDArray[np.int64], Floats, Floats, NDArray[np.bool_], Floats]:
    """Times, two metrics, scores, alarms and surprises of two members, with several incidents."""
    generator = np.random.default_rng(seed)
    alarms = np.zeros(rows, dtype=bool)
    for start in range(300, rows - 200, 400):
        alarms[start : start + int(generator.integers(1, 120))] = True
    values = generator.normal(LEVEL, SIGMA, (rows, 2)) + 40 * alarms[:, None]
    values[generator.random((rows, 2)) < 0.02] = np.nan
    surprises = generator.exponential(0.4, (rows, 2)) + 4 * alarms[:, None]
    times = START + 1_000_000 * np.arange(rows, dtype=np.int64)
    return times, values, surprises.mean(axis=1), alarms, surprises


def new_tracker() -> IncidentTracker:
    return IncidentTracker(("a", "b"), {"a": "µs", "b": "µs"}, {"first": 3.0, "second": 4.5})


Rows = tuple[NDArray[np.int64], Floats, Floats, NDArray[np.bool_], NDArray[np.bool_], Floats]


def stepped(tracker: IncidentTracker, rows: Rows) -> Iterator[Incident]:
    times, values, scores, alarms, hot, surprises = rows
    for i in range(len(times)):
        told = tracker.observe(
            "x", int(times[i]), values[i].tolist(), scores[i], bool(alarms[i]), bool(hot[i]), surprises[i].tolist()
        )
        if told:
            yield told


def pieces(tracker: IncidentTracker, rows: Rows, cuts: list[int]) -> Iterator[Incident]:
    """Frame by frame, each by a tracker that goes on from the state of the one before."""
    times, values, scores, alarms, hot, surprises = rows
    for first, last in pairwise([0, *cuts, len(times)]):
        part = slice(first, last)
        yield from tracker.run("x", times[part], values[part], scores[part], alarms[part], hot[part], surprises[part])
        state = json.loads(json.dumps(tracker.state(), allow_nan=False))
        tracker = new_tracker()
        tracker.restore(state)


@st.composite
def rows_in_alarm(draw: st.DrawFn) -> tuple[Rows, list[int]]:
    """Quiet, hot and alarming stretches of any length, and where frames are cut."""
    lengths = draw(st.lists(st.tuples(st.integers(1, 90), st.booleans(), st.booleans()), min_size=1, max_size=14))
    alarms, hot = (np.concatenate([np.full(rows, flags[i]) for rows, *flags in lengths]) for i in (0, 1))
    source = np.random.default_rng(draw(st.integers(0, 99)))
    size = len(alarms)
    hot = hot ^ (source.random(size) < 0.1)
    values = np.round(source.normal(LEVEL, SIGMA, (size, 2)), draw(st.integers(0, 6))) + 30 * (alarms | hot)[:, None]
    values[source.random((size, 2)) < draw(st.sampled_from([0.0, 0.05, 0.5]))] = np.nan
    times = START + np.cumsum(source.integers(1, 2_000_000, size))
    rows = (times, values, source.exponential(5, size), alarms, hot, source.exponential(4, (size, 2)))
    return rows, sorted(draw(st.lists(st.integers(0, size), max_size=4)))


@given(rows_in_alarm())
@settings(max_examples=150, deadline=None)
def test_row_by_row_and_by_frame_and_in_pieces_agree(made: tuple[Rows, list[int]]) -> None:
    rows, cuts = made
    whole = list(new_tracker().run("x", *rows))
    assert list({told.id: told for told in stepped(new_tracker(), rows)}.values()) == whole
    assert list({told.id: told for told in pieces(new_tracker(), rows, cuts)}.values()) == whole
    assert [told.id for told in whole] == [fingerprint("x", told.start_us) for told in whole]
    assert all(before.end_us < after.start_us for before, after in pairwise(whole) if before.end_us is not None)


def test_long_incidents_agree_though_their_rows_are_thinned() -> None:
    times, values, scores, alarms, surprises = made_rows(6_000, 4)
    alarms[1_000:4_000] = True
    values[1_500, 0] = 9_000.0
    rows = (times, values, scores, alarms, alarms & (scores > 3), surprises)
    whole = list(new_tracker().run("x", *rows))
    assert list({told.id: told for told in stepped(new_tracker(), rows)}.values()) == whole
    assert list({told.id: told for told in pieces(new_tracker(), rows, [1_100, 1_101, 3_500])}.values()) == whole
    longest = max(whole, key=lambda incident: incident.rows)
    assert longest.deviations["a"].peak == 9_000.0
    assert longest.deviations["a"].peak_us == int(times[1_500])


HOT_BEFORE: dict[str, tuple[str, int]] = {
    "only the alarm": ("........#", 8),
    "a run": (".....xxx#", 5),
    "single quiet rows between": ("..x.x.xx#", 2),
    "a quiet row right before": ("....xxx.#", 4),
    "two quiet rows end the run": ("..xx..xx#", 6),
    "nothing before": ("#", 0),
    "not across an earlier incident": ("..xx#xx#", 5),
    "at most so many": ("x" * (LOOK_BACK + 9) + "#", 9),
}


@pytest.mark.parametrize("case", HOT_BEFORE)
def test_rows_that_led_to_the_alarm_belong_to_the_incident(case: str) -> None:
    """`.` is quiet, `x` hot, `#` in alarm."""
    shape, first = HOT_BEFORE[case]
    size = len(shape)
    alarms, hot = np.array([mark == "#" for mark in shape]), np.array([mark in "x#" for mark in shape])
    values = np.arange(2.0 * size).reshape(size, 2)
    scores: np.ndarray = np.arange(size, dtype=np.float64) + 1.0
    rows: Any = (START + np.arange(size), values, scores, alarms, hot, np.ones((size, 2)))
    incident = list(new_tracker().run("x", *rows))[-1]
    assert (incident.start_us, incident.rows) == (START + first, size - first)
    updates = [told for told in stepped(new_tracker(), rows) if told.open]
    assert updates[-1] == incident


def test_what_led_to_the_alarm_is_not_what_is_normal() -> None:
    values = np.column_stack([noise(200, 1), noise(200, 2)])
    values[160:, 0] += 500
    hot = np.arange(200) >= 160
    alarms = np.arange(200) >= 190
    [incident] = new_tracker().run("x", START + np.arange(200), values, np.ones(200), alarms, hot, np.ones((200, 2)))
    found = incident.deviations["a"]
    assert found.normal == pytest.approx(LEVEL, abs=3)
    assert found.value == pytest.approx(LEVEL + 500, abs=3)


def test_a_spike_is_told_at_its_opening_and_still_when_it_is_over() -> None:
    """5 to 48 ms for two minutes, a row every 10 s, alarmed at its third row by detectors that stay surprised for long."""
    values = np.random.default_rng(3).normal(5_000, 120, (300, 2))
    values[200:212, 0] = np.linspace(40_000, 48_000, 12)
    hot = (np.arange(300) >= 200) & (np.arange(300) < 240)
    alarms = hot & (np.arange(300) >= 202)
    rows = (START + 10_000_000 * np.arange(300), values, np.ones(300), alarms, hot, np.ones((300, 2)))
    told = list(stepped(new_tracker(), rows))
    opened, closed = told[0].deviations["a"], told[-1].deviations["a"]
    assert told[0].start_us == told[-1].start_us == int(rows[0][200])
    assert opened.value > 40_000
    assert opened.sigmas > 200
    assert (closed.peak, closed.peak_us) == (48_000, int(rows[0][211]))
    assert closed.value == pytest.approx(44_000, rel=0.05)
    assert closed.normal == pytest.approx(5_000, rel=0.02)
    assert closed.times == pytest.approx(8.8, rel=0.05)


@pytest.mark.parametrize("hot_after", [0, 40, 300])
@pytest.mark.parametrize(("lost", "rows"), [(150, 160), (9, 9), (43, 160), (150, 600)])
def test_losses_are_counted(lost: int, rows: int, hot_after: int) -> None:
    values = np.column_stack([noise(1400, 1), noise(1400, 2)])
    places = 400 + np.linspace(0, rows - 1, lost).astype(int)
    values[places, 0] = np.nan
    values[np.setdiff1d(np.arange(400, 400 + rows), places), 1] += 200
    hot = (np.arange(1400) >= 400) & (np.arange(1400) < 400 + rows + hot_after)
    [incident] = new_tracker().run("x", START + np.arange(1400), values, np.ones(1400), hot, hot, np.ones((1400, 2)))
    found = incident.deviations["a"]
    assert incident.kind == "loss"
    assert (incident.metrics[0], found.unit) == ("a", "share")
    assert (found.lost, found.expected) == (lost, rows)
    assert incident.to_json()["lost"] == lost


def test_one_far_row_of_many_is_told_and_does_not_lift_the_level() -> None:
    values = np.column_stack([noise(300, 1), noise(300, 2)])
    values[[200, 210, 220, 230, 240], 0] = [700, 800, 40 * LEVEL, 700, 800]
    values[200:250, 1] += 100
    alarms = (np.arange(300) >= 200) & (np.arange(300) < 250)
    [incident] = new_tracker().run("x", START + np.arange(300), values, np.ones(300), alarms, alarms, np.ones((300, 2)))
    found = incident.deviations["a"]
    assert incident.kind == "shift"
    assert (found.measure, found.value, found.peak) == ("peak", 40 * LEVEL, 40 * LEVEL)
    assert found.times == pytest.approx(1, abs=0.1)


def test_lost_messages_of_a_share_add_up() -> None:
    values = np.zeros((300, 1))
    values[200:240] = 0.25
    tracker, alarms = IncidentTracker(("ccm",), {"ccm": "share"}, {"one": 3.0}), np.zeros(300, bool)
    alarms[200:245] = True
    [incident] = tracker.run("x", START + np.arange(300), values, np.ones(300), alarms, alarms, np.ones((300, 1)))
    found = incident.deviations["ccm"]
    assert (incident.kind, found.value, found.lost, found.expected, found.peak) == ("loss", 0.25, 10.0, 40, 0.25)
    assert found.times is None


def test_an_incident_opens_goes_on_and_closes() -> None:
    tracker = new_tracker()
    for i, value in enumerate(noise(100, 1)):
        quiet = tracker.observe("x", START + i, [value, value], 0.1, alarm=False, hot=False, surprises=[0.1, 0.2])
        assert quiet is None
    opened = tracker.observe("x", START + 100, [LEVEL + 50, LEVEL], 5.0, alarm=True, hot=True, surprises=[9.0, 1.0])
    assert opened is not None
    assert (opened.open, opened.kind, opened.metrics, opened.rows) == (True, "spike", ("a",), 1)
    assert opened.detectors == {"first": 9.0}
    for i in range(101, 105):
        updated = tracker.observe("x", START + i, [LEVEL + 50, LEVEL], 6.0, alarm=True, hot=True, surprises=[8.0, 5.0])
    assert updated is not None
    assert (updated.id, updated.kind, updated.score) == (opened.id, "shift", 6.0)
    assert updated.detectors == {"first": 9.0, "second": 5.0}
    closed = tracker.observe("x", START + 105, [LEVEL, LEVEL], 0.0, alarm=False, hot=False, surprises=[0.0, 0.0])
    assert closed is not None
    assert (closed.id, closed.start_us, closed.end_us, closed.rows) == (opened.id, START + 100, START + 104, 5)
    assert tracker.observe("x", START + 106, [LEVEL, LEVEL], 0.0, alarm=False, hot=False, surprises=[0, 0]) is None


def test_rows_of_the_hold_downs_patience_do_not_change_the_kind() -> None:
    tracker = new_tracker()
    values = np.column_stack([noise(120, 1), noise(120, 2)])
    values[100] += 60
    alarms, hot = np.zeros(120, dtype=bool), np.zeros(120, dtype=bool)
    alarms[100:111], hot[100] = True, True
    [incident] = tracker.run("x", START + np.arange(120), values, np.ones(120), alarms, hot, np.ones((120, 2)))
    assert (incident.kind, incident.rows) == ("spike", 11)


@pytest.mark.parametrize(("kind", "rows"), [("spike", 2), ("shift", 30), ("drift", 40), ("loss", 20)])
def test_detectors_that_stay_surprised_do_not_change_the_kind(kind: str, rows: int) -> None:
    tracker = new_tracker()
    values = np.column_stack([noise(400, 1), noise(400, 2)])
    hit = slice(200, 200 + rows)
    values[hit] += np.linspace(20, 120, rows)[:, None] if kind == "drift" else {"loss": np.nan}.get(kind, 80.0)
    alarms = np.zeros(400, dtype=bool)
    alarms[200 : 200 + rows + 60] = True
    [incident] = tracker.run("x", START + np.arange(400), values, np.ones(400), alarms, alarms, np.ones((400, 2)))
    assert (incident.kind, incident.rows) == (kind, rows + 60)


def test_endpoints_are_apart() -> None:
    tracker = new_tracker()
    first = tracker.observe("x", START, [1.0, 1.0], 5.0, alarm=True, hot=True, surprises=[5.0, 5.0])
    assert tracker.observe("y", START, [1.0, 1.0], 0.0, alarm=False, hot=False, surprises=[0.0, 0.0]) is None
    second = tracker.observe("y", START + 1, [1.0, 1.0], 5.0, alarm=True, hot=True, surprises=[5.0, 5.0])
    assert first is not None
    assert second is not None
    assert first.id != second.id
    assert first.id == fingerprint("x", START)


def test_memory_is_bounded() -> None:
    tracker = new_tracker()
    rows = 40_000
    alarms = np.arange(rows) >= rows // 2
    ones = np.ones((rows, 2))
    list(tracker.run("x", START + np.arange(rows), ones, ones[:, 0], alarms, alarms, ones))
    state = tracker.state()
    assert len(state["open"]["x"]["rows"]) <= MOST_ROWS
    assert len(state["quiet"]["x"]["rows"]) == BEFORE_ROWS + GUARD_ROWS + LOOK_BACK
    assert len(state["quiet"]["x"]["recent"]) <= LOOK_BACK
    assert state["open"]["x"]["count"] == rows // 2


def test_json_has_iso_times_and_comes_back() -> None:
    times, values, scores, alarms, surprises = made_rows(900, 8)
    for incident in new_tracker().run("x", times, values, scores, alarms, alarms, surprises):
        document = json.loads(json.dumps(incident.to_json(), allow_nan=False))
        assert Incident.from_json(document) == incident
        assert set(document) == {
            "id", "endpoint", "metrics", "start", "end", "kind", "severity", "score", "detectors", "deviations", "rows",
            "peak", "peak_at", "lost", "expected",
        }  # fmt: skip
        old = {name: item for name, item in document.items() if name not in ("severity", "peak", "peak_at", "lost")}
        for deviation in old["deviations"].values():
            for name in ("peak", "peak_at", "lost", "expected", "times", "measure"):
                del deviation[name]
        assert Incident.from_json(old).deviations.keys() == incident.deviations.keys(), "as it was written before"
    assert iso_time(START + 5) == "2023-11-14T22:13:20.000005Z"
    assert [time_us(iso_time(moment)) for moment in (0, -1, START + 123_456)] == [0, -1, START + 123_456]
