"""Incidents: kinds on made series, deviations in units and sigmas, row by row as by frame, bounded memory, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ocad.detection.incidents import Deviation, Incident, iso_time, time_us
from ocad.detection.kinds import Baseline, Contrast, contrast, deviations_of, likeliest_kind
from ocad.detection.tracker import BEFORE_ROWS, GUARD_ROWS, MOST_ROWS, IncidentTracker, fingerprint

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
    deviations = deviations_of(found, "shift", units)
    assert list(deviations) == ["lbm", "udp_echo"]
    echo = deviations["udp_echo"]
    assert echo.unit == "µs"
    assert echo.value == pytest.approx(450, abs=3)
    assert echo.normal == pytest.approx(400, abs=2)
    assert echo.sigmas == pytest.approx(10, rel=0.2)


def test_deviations_follow_the_kind() -> None:
    before = noise(256, 1)
    spike = {"udp_echo": contrasted(before, np.array([405.0, 300.0]), "µs")}
    assert deviations_of(spike, "spike", {"udp_echo": "µs"})["udp_echo"].value == 300.0
    wide = {"udp_echo": contrasted(before, LEVEL + 6 * (noise(200, 2) - LEVEL), "µs")}
    jitter = deviations_of(wide, "jitter", {"udp_echo": "µs"})["udp_echo"]
    assert jitter.value == pytest.approx(6 * SIGMA, rel=0.2)
    assert jitter.normal == pytest.approx(SIGMA, rel=0.2)
    lost = {"udp_echo": contrasted(before, np.full(9, np.nan), "µs")}
    silence = deviations_of(lost, "loss", {"udp_echo": "µs"})["udp_echo"]
    assert silence == Deviation(1.0, 0.0, "share", silence.sigmas)
    assert silence.sigmas == pytest.approx(np.sqrt(257))


@pytest.mark.parametrize("before", [np.empty(0), np.full(4, np.nan), np.full(200, 7.0), np.zeros(50)])
@pytest.mark.parametrize("during", [np.array([7.0]), np.array([np.nan]), np.full(30, 9.0)])
def test_numbers_are_finite_whatever_comes_before(before: Floats, during: Floats) -> None:
    found = {"m": contrasted(before, during)}
    deviation = deviations_of(found, likeliest_kind(found, len(during)), {})["m"]
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


def test_row_by_row_and_by_frame_and_in_pieces_agree() -> None:
    times, values, scores, alarms, surprises = made_rows(3_000, 4)
    hot = alarms & (scores > 3)
    whole = list(new_tracker().run("x", times, values, scores, alarms, hot, surprises))

    stepped, tracker = {}, new_tracker()
    for i in range(len(times)):
        told = tracker.observe(
            "x", int(times[i]), values[i].tolist(), scores[i], bool(alarms[i]), bool(hot[i]), surprises[i].tolist()
        )
        if told:
            stepped[told.id] = told
    assert list(stepped.values()) == whole
    assert len(whole) == 7

    pieces, tracker = {}, new_tracker()
    for first in range(0, len(times), 77):
        part = slice(first, first + 77)
        for told in tracker.run("x", times[part], values[part], scores[part], alarms[part], hot[part], surprises[part]):
            pieces[told.id] = told
        restored = new_tracker()
        restored.restore(json.loads(json.dumps(tracker.state(), allow_nan=False)))
        tracker = restored
    assert list(pieces.values()) == whole


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
    assert len(state["quiet"]["x"]["rows"]) == BEFORE_ROWS + GUARD_ROWS
    assert state["open"]["x"]["count"] == rows // 2


def test_json_has_iso_times_and_comes_back() -> None:
    times, values, scores, alarms, surprises = made_rows(900, 8)
    for incident in new_tracker().run("x", times, values, scores, alarms, alarms, surprises):
        document = json.loads(json.dumps(incident.to_json(), allow_nan=False))
        assert Incident.from_json(document) == incident
        assert set(document) == {
            "id", "endpoint", "metrics", "start", "end", "kind", "score", "detectors", "deviations", "rows",
        }  # fmt: skip
    assert iso_time(START + 5) == "2023-11-14T22:13:20.000005Z"
    assert [time_us(iso_time(moment)) for moment in (0, -1, START + 123_456)] == [0, -1, START + 123_456]
