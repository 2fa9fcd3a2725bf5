"""Incidents by the second of a made-up day, and managers whose notifications can be read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ocad.detection.alerts import AlertManager, AlertSettings, AlertStore
from ocad.detection.alerts.outbox import Outbox
from ocad.detection.incidents import Deviation, Incident, Kind

START = 1_767_225_600
"""2026-01-01T00:00:00Z, which is second 0 of every test."""


def at(second: float) -> int:
    """µs since 1970 of a second of the test's day."""
    return round((START + second) * 1_000_000)


def incident(
    endpoint: str,
    start: float,
    end: float | None = None,
    *,
    metrics: tuple[str, ...] = ("udp_echo",),
    score: float = 4.0,
    sigmas: float = 5.0,
    kind: Kind = "shift",
    times: float | None = None,
    lost: float = 0.0,
) -> Incident:
    """An incident whose id, like that of a detector, is made of endpoint and start; `lost` is out of 100 rows."""
    counts: dict[str, Any] = {"lost": lost, "expected": 100 if lost else 0, "times": times}
    deviations = {metric: Deviation(812.0, 400.0, "us", sigmas, **counts) for metric in metrics}
    detectors = {"rule_based-oran@1.0.0": score, "residual-oran@1.0.0": score / 2}
    stop = None if end is None else at(end)
    return Incident(f"{endpoint}|{start}", endpoint, metrics, at(start), stop, kind, score, detectors, deviations, 3)


ManagerMaker = Callable[..., AlertManager]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "alerts"


@pytest.fixture
def make_manager(folder: Path) -> Iterator[ManagerMaker]:
    """A manager without sinks, or with those given, over the test's own store; settings by name."""
    made: list[AlertManager] = []

    def make(sinks: tuple[Any, ...] = (), options: Mapping[str, Any] | None = None, **settings: Any) -> AlertManager:
        config = AlertSettings.model_validate(settings)
        made.append(AlertManager(config, AlertStore(folder), sinks, **(options or {})))
        return made[-1]

    yield make
    for manager in made:
        manager.close()


@pytest.fixture
def told(folder: Path) -> Callable[[], list[dict[str, Any]]]:
    """All notifications so far, in their order."""

    def read() -> list[dict[str, Any]]:
        store = AlertStore(folder)
        try:
            return Outbox(store).history(10_000)
        finally:
            store.close()

    return read
