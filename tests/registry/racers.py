"""A deleter, a promoter and a reader on one version, round after round: `python -m tests.registry.racers ROOT ROUNDS SEED`.

Each round publishes a version; the deleter and the promoter start on it at the same moment, or a seeded fraction of a few
milliseconds apart. Prints its counts; any broken promise ends it with an assertion.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.registry.writers import NAME, draft

from ocad_registry import Registry, RegistryError

ALIAS = "production"
SPREAD = 0.006


def work(kind: str, root: str, start: Any, orders: Any, answers: Any) -> None:
    """A process that deletes or promotes what it is told, when all start; it answers with what happened."""
    registry = Registry(root, by=kind)
    for version, delay in iter(orders.get, None):
        start.wait()
        time.sleep(delay)
        try:
            if kind == "deleter":
                registry.delete(f"{NAME}@{version}")
            else:
                registry.promote(f"{NAME}@{version}", ALIAS)
            answers.put("done")
        except RegistryError as error:
            answers.put(error.code)


def read(root: str, stop: Any, answers: Any) -> None:
    """Resolves the alias until told to stop: never to a version whose tombstone it saw before it asked."""
    registry, tombstones, reads = Registry(root), Path(root, NAME, "deleted"), 0
    while not stop.is_set():
        deleted = {path.stem for path in tombstones.glob("*.json")}
        try:
            version = registry.resolve(f"{NAME}@{ALIAS}").version
            if version in deleted:
                answers.put(f"the alias led to the deleted {version}")
                return
        except RegistryError as error:
            if error.code != "not-found":
                answers.put(f"{error.code}: {error}")
                return
        reads += 1
    answers.put(reads)


def judge(registry: Registry, version: str, deleter: str, promoter: str) -> str:
    """What came of a round; asserts what must hold when both have returned."""
    target = registry.aliases(NAME).get(ALIAS)
    if deleter == "in-use":
        assert (promoter, target) == ("done", version)
        return "refused"
    assert deleter == "done", deleter
    assert promoter in ("done", "not-found"), promoter
    assert target != version
    history = registry.history(NAME, ALIAS)
    assert history[-1].version != version, f"the newest entry still names the deleted {version}"
    return "overtaken" if any(entry.version == version for entry in history) else "first"


def main(root: str, rounds: str, seed: str) -> None:
    """Runs the rounds."""
    context = multiprocessing.get_context("fork")
    chance, registry, counts = random.Random(int(seed)), Registry(root), Counter[str]()
    registry.promote(registry.publish(draft(), []).ref, ALIAS)
    start, stop, reads = context.Barrier(2), context.Event(), context.SimpleQueue()
    lines = {kind: (context.SimpleQueue(), context.SimpleQueue()) for kind in ("deleter", "promoter")}
    workers = [context.Process(target=work, args=(kind, root, start, *line)) for kind, line in lines.items()]
    workers.append(context.Process(target=read, args=(root, stop, reads)))
    for worker in workers:
        worker.start()
    for _ in range(int(rounds)):
        version = registry.publish(draft(), []).version
        ahead = chance.uniform(-3 * SPREAD, SPREAD)  # a delete has more to read before it decides
        for kind, delay in (("deleter", max(0.0, ahead)), ("promoter", max(0.0, -ahead))):
            lines[kind][0].put((version, delay))
        deleter, promoter = (lines[kind][1].get() for kind in ("deleter", "promoter"))
        counts[judge(registry, version, deleter, promoter)] += 1
    stop.set()
    for orders, _ in lines.values():
        orders.put(None)
    answer = reads.get()
    assert isinstance(answer, int), answer
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    counts.update(rounds=int(rounds), reads=answer, deleted=counts["first"] + counts["overtaken"])
    print(json.dumps(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
