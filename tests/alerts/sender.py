"""A detection whose incidents are known beforehand, to be killed or starved: `python sender.py FOLDER COUNT URL [LIMIT [DRAIN]]`.

Each run begins with the first incident again, as a detection does that reads its data anew. An empty URL leaves the
webhook out. The last line on stdout says what could not be stored.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocad.detection.alerts import AlertManager, AlertSettings, AlertStore, StoreError
from ocad.detection.alerts.sinks import make_sinks
from ocad.detection.incidents import Deviation, Incident

START = 1_767_225_600
STEP = 10
ENDPOINTS = ("link-a", "link-b", "link-c")


def incidents(count: int) -> list[Incident]:
    """One after the other, at three links in turn; each is told twice: firing and resolved."""
    made = []
    for number in range(count):
        endpoint, start = ENDPOINTS[number % 3], (START + STEP * number) * 1_000_000
        deviation = Deviation(812.0, 400.0, "us", 5.0)
        made.append(
            Incident(f"{endpoint}|{number}", endpoint, ("udp_echo",), start, start + 2_000_000, "shift", 4.0, {"rule": 4.0},
                     {"udp_echo": deviation}, 3)
        )  # fmt: skip
    return made


def settings(url: str, **changes: Any) -> AlertSettings:
    """No waiting and fast retries, so that a test takes seconds."""
    return AlertSettings.model_validate(
        {
            "group_wait_s": 0,
            "hold_down_s": 1,
            "sinks": {"console": None, "jsonl": {}, "webhook": {"url": url, "timeout_s": 5} if url else None},
            "delivery": {"first_s": 0.01, "longest_s": 0.2, "drain_s": 60},
            **changes,
        }
    )


def detect(manager: AlertManager, count: int) -> None:
    """Every incident opens and closes; time goes on between."""
    for found in incidents(count):
        manager.tick(found.start_us)
        manager.observe(replace(found, end_us=None))
        manager.observe(found)
    manager.tick((START + STEP * (count + 1)) * 1_000_000)


def main(folder: Path, count: int, url: str, limit: int = 0, drain_s: int = 60) -> None:
    """`limit` bytes is the most that any file may grow to once the store is open; 0 for no limit."""
    config = settings(url, memory_incidents=50, delivery={"first_s": 0.01, "longest_s": 0.2, "drain_s": drain_s})
    try:
        manager = AlertManager(
            config, AlertStore(folder), make_sinks(config, folder), warn=lambda line: print(line, file=sys.stderr)
        )
    except StoreError as error:
        sys.exit(f"error: {error}")
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    detect(manager, count)
    answer = {"detected": count, "waiting": manager.waiting, "dropped": manager.dropped}
    manager.close()
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
