"""The line for a person, and figures that JSON cannot hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ocad.detection.incidents import Deviation, Incident

from .conftest import ManagerMaker, at, incident

SINCE = "since 2026-01-01T00:00:00Z"
AGREED = "(rule_based-oran@1.0.0 4.0, residual-oran@1.0.0 2.0)"


def lost() -> Incident:
    share = {"ccm": Deviation(0.425, 0.0, "share", 11.04)}
    return replace(incident("cell-1", 0, metrics=("ccm",), kind="loss"), deviations=share)


def large() -> Incident:
    return replace(incident("", 0), deviations={"udp_echo": Deviation(42517.188, 4639.5, "µs", -5.66)})


def two() -> Incident:
    return incident("cell-1", 0, metrics=("udp_echo", "ecpri"), kind="drift")


def silent() -> Incident:
    return replace(incident("cell-1", 0), detectors={}, deviations={})


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lost, f"warning firing: cell-1 ccm 42.5 % (normal 0 %, +11.0 sigmas) {SINCE}, loss, score 4.0 {AGREED}"),
        (
            large,
            f"info firing: the link udp_echo 42517 µs (normal 4640 µs, -5.7 sigmas) {SINCE}, shift, score 4.0 {AGREED}",
        ),
        (
            two,
            "info firing: cell-1 udp_echo 812 µs (normal 400 µs, +5.0 sigmas), ecpri 812 µs (normal 400 µs, +5.0 sigmas)"
            f" {SINCE}, drift, score 4.0 {AGREED}",
        ),
        (silent, f"info firing: cell-1 udp_echo {SINCE}, shift, score 4.0"),
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


@pytest.mark.parametrize("figure", [math.inf, -math.inf, math.nan])
def test_figures_without_end_become_null(
    figure: float, make_manager: ManagerMaker, told: Callable[[], list[dict[str, Any]]]
) -> None:
    found = replace(incident("a", 0), score=figure, deviations={"udp_echo": Deviation(figure, 1.0, "us", figure)})
    make_manager(group_wait_s=0).observe(found)
    body = told()[0]
    json.dumps(body, allow_nan=False)
    assert (body["score"], body["deviations"]["udp_echo"]["sigmas"]) == (None, None)
