"""kill -9 of the sender at random moments, against a real receiver: every notification arrives, and what doubles has one key."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ocad.detection.alerts import AlertStore
from ocad.detection.alerts.outbox import Outbox

from .receivers import Receiver, receiving

SENDER = Path(__file__).with_name("sender.py")

MOMENTS = ("answered", "any", "unanswered", "later")


@dataclass
class Killer:
    """Kills the sender at a seeded moment: before or after it has its answer, a little later, or at any time."""

    chance: random.Random
    receiver: Receiver
    kills: int = 0
    moments: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _target: tuple[str, int] = ("", 0)

    def run(self, command: list[str], *, spare: bool) -> int:
        """Runs the sender to its end, or to its death unless `spare`; returns its exit code."""
        ahead = len(self.receiver.requests) + self.chance.randint(1, 6)
        self._target = ("spared", 0) if spare else (MOMENTS[self.kills % len(MOMENTS)], ahead)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            self._process = process
            if self._target[0] == "any":
                timer = threading.Timer(self.chance.uniform(0.15, 0.6), self.kill)
                timer.start()
            code = process.wait(120)
            if self._target[0] == "any":
                timer.cancel()
            self._process = None
        if code == -9:
            self.kills += 1
            self.moments[self._target[0]] = self.moments.get(self._target[0], 0) + 1
        return code

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def answer(self, number: int) -> int:
        if self._target == ("unanswered", number):
            self.kill()
        return 204

    def answered(self, number: int) -> None:
        if self._target == ("answered", number):
            self.kill()
        elif self._target == ("later", number):
            timer = threading.Timer(self.chance.uniform(0, 0.02), self.kill)
            timer.start()
            timer.join()


def notifications(folder: Path) -> list[dict[str, Any]]:
    store = AlertStore(folder, create=False)
    try:
        return Outbox(store).history(100_000)
    finally:
        store.close()


def deaths(folder: Path, incidents: int, kills: int, seed: int, report: Callable[[str, object], None]) -> None:
    with receiving(Receiver()) as receiver:
        killer = Killer(random.Random(seed), receiver)
        command = [sys.executable, str(SENDER), str(folder)]
        receiver.answer, receiver.answered = killer.answer, killer.answered
        while killer.kills < kills:
            code = killer.run([*command, str(incidents), receiver.url], spare=False)
            assert code in {-9, 0}
            incidents += 0 if code else 10  # it was done before its moment came: more work
        assert killer.run([*command, str(incidents), receiver.url], spare=True) == 0
    told = notifications(folder)
    keys = [notice["key"] for notice in told]
    assert len(keys) == len(set(keys)) == 2 * incidents, "each incident fires once and is resolved once"
    assert sorted(notice["status"] for notice in told) == ["firing"] * incidents + ["resolved"] * incidents
    assert all(d["state"] == "delivered" for notice in told for d in notice["deliveries"].values())

    assert list(dict.fromkeys(receiver.keys)) == keys, "all arrived, in order, none twice by its key"
    resends = len(receiver.keys) - len(keys)
    assert resends <= kills, "at most the one under way is sent again"
    assert [body["key"] for _, _, body in receiver.requests] == receiver.keys

    lines = (folder / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["key"] for line in lines] == keys, "exactly once in the file"
    report("kills", killer.kills)
    report("kills_by_moment", json.dumps(killer.moments, sort_keys=True))
    report("sent_again", resends)
    print(f"{killer.kills} kills {killer.moments}, {len(keys)} notifications, {resends} sent again")


def test_kills_lose_nothing_and_double_nothing(folder: Path, record_property: Callable[[str, object], None]) -> None:
    deaths(folder, incidents=30, kills=5, seed=20260101, report=record_property)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixty_kills_lose_nothing_and_double_nothing(
    folder: Path, record_property: Callable[[str, object], None]
) -> None:
    deaths(folder, incidents=250, kills=60, seed=7, report=record_property)
