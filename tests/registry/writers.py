"""Processes that the tests start, strain, trace and kill: `python writers.py COMMAND ROOT …`, alone with ocad_registry."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ocad_registry import Artifact, Draft, GateResult, PluginReference, Registry, RegistryError

NAME = "m"
PAYLOAD = bytes(range(256)) * 1024


def draft(name: str = NAME) -> Draft:
    gate = GateResult(name="skill", metric="skill", op=">", threshold=0, observed=1, passed=True)
    plugin = PluginReference(name="tcn", version="0.1.0", package="ocad")
    return Draft(name=name, plugin=plugin, task="forecast", metrics={"skill": 1}, gates=[gate])


def artifacts() -> list[Artifact]:
    folder = Path(tempfile.mkdtemp(prefix="writers-", dir=os.environ.get("WRITERS_TEMPORARY")))
    for name in ("a.bin", "b.bin"):
        (folder / name).write_bytes(PAYLOAD)
    return [Artifact(folder / "a.bin", "weights"), Artifact(folder / "b.bin", "report")]


def publish(root: str, count: str) -> None:
    """Publishes `count` versions and prints their references."""
    files = artifacts()
    for _ in range(int(count)):
        print(Registry(root).publish(draft(), files).ref, flush=True)


def promote(root: str, reference: str, count: str, expect: str = "") -> None:
    """Promotes `count` times and prints each entry's number, or what refused it."""
    registry = Registry(root)
    for _ in range(int(count)):
        try:
            print(registry.promote(reference, "production", expect=expect or None).number, flush=True)
        except RegistryError as error:
            print(error.code, flush=True)


def crash(root: str, rounds: str, seed: str) -> None:
    """Kills a publishing and promoting child `rounds` times at random moments; prints what each had acknowledged.

    The moments are seeded fractions of three times what a publish and a promotion take on this machine now.
    """
    chance, files, registry = random.Random(int(seed)), artifacts(), Registry(root)
    registry.publish(draft(), files)
    started = time.monotonic()
    registry.promote(registry.publish(draft(), files).ref, "production")
    span = 3 * (time.monotonic() - started)
    for _ in range(int(rounds)):
        print(json.dumps(_crash_once(root, files, chance.uniform(0.0, span))), flush=True)


def _crash_once(root: str, files: list[Artifact], delay: float) -> list[list[str]]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _work_for_ever(root, files, lambda line: os.write(writer, f"{line}\n".encode()))
    os.close(writer)
    assert os.read(reader, 6) == b"ready\n"
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, encoding="utf-8") as acknowledged:
        return [line.split() for line in acknowledged.read().splitlines()]


def _work_for_ever(root: str, files: list[Artifact], acknowledge: Callable[[str], object]) -> None:
    try:
        registry = Registry(root)
        acknowledge("ready")
        while True:
            version = registry.publish(draft(), files)
            acknowledge(f"published {version.version}")
            entry = registry.promote(version.ref, "production")
            acknowledge(f"promoted {entry.number} {entry.version}")
    except BaseException as error:
        acknowledge(f"failed {type(error).__name__}")
        os._exit(1)


def fill(root: str, limit: str = "") -> None:
    """Publishes until something refuses, under a file size limit where one is given; prints how often it worked and the refusal."""
    files, done = artifacts(), 0
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        while done < 1000:
            Registry(root).publish(draft(), files)
            done += 1
    except RegistryError as error:
        refusal = {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        print(json.dumps({"done": done, **refusal}), flush=True)


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {f.__name__: f for f in (publish, promote, crash, fill)}
    commands[sys.argv[1]](*sys.argv[2:])
