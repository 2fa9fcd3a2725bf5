"""Processes on one bucket: `python -m tests.registry.objects.writers COMMAND URL …`; forked, so that they start together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tests.registry.writers import artifacts, draft

from ocad_registry import Registry, RegistryError


def publish(url: str, processes: str, version: str = "") -> None:
    """Each process publishes once, all at the same time; prints each one's reference or refusal."""
    files = artifacts()
    _race(int(processes), lambda index: Registry(url).publish(draft(), files, version or None).ref)


def promote(url: str, processes: str, count: str, expect: str = "") -> None:
    """Process N promotes `m@1.N.0` `count` times; prints `N number` of each entry, or its refusal."""

    def moves(index: int) -> str:
        registry = Registry(url)
        made = [registry.promote(f"m@1.{index}.0", "production", expect=expect or None) for _ in range(int(count))]
        return "\n".join(f"{index} {entry.number}" for entry in made)

    _race(int(processes), moves)


def fetch(url: str, processes: str) -> None:
    """Each process reads the weights of `m` through the cache; prints their path."""
    _race(int(processes), lambda index: str(Registry(url).resolve("m").file("weights")))


def victims(url: str) -> None:
    """For each line of stdin forks a process that publishes, prints its id, and how it ended: `REF` or nothing."""
    files = artifacts()
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            _finish(lambda: Registry(url).publish(draft(), files).ref)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


def _race(processes: int, work: Callable[[int], str]) -> None:
    reader, writer = os.pipe()
    children = []
    for index in range(processes):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)  # until every process is there
            _finish(lambda: work(index))  # noqa: B023 - it never returns
        children.append(child)
    os.close(writer)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


def _finish(work: Callable[[], str]) -> None:
    try:
        line = work()
    except RegistryError as error:
        line = error.code
    os.write(1, f"{line}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    import fsspec

    fsspec.get_filesystem_class("s3")  # imported once, not in each process

    commands: dict[str, Callable[..., None]] = {f.__name__: f for f in (publish, promote, fetch, victims)}
    commands[sys.argv[1]](*sys.argv[2:])
