"""How grave an incident is, as a table: by what was lost, how many times normal, and how long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocad.detection.alerts.rules import next_escalation_us, rated, severity_of
from ocad.detection.alerts.settings import AlertSettings, load_settings
from ocad.detection.incidents import Deviation
from ocad.errors import ConfigError

from .conftest import at, incident

SECOND = 1_000_000

TABLE: list[tuple[str, dict[str, Any], float, str]] = [
    ("nothing was lost and the level is as usual", {}, 10, "info"),
    ("evidence alone is no impact", {"score": 1e6, "sigmas": 1e5}, 10, "info"),
    ("a little higher", {"times": 1.9}, 299, "info"),
    ("a little higher for long", {"times": 1.9}, 300, "warning"),
    ("a little higher for a day", {"times": 1.9}, 86_400, "warning"),
    ("twice normal", {"times": 2.0}, 0, "warning"),
    ("twice normal for half an hour", {"times": 2.0}, 1800, "critical"),
    ("ten times normal for a moment", {"times": 12.0, "kind": "spike"}, 3, "warning"),
    ("a spike in a hold-down that outlasts it", {"times": 12.0, "kind": "spike"}, 3600, "warning"),
    ("ten times normal for a minute", {"times": 12.0}, 60, "critical"),
    ("4 % lost", {"lost": 4}, 60, "info"),
    ("5 % lost", {"lost": 5}, 60, "warning"),
    ("27 % lost", {"lost": 27, "kind": "loss"}, 10, "warning"),
    ("27 % lost, told as a drift", {"lost": 27, "kind": "drift"}, 10, "warning"),
    ("27 % lost for half an hour", {"lost": 27, "kind": "loss"}, 1800, "critical"),
    ("half lost", {"lost": 50, "kind": "loss"}, 0, "critical"),
    ("all lost", {"lost": 100, "kind": "loss"}, 0, "critical"),
    ("silent", {"kind": "silent"}, 0, "warning"),
    ("silent for a while", {"kind": "silent"}, 300, "critical"),
]


@pytest.mark.parametrize(("changes", "seconds", "severity"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_severity_is_by_impact(changes: dict[str, Any], seconds: float, severity: str) -> None:
    assert severity_of(incident("a", 0, **changes), round(seconds * SECOND), AlertSettings()) == severity


@pytest.mark.parametrize(("lost", "expected", "severity"), [(1, 1, "info"), (2, 2, "info"), (3, 3, "critical")])
def test_one_lost_row_is_no_outage(lost: int, expected: int, severity: str) -> None:
    share = {"udp_echo": Deviation(1.0, 0.0, "share", 16.0, lost=lost, expected=expected, measure="lost")}
    assert severity_of(replace(incident("a", 0), deviations=share), SECOND, AlertSettings()) == severity


def test_nothing_measured_is_rated_too() -> None:
    silent = replace(incident("a", 0, kind="silent"), deviations={})
    assert rated(silent, at(299), AlertSettings()).severity == "warning"
    assert rated(silent, at(300), AlertSettings()).severity == "critical"
    assert rated(replace(silent, end_us=at(20)), at(300), AlertSettings()).severity == "warning"


@pytest.mark.parametrize(
    ("changes", "severity", "now", "next_at"),
    [
        ({}, "info", 0, 300),
        ({}, "info", 300, None),
        ({}, "warning", 0, None),
        ({"times": 2.0}, "warning", 0, 1800),
        ({"times": 12.0}, "warning", 30, 60),
        ({"times": 12.0}, "warning", 60, 1800),
        ({"lost": 27}, "warning", 400, 1800),
        ({"kind": "silent"}, "warning", 0, 300),
        ({"times": 12.0}, "critical", 0, None),
    ],
)
def test_when_duration_lifts_it_next(changes: dict[str, Any], severity: str, now: float, next_at: float | None) -> None:
    moment = next_escalation_us(incident("a", 0, **changes), at(0), severity, at(now), AlertSettings())
    assert moment == (None if next_at is None else at(next_at))


@pytest.mark.parametrize(
    ("lines", "message"),
    [("[{}]", "give at least one"), ("[{lost: 27}]", "lost"), ("[{time: 2}]", "time"), ("{kind: slow}", "kind")],
)
def test_a_rule_that_says_nothing_sensible_is_refused(lines: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "alerts.yaml"
    file.write_text(f"severity:\n  warning: {lines}\n")
    with pytest.raises(ConfigError, match=message):
        load_settings(file)
