"""The line for a person, and figures that JSON cannot hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ocad.detection.incidents import Deviation, Incident, Kind
from ocad.detection.wording import distance, incident_line

from .conftest import ManagerMaker, at, incident

SINCE = "since 2026-01-01T00:00:00Z"
AGREED = "(rule_based-oran@1.0.0 4.0, residual-oran@1.0.0 2.0)"


def far(kind: Kind, found: Deviation) -> Callable[[], Incident]:
    return lambda: replace(incident("cell-1", 0, kind=kind), deviations={"udp_echo": found})


def large() -> Incident:
    return replace(incident("", 0), deviations={"udp_echo": Deviation(42517.188, 4639.5, "µs", -5.66)})


def two() -> Incident:
    return incident("cell-1", 0, metrics=("udp_echo", "ecpri"), kind="drift")


def bare(kind: Kind) -> Callable[[], Incident]:
    return lambda: replace(incident("cell-1", 0, kind=kind), detectors={}, deviations={})


PEAK: Any = {"peak": 48211.6, "peak_us": at(95)}
FAR: list[tuple[Kind, Deviation, str, str]] = [
    ("loss", Deviation(0.425, 0.0, "share", 11.04), "info", "42.5 % (normal 0 %, +11.0 sigmas)"),
    (
        "loss",
        Deviation(150 / 160, 0.002, "share", 15, lost=150, expected=160, measure="lost"),
        "critical",
        "lost 150 of 160 rows, 93.75 % (normal 0.2 %, +15.0 sigmas)",
    ),
    (
        "loss",
        Deviation(0.27, 0.0, "share", 4.2, 0.5, at(61), lost=43.2, expected=160, measure="lost"),
        "warning",
        "27 % lost (normal 0 %, +4.2 sigmas), peak 50 % at 00:01:01, as 43.2 of 160 rows",
    ),
    (
        "spike",
        Deviation(48211.6, 5012.0, "µs", 86.0, **PEAK, times=9.62, measure="peak"),
        "warning",
        "peak 48212 µs at 00:01:35 (normal 5012 µs, 9.62 times, +86.0 sigmas)",
    ),
    (
        "shift",
        Deviation(44000.0, 5012.0, "µs", 80.0, **PEAK, lost=2, expected=12, times=8.8),
        "warning",
        "44000 µs (normal 5012 µs, 8.78 times, +80.0 sigmas), peak 48212 µs at 00:01:35, lost 2 of 12 rows",
    ),
    (
        "jitter",
        Deviation(30.0, 5.0, "µs", 5.0, -3.0, at(86_400), times=1.1, measure="spread"),
        "info",
        "spread 30 µs (normal 5 µs, +5.0 sigmas), peak -3 µs at 2026-01-02 00:00:00",
    ),
    (
        "shift",
        Deviation(0.14, 0.0, "share", 7.4, 0.14, at(1), lost=0.54, expected=85, measure="peak"),
        "info",
        "peak 14 % at 00:00:01 (normal 0 %, +7.4 sigmas)",
    ),
    ("shift", Deviation(7.5, 7.0, "", 4.0), "info", "7.5 (normal 7, +4.0 sigmas)"),
]


@pytest.mark.parametrize(
    ("make", "line"),
    [
        *(
            (far(kind, found), f"{severity} firing: cell-1 udp_echo {text} {SINCE}, {kind}, score 4.0 {AGREED}")
            for kind, found, severity, text in FAR
        ),
        (
            large,
            f"info firing: the link udp_echo 42517 µs (normal 4640 µs, -5.7 sigmas) {SINCE}, shift, score 4.0 {AGREED}",
        ),
        (
            two,
            "info firing: cell-1 udp_echo 812 µs (normal 400 µs, +5.0 sigmas), ecpri 812 µs (normal 400 µs, +5.0 sigmas)"
            f" {SINCE}, drift, score 4.0 {AGREED}",
        ),
        (bare("shift"), f"info firing: cell-1 udp_echo {SINCE}, shift, score 4.0"),
        (bare("silent"), f"warning firing: cell-1 sends no rows {SINCE}, silent, score 4.0"),
    ],
)
def test_a_line_for_a_person(
    make: Callable[[], Incident], line: str, make_manager: ManagerMaker, told: Callable[[], list[dict[str, Any]]]
) -> None:
    make_manager(group_wait_s=0).observe(make())
    body = told()[0]
    assert body["text"] == f"{line} [{body['id']}]"


def test_a_line_names_few_of_many_endpoints(
    make_manager: ManagerMaker, told: Callable[[], list[dict[str, Any]]]
) -> None:
    manager = make_manager()
    for number in range(9):
        manager.observe(incident(f"cell-{number}", number))
    manager.tick(at(40))
    body = told()[0]
    assert f"{AGREED} and at cell-1, cell-2, cell-3, cell-4, cell-5 and 3 more [" in body["text"]
    assert len(body["alerts"]) == 9


@pytest.mark.parametrize(
    ("figure", "words"), [(90_000, "90000 µs"), (4e14, "400000000000000 µs"), (1e308, "1e+308 µs")]
)
def test_a_figure_that_cannot_be_true_fills_no_screen(figure: float, words: str) -> None:
    assert distance(Deviation(figure, 1.0, "us", 9.0), 0).startswith(f"{words} (")


@pytest.mark.parametrize("figure", [math.inf, -math.inf, math.nan])
def test_figures_without_end_become_null(
    figure: float, make_manager: ManagerMaker, told: Callable[[], list[dict[str, Any]]]
) -> None:
    found = replace(incident("a", 0), score=figure, deviations={"udp_echo": Deviation(figure, 1.0, "us", figure)})
    make_manager(group_wait_s=0).observe(found)
    body = told()[0]
    json.dumps(body, allow_nan=False)
    assert (body["score"], body["deviations"]["udp_echo"]["sigmas"]) == (None, None)


@pytest.mark.parametrize(
    ("zone", "since", "peak"),
    [
        ("UTC", "2026-01-01T00:00:00Z", "00:01:35"),
        ("Europe/Berlin", "2026-01-01T01:00:00+01:00", "01:01:35"),
        ("America/New_York", "2025-12-31T19:00:00-05:00", "19:01:35"),
        ("Asia/Kolkata", "2026-01-01T05:30:00+05:30", "05:31:35"),
    ],
)
def test_a_line_has_the_times_of_its_readers(zone: str, since: str, peak: str) -> None:
    found = far("shift", Deviation(44000.0, 5012.0, "µs", 80.0, **PEAK))()
    line = incident_line(replace(found, severity="warning"), ZoneInfo(zone))
    assert line.startswith(f"shift on cell-1 since {since} (warning, open): udp_echo 44000 µs")
    assert f"peak 48212 µs at {peak};" in line
