"""What happens to incidents, as tables: each case is what the manager is told and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocad.detection.alerts import AlertManager, AlertStore
from ocad.detection.alerts.episodes import Episodes
from ocad.detection.alerts.settings import AlertSettings
from ocad.detection.incidents import iso_time

from .conftest import ManagerMaker, at, incident

Told = Callable[[], list[dict[str, Any]]]
Step = tuple[Any, ...]

QUIET: dict[str, Any] = {"severity": {"warning": {}, "critical": {}}}
"""No threshold at all: every alert stays `info`."""

CASES: dict[str, tuple[dict[str, Any], list[Step], list[tuple[float, str, str]]]] = {
    "one incident fires after the group's wait and is resolved after the hold-down": (
        QUIET,
        [("see", "a", 0), ("see", "a", 0, 50), ("tick", 500)],
        [(30, "firing", "a"), (170, "resolved", "a")],
    ),
    "the same incident again is nothing new": (
        QUIET,
        [
            ("see", "a", 0),
            ("see", "a", 0),
            ("see", "a", 0, 50),
            ("see", "a", 0, 50),
            ("tick", 500),
            ("see", "a", 0, 50),
        ],
        [(30, "firing", "a"), (170, "resolved", "a")],
    ),
    "a closed incident is closed: a replay of its beginning opens nothing": (
        QUIET,
        [("see", "a", 0, 50), ("tick", 500), ("see", "a", 0), ("tick", 900)],
        [(80, "firing", "a"), (170, "resolved", "a")],
    ),
    "an incident that is over before it is told is told nevertheless, and once": (
        QUIET | {"hold_down_s": 5},
        [("see", "a", 0), ("see", "a", 0, 2), ("tick", 500)],
        [(30, "firing", "a"), (30, "resolved", "a")],
    ),
    "endpoints that open within the wait are one notification": (
        QUIET,
        [("see", "a", 0), ("see", "b", 10), ("see", "c", 29), ("see", "d", 31), ("tick", 100)],
        [(30, "firing", "a b c"), (61, "firing", "d")],
    ),
    "a group is resolved with the last of its alerts": (
        QUIET,
        [("see", "a", 0), ("see", "b", 1), ("tick", 40), ("see", "a", 0, 50), ("see", "b", 1, 400), ("tick", 900)],
        [(30, "firing", "a b"), (520, "resolved", "a b")],
    ),
    "families are told apart": (
        QUIET,
        [("see", "a", 0), ("see", "b", 5, None, {"metrics": ("ccm",)}), ("tick", 100)],
        [(30, "firing", "a"), (35, "firing", "b")],
    ),
    "metrics of one family at one endpoint are one alert": (
        QUIET,
        [("see", "a", 0), ("see", "a", 1, None, {"metrics": ("ecpri", "lbm")}), ("tick", 100)],
        [(30, "firing", "a")],
    ),
    "without a group key everything within the wait is told together": (
        QUIET | {"group_by": []},
        [("see", "a", 0), ("see", "b", 5, None, {"metrics": ("ccm",)}), ("tick", 100)],
        [(30, "firing", "a b")],
    ),
    "grouped by endpoint, each is told alone": (
        QUIET | {"group_by": ["endpoint"]},
        [("see", "a", 0), ("see", "b", 5), ("tick", 100)],
        [(30, "firing", "a"), (35, "firing", "b")],
    ),
    "without a wait an alert fires at once": (QUIET | {"group_wait_s": 0}, [("see", "a", 7)], [(7, "firing", "a")]),
    "flapping within the hold-down is one alert": (
        QUIET,
        [step for n in range(20) for step in (("see", "a", 100 * n), ("see", "a", 100 * n, 100 * n + 10))]
        + [("tick", 9999)],
        [(30, "firing", "a"), (2030, "resolved", "a")],
    ),
    "what comes back after the hold-down is another alert": (
        QUIET,
        [("see", "a", 0, 10), ("tick", 140), ("see", "a", 141), ("tick", 200)],
        [(40, "firing", "a"), (130, "resolved", "a"), (171, "firing", "a")],
    ),
    "a long incident of no impact is a warning": (
        {},
        [("see", "a", 0), ("tick", 9000)],
        [(30, "firing", "a"), (300, "escalated", "a")],
    ),
    "a long incident of some impact becomes critical": (
        {},
        [("see", "a", 0, None, {"times": 2.0}), ("tick", 2000)],
        [(30, "firing", "a"), (1800, "escalated", "a")],
    ),
    "a growing incident escalates by its impact at once": (
        {},
        [("see", "a", 0), ("tick", 60), ("see", "a", 0, None, {"times": 3.0}), ("see", "a", 0, None, {"lost": 60.0})],
        [(30, "firing", "a"), (60, "escalated", "a"), (60, "escalated", "a")],
    ),
    "a silent endpoint is critical after a while, though nothing is measured": (
        {"stale_after_s": 900},
        [("see", "a", 0, None, {"kind": "silent"}), ("tick", 600)],
        [(30, "firing", "a"), (300, "escalated", "a")],
    ),
    "figures of evidence count where the configuration says so": (
        {"severity": {"warning": {"sigmas": 8, "seconds": None}, "critical": [{"score": 12, "seconds": 100}]}},
        [("see", "a", 0, None, {"sigmas": -9.0}), ("see", "a", 0, None, {"score": 12.5}), ("tick", 400)],
        [(30, "firing", "a"), (100, "escalated", "a")],
    ),
    "a second alert of the same severity does not escalate the group": (
        {},
        [
            *(("see", "a", 0), ("see", "b", 1), ("tick", 60), ("see", "a", 0, None, {"times": 3.0})),
            *(("tick", 70), ("see", "b", 1, None, {"times": 3.0})),
        ],
        [(30, "firing", "a b"), (60, "escalated", "a b")],
    ),
    "what is grave when it fires does not escalate to that again": (
        {},
        [("see", "a", 0, None, {"lost": 90.0}), ("tick", 5000)],
        [(30, "firing", "a")],
    ),
    "it is repeated while nobody acknowledges": (
        QUIET | {"repeat_s": 600},
        [("see", "a", 0), ("tick", 1000), ("tick", 1300)],
        [(30, "firing", "a"), (630, "firing", "a"), (1230, "firing", "a")],
    ),
    "after a silence of the data it is repeated once": (
        QUIET | {"repeat_s": 600, "stale_after_s": 100_000},
        [("see", "a", 0), ("tick", 100), ("tick", 20_000), ("tick", 20_500), ("tick", 20_600)],
        [(30, "firing", "a"), (19_830, "firing", "a"), (20_430, "firing", "a")],
    ),
    "acknowledged, it is silent until it is resolved": (
        {"repeat_s": 100},
        [("see", "a", 0), ("tick", 40), ("ack", 0), ("tick", 5000), ("see", "a", 0, 5001), ("tick", 6000)],
        [(30, "firing", "a"), (40, "acknowledged", "a"), (5121, "resolved", "a")],
    ),
    "acknowledged twice is told once": (
        QUIET,
        [("see", "a", 0), ("tick", 40), ("ack", 0), ("ack", 0), ("tick", 60)],
        [(30, "firing", "a"), (40, "acknowledged", "a")],
    ),
    "one of two acknowledged leaves the other loud": (
        QUIET | {"repeat_s": 100},
        [("see", "a", 0), ("see", "b", 1), ("tick", 40), ("ack", 0), ("tick", 140)],
        [(30, "firing", "a b"), (40, "acknowledged", "a"), (130, "firing", "b")],
    ),
    "acknowledged while it waits, it fires once and is not repeated": (
        QUIET | {"repeat_s": 100},
        [("see", "a", 0), ("ack", 0), ("tick", 900)],
        [(30, "firing", "a")],
    ),
    "resolved by hand, it is over although its detector goes on": (
        QUIET,
        [
            ("see", "a", 0),
            ("tick", 40),
            ("resolve", 0),
            ("tick", 90),
            ("see", "a", 0),
            ("see", "a", 0, 99),
            ("tick", 900),
        ],
        [(30, "firing", "a"), (40, "resolved", "a")],
    ),
    "resolved by hand, the next incident there is a new alert": (
        QUIET,
        [("see", "a", 0), ("tick", 40), ("resolve", 0), ("see", "a", 50), ("tick", 100)],
        [(30, "firing", "a"), (40, "resolved", "a"), (80, "firing", "a")],
    ),
    "time never goes back": (
        QUIET,
        [("see", "a", 0), ("tick", 40), ("tick", 10), ("see", "b", 20), ("tick", 69), ("tick", 70)],
        [(30, "firing", "a"), (70, "firing", "b")],
    ),
    "an open incident of a detector that is gone is closed where it was last seen": (
        QUIET | {"stale_after_s": 600},
        [("see", "a", 0), ("tick", 40), ("restart",), ("tick", 601), ("tick", 900)],
        [(30, "firing", "a"), (120, "resolved", "a")],
    ),
    "an open incident of a living detector may say nothing for long": (
        QUIET | {"stale_after_s": 600},
        [("see", "a", 0), ("tick", 5000), ("see", "a", 0, 5001), ("tick", 5200)],
        [(30, "firing", "a"), (5121, "resolved", "a")],
    ),
    "after a restart an incident goes on": (
        QUIET,
        [("see", "a", 0), ("tick", 40), ("restart",), ("see", "a", 0), ("see", "a", 0, 60), ("tick", 900)],
        [(30, "firing", "a"), (180, "resolved", "a")],
    ),
    "an old recording in a store with newer alerts leaves those alone": (
        QUIET,
        [("see", "a", 9000), ("tick", 9040), ("restart",), ("see", "a", 0, 10), ("tick", 400)],
        [(9030, "firing", "a"), (40, "firing", "a"), (130, "resolved", "a")],
    ),
}


IRREGULAR = {"ack", "resolve", "silence"}
"""What a person says counts from when the data's time was last stored; and a silence with ticks is none."""


def run(steps: list[Step], make: Callable[[], AlertManager], folder: Path) -> None:
    manager = make()
    for word, *values in steps:
        if word == "see":
            name, start, *rest = values
            end, changes = (*rest, None, {})[:2] if len(rest) < 2 else rest
            manager.observe(incident(name, start, end, **(changes or {})))
        elif word == "tick":
            manager.tick(at(values[0]))
        elif word == "restart":
            manager.close()
            manager = make()
        else:
            by_hand(folder, word, values[0])


def by_hand(folder: Path, word: str, index: int) -> None:
    """What a person says in another process, of the oldest alerts first."""
    store = AlertStore(folder, create=False)
    episodes = Episodes(store)
    with store.transaction():
        groups = store.rows("SELECT id FROM alerts WHERE state != 'resolved' ORDER BY opened_us")
        say = episodes.acknowledge if word == "ack" else episodes.resolve_by_hand
        assert len(say([groups[index]["id"]], "ada", "seen", store.now_us())) == 1
    store.close()


@pytest.mark.parametrize("name", CASES)
def test_what_is_told(name: str, make_manager: ManagerMaker, folder: Path, told: Told) -> None:
    settings, steps, expected = CASES[name]
    run(steps, lambda: make_manager(**settings), folder)
    answer = [(notice["at"], notice["status"], " ".join(a["endpoint"] for a in notice["alerts"])) for notice in told()]
    assert answer == [(iso_time(at(second)), status, endpoints) for second, status, endpoints in expected]


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if not IRREGULAR & {*name.split(), *(step[0] for step in case[1])}]
)
def test_it_does_not_matter_how_often_it_is_ticked(
    name: str, make_manager: ManagerMaker, folder: Path, told: Told
) -> None:
    settings, steps, expected = CASES[name]
    fine: list[Step] = []
    now = 0
    for step in steps:
        if step[0] == "tick":
            fine += [("tick", second) for second in range(now, step[1], 7)]
            now = max(now, step[1])
        fine.append(step)
    run(fine, lambda: make_manager(**settings), folder)
    assert [(notice["at"], notice["status"]) for notice in told()] == [(iso_time(at(s)), w) for s, w, _ in expected]


def test_an_alert_adds_up_its_incidents(make_manager: ManagerMaker, told: Told) -> None:
    manager = make_manager(**QUIET)
    manager.observe(incident("a", 0, 20, score=4.0, sigmas=-7.0))
    manager.observe(incident("a", 60, 90, metrics=("ecpri",), score=5.0, kind="jitter"))
    manager.tick(at(900))
    last = told()[-1]
    assert (last["start"], last["end"], last["rows"]) == (iso_time(at(0)), iso_time(at(90)), 6)
    assert (last["kind"], last["score"], last["incidents"]) == ("jitter", 5.0, 2)
    assert set(last["metrics"]) == {"udp_echo", "ecpri"}
    assert list(last["deviations"]) == ["udp_echo", "ecpri"], "the farthest first"
    assert last["detectors"] == {"rule_based-oran@1.0.0": 5.0, "residual-oran@1.0.0": 2.5}


def test_an_extension_is_told_of_each_alert_once(make_manager: ManagerMaker) -> None:
    heard: list[dict[str, Any]] = []
    manager = make_manager(options={"raised": heard.append}, repeat_s=100)
    manager.observe(incident("a", 0))
    manager.observe(incident("b", 1))
    manager.tick(at(2500))
    assert [(alert["endpoint"], alert["status"]) for alert in heard] == [("a", "firing"), ("b", "firing")]


def test_a_recording_is_replayed_in_order_of_time(make_manager: ManagerMaker, told: Told) -> None:
    manager = make_manager(**QUIET)
    manager.replay([incident("b", 300, 310), incident("a", 0, 20), incident("a", 50, 400), incident("c", 5, 30)])
    manager.tick(at(2000))
    assert [(n["at"][11:19], n["status"], [a["endpoint"] for a in n["alerts"]]) for n in told()] == [
        ("00:00:30", "firing", ["a", "c"]),
        ("00:05:30", "firing", ["b"]),
        ("00:07:10", "resolved", ["b"]),
        ("00:08:40", "resolved", ["a", "c"]),
    ]


def test_an_alert_forgets_what_is_old_and_told(make_manager: ManagerMaker, told: Told, folder: Path) -> None:
    manager = make_manager(**QUIET, retention_days=1)
    for day in range(10):
        manager.observe(incident("a", 86400 * day, 86400 * day + 10))
        manager.tick(at(86400 * day + 4000))
    assert len(told()) == 2
    store = AlertStore(folder)
    counts = [store.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("alerts", "groups", "incidents")]
    store.close()
    assert counts == [1, 1, 1]


def test_progress_alone_is_written_rarely(make_manager: ManagerMaker, folder: Path) -> None:
    """A row in alarm every 100 ms must not cost a write to the disk each."""
    manager = make_manager(**QUIET, update_s=10)
    writes = AlertStore(folder)
    before = writes.changes_by_others()
    seen = set()
    for step in range(1000):
        manager.tick(at(step / 10))
        manager.observe(incident("a", 0, score=1 + step / 1000))
        seen.add(writes.changes_by_others())
    writes.close()
    assert before not in seen
    assert len(seen) <= 13, "opened, told, and every 10 s"


def test_defaults_are_those_of_the_committed_file() -> None:
    from ocad.detection.alerts import load_settings

    file = Path(__file__).parents[2] / "configs" / "detection" / "alerts.yaml"
    committed = load_settings(file)
    assert committed.sinks.jsonl is not None
    assert committed.model_copy(update={"sinks": AlertSettings().sinks}) == AlertSettings()
