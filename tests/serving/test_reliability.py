"""Two minutes at 70 % load while versions are published, promoted and rolled back: nothing fails and nothing grows."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.registries import publish
from tests.serving.servers import Server, tensor

from ocad_registry import Registry

SECONDS = 120.0
CONNECTIONS = 16
SHARE = 0.7
PAUSE_S = 0.2
BODY = json.dumps({"inputs": [tensor("x", "FP32", [[1.0, 2.0]])]}).encode()
REQUEST = b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@dataclass
class Seen:
    """What the clients saw: how often each status, the versions that answered, and answers of another version's factor."""

    statuses: Counter[int] = field(default_factory=Counter)
    versions: set[str] = field(default_factory=set)
    wrong: int = 0

    def note(self, status: int, body: bytes) -> None:
        """Takes one answer: version 1.N.0 multiplies by N + 1."""
        self.statuses[status] += 1
        if status == 200:
            answer = json.loads(body)
            version: str = answer["model_version"]
            self.versions.add(version)
            factor = int(version.split(".")[1]) + 1
            self.wrong += answer["outputs"][0]["data"] != [factor, 2 * factor]


async def client(address: str, seen: Seen, end: float, pause: float) -> None:
    """One connection, a request every `pause` seconds by its own schedule."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    due = time.monotonic()
    while (now := time.monotonic()) < end:
        if due > now:
            await asyncio.sleep(due - now)
        due += pause
        writer.write(REQUEST)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        seen.note(int(head.split(b" ", 2)[1]), await reader.readexactly(length))
    writer.close()
    await writer.wait_closed()


def load(server: Server, seconds: float, pause: float) -> Seen:
    """Runs all clients for `seconds`; with no pause they send as fast as they are answered."""
    seen = Seen()

    async def run() -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(client(server.http, seen, end, pause) for _ in range(CONNECTIONS)))

    asyncio.run(run())
    return seen


class Changes(threading.Thread):
    """Publishes and promotes, and every third time rolls back, until told to stop."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root, self.stopped, self.count = root, threading.Event(), 0

    def run(self) -> None:
        """Goes on until `stopped` is set."""
        store = Registry(self.root)
        while not self.stopped.wait(PAUSE_S):
            version = publish(self.root, "scale", graphs.heavy_scale(self.count + 2.0))
            store.promote(version.ref, "production")
            if self.count % 3 == 2:
                store.rollback("scale", "production")
            self.count += 1


@pytest.mark.slow
def test_two_minutes_of_changes_under_load(launch: Launch, tmp_path: Path) -> None:
    root = tmp_path / "models"
    publish(root, "scale", graphs.heavy_scale(1.0))
    Registry(root).promote("scale@1.0.0", "production")
    server = launch(root, "--lazy-mb", "16")
    full = load(server, 5, pause=0.0)
    assert full.statuses.keys() == {200}
    files, memory = server.open_files(), server.resident_mb()
    changes = Changes(root)
    changes.start()
    try:
        seen = load(server, SECONDS, pause=CONNECTIONS / (SHARE * full.statuses[200] / 5))
    finally:
        changes.stopped.set()
        changes.join()
    assert seen.statuses.keys() == {200}
    assert seen.statuses[200] > 0.9 * SHARE * full.statuses[200] / 5 * SECONDS, "the load was kept up"
    assert seen.wrong == 0
    assert changes.count > 100
    assert len(seen.versions) > changes.count / 2
    assert server.open_files() <= files + 20
    assert server.resident_mb() < memory + 40
