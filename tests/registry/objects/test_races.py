"""Many processes on one bucket, and a publisher killed at each of its requests: one winner, nothing lost, nothing half there."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.registry.conftest import Publisher
from tests.registry.objects.faults import Fault, FaultyProxy, Request
from tests.registry.objects.test_objects import keys
from tests.registry.writers import NAME

from ocad_registry import Registry

ROOT = Path(__file__).resolve().parents[3]


def race(*arguments: str) -> list[str]:
    """The lines that the processes printed."""
    command = [sys.executable, "-m", "tests.registry.objects.writers", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return done.stdout.split("\n")[:-1]


def test_twelve_publishers_of_one_number(registry: Registry) -> None:
    answers = Counter(race("publish", registry.root, "12", "3.0.0"))
    assert answers == {"m@3.0.0": 1, "version-exists": 11}
    assert [entry.ref for entry in registry.list()] == ["m@3.0.0"]
    assert registry.verify() == []
    assert len(keys(registry.root)) == 5, "the losers' payload is gone"


def test_twelve_publishers_of_the_next_number(registry: Registry) -> None:
    references = race("publish", registry.root, "12")
    assert len(set(references)) == 12
    assert {entry.ref for entry in registry.list()} == set(references)
    assert registry.verify() == []
    assert len(keys(registry.root)) == 1 + 4 * 12


def test_eight_promoters_each_win_their_own_numbers(registry: Registry, publish: Publisher) -> None:
    for _ in range(8):
        publish(name=NAME)
    moves = [[int(number) for number in line.split()] for line in race("promote", registry.root, "8", "3")]
    assert sorted(number for _, number in moves) == list(range(1, 25))
    history = {entry.number: entry.version for entry in registry.history(NAME, "production")}
    assert history == {number: f"1.{index}.0" for index, number in moves}
    assert registry.resolve(f"{NAME}@production").version == history[24]


def test_one_of_eight_promoters_that_expect_the_same_version_wins(registry: Registry, publish: Publisher) -> None:
    for _ in range(9):
        publish(name=NAME)
    registry.promote(f"{NAME}@1.8.0", "production")
    answers = race("promote", registry.root, "8", "1", "1.8.0")
    assert Counter(answers)["expectation-failed"] == 7
    assert [entry.number for entry in registry.history(NAME, "production")] == [1, 2]


def test_processes_download_a_version_once(proxy: FaultyProxy, moto_url: str, publish_to: Publisher) -> None:
    version = publish_to(moto_url)
    before = len(proxy.requests)
    paths = race("fetch", moto_url, "6")
    assert len(set(paths)) == 1
    assert Path(paths[0]).stat().st_size == version.files[0].size
    downloads = [request for request in proxy.requests[before:] if request.path.endswith("/a.bin")]
    assert len(downloads) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_publisher_killed_at_any_request_leaves_nothing_half_visible(
    proxy: FaultyProxy, moto_url: str, moto_address: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Killed `before` a request reaches the store, or `after` the store has done it."""
    command = [sys.executable, "-m", "tests.registry.objects.writers", "victims", moto_url]
    victims = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert victims.stdin is not None
    assert victims.stdout is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_address)
    registry, outcome, visible, step = Registry(moto_url), "", 0, 0
    while not outcome:
        step += 1
        first = len(proxy.requests)
        outcome = kill_at(proxy, first + step, moment, victims)
        done = proxy.requests[first:] if outcome or moment == "after" else proxy.requests[first:-1]
        appeared = any(request.method == "PUT" and request.path.endswith("/metadata.json") for request in done)
        living = registry.list()
        assert len(living) == visible + appeared
        assert all(registry.verify(entry.ref) == [] for entry in living)
        visible = len(living)
    victims.stdin.close()
    victims.wait(timeout=600)
    victims.stdout.close()
    assert step > 8, "a publish has more requests than that"
    assert {finding.kind for finding in registry.verify()} <= {"incomplete"}


def kill_at(proxy: FaultyProxy, number: int, moment: str, victims: subprocess.Popen[str]) -> str:
    """Kills the next victim at the request `number`; what it acknowledged."""
    process: queue.SimpleQueue[int] = queue.SimpleQueue()

    def kill() -> None:
        os.kill(process.get(timeout=600), signal.SIGKILL)

    def fault(request: Request) -> Fault | None:
        if request.number != number:
            return None
        return Fault(503, "SlowDown", before=kill) if moment == "before" else Fault(after=kill)

    proxy.fault = fault
    assert victims.stdin is not None
    assert victims.stdout is not None
    victims.stdin.write("\n")
    victims.stdin.flush()
    process.put(int(victims.stdout.readline()))
    line = victims.stdout.readline().strip()
    if line == "ended":
        return ""
    assert victims.stdout.readline().strip() == "ended"
    return line
