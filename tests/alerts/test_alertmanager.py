"""Alerts as Alertmanager sees them: the requests that are sent, and what a real one makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ocad.detection.alerts import AlertManager, AlertSettings, AlertStore
from ocad.detection.alerts.sinks import make_sinks
from ocad.detection.incidents import Incident

from .alertmanagers import alertmanager, alerts_at
from .conftest import START, at, incident
from .receivers import Receiver, receiving, wait_until


def manager_of(folder: Path, url: str, **changes: Any) -> AlertManager:
    sinks = {"console": None, "alertmanager": {"url": url, "resend_s": changes.pop("resend_s", 60)}}
    config = AlertSettings.model_validate({"group_wait_s": 0, "hold_down_s": 10, "sinks": sinks, **changes})
    return AlertManager(config, AlertStore(folder), make_sinks(config, folder), chance=random.Random(1))


def posted(receiver: Receiver) -> list[list[tuple[str, str, str, str | None]]]:
    """Endpoint, severity, start and end (as seconds of the test's day) of the alerts in each request."""
    answer = []
    for path, _, body in receiver.requests:
        assert path == "/api/v2/alerts"
        answer.append([(e["labels"]["endpoint"], e["labels"]["severity"], e["startsAt"][11:19], (e.get("endsAt") or "")[11:19])
                       for e in body])  # fmt: skip
    return answer


def test_what_is_posted(folder: Path) -> None:
    with receiving(Receiver()) as receiver:
        with manager_of(folder, f"http://127.0.0.1:{receiver.port}/", group_wait_s=5) as manager:
            manager.observe(incident("a", 0))
            manager.observe(incident("b", 1, metrics=("udp_echo", "ecpri"), kind="drift"))
            manager.tick(at(20))
            manager.observe(incident("a", 0, times=3.0))
            manager.observe(incident("a", 0, 30, times=3.0))
            manager.observe(incident("b", 1, 60, metrics=("udp_echo", "ecpri"), kind="drift"))
            manager.tick(at(200))
        first = receiver.requests[0]
    deliveries = [entries for entries, (_, headers, _) in zip(posted(receiver), receiver.requests, strict=True)
                  if "Idempotency-Key" in headers]  # fmt: skip
    assert deliveries == [
        [("a", "info", "00:00:00", ""), ("b", "info", "00:00:01", "")],
        [("a", "info", "00:00:00", "00:00:20"), ("a", "warning", "00:00:00", ""), ("b", "info", "00:00:01", "")],
        [("a", "warning", "00:00:00", "00:00:30")],
        [("a", "warning", "00:00:00", "00:00:30"), ("b", "info", "00:00:01", "00:01:00")],
    ]
    entry = first[2][1]
    assert entry["labels"] == {
        **{"alertname": "OcadIncident", "endpoint": "b", "metric": "udp_echo,ecpri"},
        **{"severity": "info", "kind": "drift"},
    }
    assert entry["annotations"]["summary"].startswith(
        "info firing: b udp_echo 812 µs (normal 400 µs, +5.0 sigmas), ecpri"
    )
    assert entry["annotations"]["detectors"] == "rule_based-oran@1.0.0 4.00, residual-oran@1.0.0 2.00"


def test_what_fires_is_posted_again_before_it_would_be_forgotten(folder: Path) -> None:
    with receiving(Receiver()) as receiver:
        with manager_of(folder, f"http://127.0.0.1:{receiver.port}", resend_s=0.05) as manager:
            manager.observe(incident("a", 0))
            receiver.wait_for(4)
            manager.observe(incident("a", 0, 5))
            manager.tick(at(100))
        ended = [entries[0][3] for entries in posted(receiver)]
    assert ended[:4] == [""] * 4
    assert ended[-1] == "00:00:05", "and no more once it is resolved"


def live(endpoint: str, start: datetime, end: datetime | None = None, **changes: Any) -> Incident:
    """An incident of today, because Alertmanager compares with its own clock."""
    return incident(endpoint, start.timestamp() - START, None if end is None else end.timestamp() - START, **changes)


@pytest.mark.slow
def test_a_real_alertmanager(folder: Path, tmp_path: Path) -> None:
    """It shows the alert, takes its escalation as one, keeps it alive over its timeout, and tells its end."""
    begun = datetime.now(UTC) - timedelta(seconds=60)

    def us(moment: datetime) -> int:
        return round(moment.timestamp() * 1_000_000)

    with receiving(Receiver()) as receiver, alertmanager(tmp_path, receiver.url, resolve_timeout="3s") as url:

        def severities() -> list[str]:
            return sorted(alert["labels"]["severity"] for alert in alerts_at(url))

        def heard() -> list[tuple[str, str]]:
            return [(a["labels"]["severity"], a["status"]) for _, _, body in receiver.requests for a in body["alerts"]]

        with manager_of(folder, url, resend_s=1) as manager:
            manager.observe(live("cell-7", begun))
            manager.tick(us(begun) + 1_000_000)
            wait_until(lambda: severities() == ["info"])
            labels = alerts_at(url)[0]["labels"]
            assert labels == {"alertname": "OcadIncident", "endpoint": "cell-7", "metric": "udp_echo", "severity": "info",
                              "kind": "shift"}  # fmt: skip
            outlived = datetime.now(UTC) + timedelta(seconds=6)
            wait_until(lambda: not_seen_without(severities, "info") or datetime.now(UTC) > outlived)
            assert severities() == ["info"], "sent again within its timeout of 3 s"
            manager.observe(live("cell-7", begun, lost=50))  # half of its rows are lost
            wait_until(lambda: severities() == ["critical"])
            wait_until(lambda: ("critical", "firing") in heard())
            manager.observe(live("cell-7", begun, begun + timedelta(seconds=30), lost=50))
            manager.tick(us(begun) + 50_000_000)
            wait_until(lambda: severities() == [])
            wait_until(lambda: ("critical", "resolved") in heard())
    assert [said for said in dict.fromkeys(heard()) if said[0] == "info"] == [("info", "firing"), ("info", "resolved")]
    assert [said for said in dict.fromkeys(heard()) if said[0] == "critical"] == [
        ("critical", "firing"),
        ("critical", "resolved"),
    ]


def not_seen_without(severities: Callable[[], list[str]], wanted: str) -> bool:
    return wanted not in severities()


@pytest.mark.slow
def test_an_alertmanager_that_was_away_learns_what_happened(folder: Path, tmp_path: Path) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=300)
    with receiving(Receiver()) as receiver:
        with alertmanager(tmp_path, receiver.url) as url:
            pass
        with manager_of(folder, url, delivery={"first_s": 0.1, "longest_s": 0.5, "drain_s": 0.3}) as manager:
            manager.observe(live("gone", begun, begun + timedelta(seconds=9)))
            manager.observe(live("here", begun + timedelta(seconds=10)))
            manager.tick(round(datetime.now(UTC).timestamp() * 1_000_000))
        again = tmp_path / "again"
        again.mkdir()
        with alertmanager(again, receiver.url) as url, manager_of(folder, url):
            wait_until(lambda: [alert["labels"]["endpoint"] for alert in alerts_at(url)] == ["here"])
