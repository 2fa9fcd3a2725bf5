"""Links whose clocks differ, data that jumps or ends, and windows that overlap: each alert by its own link's time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocad.detection.alerts import AlertStore
from ocad.detection.alerts.store import _SCHEMA
from ocad.detection.incidents import Incident

from .conftest import ManagerMaker, at, incident

Told = Callable[[], list[dict[str, Any]]]
QUIET: dict[str, Any] = {"severity": {"warning": {}, "critical": {}}}


def seconds(told: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(notice["at"][11:19], notice["status"], notice["severity"]) for notice in told]


@pytest.mark.parametrize("skew", [0, 100, -100, 2400, -2400, 86_400])
def test_a_link_is_judged_by_its_own_clock(make_manager: ManagerMaker, told: Told, skew: int) -> None:
    """The same outage and flapping, on a link whose clock is off by `skew`: as long, as grave, as often."""
    manager = make_manager(severity={"warning": [{"seconds": 0}], "critical": [{"seconds": 1_000}]})
    for second in range(0, 700, 5):
        manager.tick(at(10_000 + second))
        own = second - skew
        if second < 40:
            manager.observe(incident("a", 10_000 - skew, score=7.0), skew * 1_000_000)
        elif second % 100 == 40 and second < 300:
            manager.observe(incident("a", 10_000 - skew, 10_000 + own, score=7.0), skew * 1_000_000)
        elif second % 100 in {50, 60}:
            end = 10_000 + own if second % 100 == 60 else None
            manager.observe(incident("a", 10_000 + own // 10 * 10 - (end is not None) * 10, end), skew * 1_000_000)
    notices = told()
    assert [(notice["status"], notice["severity"]) for notice in notices][:1] == [("firing", "warning")]
    assert {notice["severity"] for notice in notices} == {"warning"}
    assert [notice["status"] for notice in notices].count("firing") == 1
    assert notices[0]["start"][:19] == incident("a", 10_000 - skew).to_json()["start"][:19]


def test_a_skew_is_known_after_a_restart(make_manager: ManagerMaker, told: Told) -> None:
    manager = make_manager(stale_after_s=600)
    manager.tick(at(10_000))
    manager.observe(incident("a", 7_600), 2_400_000_000)
    manager.tick(at(10_040))
    manager.close()
    again = make_manager(stale_after_s=600)
    again.tick(at(10_200))
    assert [notice["severity"] for notice in told()] == ["info"], (
        "2,600 seconds by another link's clock are no duration"
    )
    again.tick(at(12_000))
    last = told()[-1]
    assert (last["status"], last["end"][11:19]) == ("resolved", incident("a", 0, 7_600).to_json()["end"][11:19])


@pytest.mark.parametrize("leap_s", [86_400 * 365, 86_400 * 365 * 7_000])
def test_a_leap_of_time_costs_no_loop(make_manager: ManagerMaker, told: Told, leap_s: int) -> None:
    """Hours are not counted one by one, which would take minutes: what is due is done, once."""
    manager = make_manager(**QUIET, repeat_s=600, retention_days=10**7)
    manager.observe(incident("a", 0))
    manager.tick(at(40))
    manager.tick(at(leap_s))
    manager.tick(at(leap_s + 1))
    assert [notice["status"] for notice in told()] == ["firing", "firing"]


@pytest.mark.parametrize("ahead_s", [2_700, 86_400 * 365 * 100, 86_400 * 365 * 7_900])
@pytest.mark.parametrize("seen", ["an incident", "time alone"])
def test_the_future_of_an_earlier_run_silences_nothing(
    make_manager: ManagerMaker, told: Told, ahead_s: int, seen: str
) -> None:
    """45 minutes to the year 9999, killed before it was told: what comes after the restart is told at its own time."""
    first = make_manager(group_by=["family"])
    first.tick(at(0))
    first.observe(incident("a", ahead_s if seen == "an incident" else 0))
    first.tick(at(ahead_s))
    first.close()
    again = make_manager(group_by=["family"])
    for second in range(100, 200, 5):
        again.tick(at(second))
        if second == 105:
            again.observe(incident("b", 100))
    assert [notice["at"][11:19] for notice in told() if notice["endpoint"] == "b"] == ["00:02:15"]


def test_what_waits_is_told_at_the_end(make_manager: ManagerMaker, told: Told) -> None:
    heard: list[dict[str, Any]] = []
    manager = make_manager(options={"raised": heard.append}, group_wait_s=3600)
    manager.observe(incident("a", 0))
    manager.observe(incident("b", 5, metrics=("ccm",)))
    assert told() == []
    manager.flush()
    manager.flush()
    assert sorted(notice["endpoint"] for notice in told()) == ["a", "b"]
    assert sorted(alert["endpoint"] for alert in heard) == ["a", "b"]


WINDOWS: dict[str, tuple[list[list[tuple[float, float | None, str]]], list[tuple[str, str]]]] = {
    "the same window again": (
        [[(100, 150, "")], [(100, 150, "")]],
        [("firing", "a"), ("resolved", "a")],
    ),
    "an incident that a later window begins within": (
        [[(100, 300, "")], [(160, 300, "later")]],
        [("firing", "a"), ("resolved", "a")],
    ),
    "one that a later window cuts in two": (
        [[(100, 300, "")], [(110, 150, "first"), (200, 290, "second")]],
        [("firing", "a"), ("resolved", "a")],
    ),
    "one that goes on over the end of a window": (
        [[(100, None, "")], [(150, 400, "later")]],
        [("firing", "a"), ("resolved", "a")],
    ),
    "another one later": (
        [[(100, 150, "")], [(100, 150, ""), (700, 750, "")]],
        [("firing", "a"), ("resolved", "a"), ("firing", "a"), ("resolved", "a")],
    ),
}


def one_of(start: float, end: float | None, name: str) -> Incident:
    return replace(incident("a", start, end), id=f"a|{start}|{name}")


@pytest.mark.parametrize("case", WINDOWS)
def test_overlapping_windows_do_not_repeat(make_manager: ManagerMaker, told: Told, case: str) -> None:
    """As `ocad detect --data` run by cron over the last hour, every ten minutes: a manager for each."""
    windows, expected = WINDOWS[case]
    for number, window in enumerate(windows):
        with make_manager(**QUIET) as manager:
            manager.replay([one_of(*found) for found in window])
            manager.tick(at(1000 + 600 * number if window[-1][1] else 200))
            manager.flush()
    assert [(notice["status"], notice["endpoint"]) for notice in told()] == expected


def test_a_store_of_the_first_format_goes_on(make_manager: ManagerMaker, told: Told, folder: Path) -> None:
    folder.mkdir()
    first = _SCHEMA.replace(",\n    skew_us INTEGER NOT NULL DEFAULT 0)", ")")
    first = first.replace("since_us INTEGER NOT NULL DEFAULT 0,", "")
    assert "INTEGER NOT NULL DEFAULT" not in first
    with sqlite3.connect(folder / "alerts.db") as connection:
        connection.executescript(first + "PRAGMA user_version=1;")
    connection.close()
    manager = make_manager(group_wait_s=0)
    manager.observe(incident("a", 0))
    assert len(told()) == 1
    store = AlertStore(folder, create=False)
    assert store.rows("PRAGMA user_version")[0][0] == 2
    store.close()
