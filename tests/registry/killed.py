"""Writers of every kind, killed at random moments: `python -m tests.registry.killed ROOT KILLS SEED`; prints its counts as JSON.

Each round two processes publish, promote, roll back, delete, collect garbage, import and copy, and tell before and after each
step; both are killed (SIGKILL) in the midst of their work. Then everything that was acknowledged must be there, nothing half
visible, and no entry of an alias may have changed or gone. The steps come from the seed; at which instruction a kill hits, and so
the counts, also from the machine.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.registry.writers import NAME, draft

from ocad_registry import AliasEntry, Artifact, Registry, RegistryError

FOREIGN, ALIAS = "foreign", "production"
MOST_STEPS = 4
Tell = Callable[[str], object]


@dataclass
class Ledger:
    """What the killed told: versions that must be there, those that must not, and those whose delete was begun."""

    living: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    moves: dict[int, str | None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def take(self, lines: list[list[str]]) -> None:
        """Enters what one process told."""
        for step, *what in lines:
            self.counts[step] += 1
            if step in ("published", "imported", "copied"):
                self.living.add(what[0])
            elif step == "deleting":
                self.doubtful.add(what[0])
            elif step == "deleted":
                self.deleted.add(what[0])
            elif step == "moved":
                self.moves[int(what[0])] = what[1]


class Writer:
    """The steps of one process on the registry in `root`."""

    def __init__(self, root: str, folder: Path, chance: random.Random, tell: Tell) -> None:
        self.registry = Registry(root)
        self.foreign = Registry(folder / "foreign")
        self.files = [Artifact(folder / name, "weights") for name in ("a.bin", "b.bin")]
        self.archives = sorted(folder.glob("*.tar"))
        self.chance, self.tell = chance, tell

    def publish(self) -> None:
        self.tell(f"published {self.registry.publish(draft(), self.files).ref}")

    def promote(self) -> None:
        entry = self.registry.promote(self._any(), ALIAS)
        self.tell(f"moved {entry.number} {entry.version}")

    def rollback(self) -> None:
        entry = self.registry.rollback(NAME, ALIAS)
        self.tell(f"moved {entry.number} {entry.version}")

    def delete(self) -> None:
        reference = self._any()
        self.tell(f"deleting {reference}")
        self.registry.delete(reference)
        self.tell(f"deleted {reference}")

    def gc(self) -> None:
        self.tell(f"collected {sum(garbage.removed for garbage in self.registry.collect_garbage(grace=0))}")

    def take_in(self) -> None:
        self.tell(f"imported {self.registry.import_archive(self.chance.choice(self.archives)).ref}")

    def copy(self) -> None:
        [copied] = self.foreign.copy(f"{FOREIGN}@{self.chance.randrange(4)}.0.0", self.registry)
        self.tell(f"copied {copied.ref}")

    def work(self) -> None:
        """Steps for ever; a refusal that the rules call for is no failure."""
        steps = [self.publish] * 4 + [self.promote] * 3 + [self.take_in] * 2
        steps += [self.rollback, self.delete, self.gc, self.copy]
        while True:
            try:
                self.chance.choice(steps)()
            except RegistryError as error:
                if error.code not in ("in-use", "not-found", "version-exists"):
                    raise
                self.tell(f"refused {error.code}")

    def _any(self) -> str:
        entries = self.registry.list(NAME)
        return self.chance.choice(entries[:6]).ref if entries else f"{NAME}@1.0.0"


def prepare(folder: Path) -> None:
    """Payload, another registry to copy from, and archives of other numbers to import."""
    for name, size in (("a.bin", 3), ("b.bin", 40)):
        (folder / name).write_bytes(bytes(range(256)) * 256 * size)
    foreign = Registry(folder / "foreign")
    for number in range(4):
        foreign.publish(draft(FOREIGN), [Artifact(folder / "a.bin", "weights")], f"{number}.0.0")
    for number in range(8):
        version = foreign.publish(draft(), [Artifact(folder / "b.bin", "weights")], f"0.{number}.0")
        foreign.export(version.ref, folder / f"{number}.tar")


def start(root: str, folder: Path, seed: int) -> tuple[int, TextIO]:
    """A writer in a process of its own: its id, and where it tells."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, os.fdopen(reader, encoding="utf-8")
    try:
        os.close(reader)
        at_work = Writer(root, folder, random.Random(seed), lambda line: os.write(writer, f"{line}\n".encode()))
        at_work.work()
    except BaseException as error:
        os.write(writer, f"failed {type(error).__name__}: {error}\n".encode())
    os._exit(1)


def strike(root: str, folder: Path, chance: random.Random, ledger: Ledger) -> None:
    """One round: two writers, killed one after the other, each in the midst of a step after some that it told of."""
    writers = [start(root, folder, chance.randrange(2**32)) for _ in range(2)]
    for child, told in writers:
        began, lines = time.monotonic(), [told.readline() for _ in range(chance.randint(1, MOST_STEPS))]
        pace = (time.monotonic() - began) / len(lines)
        time.sleep(chance.uniform(0.0, 2 * pace))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with told:
            ledger.take([line.split() for line in (*lines, *told)])
    ledger.counts.update(kills=2, interrupted=any(Path(root, ".staging").iterdir()))
    assert not ledger.counts["failed"], "a writer failed instead of being killed"


def check(registry: Registry, ledger: Ledger, before: list[AliasEntry]) -> list[AliasEntry]:
    """Asserts what must hold after every kill; the history of the alias."""
    listed = {entry.ref: entry for entry in registry.list()}
    assert not [entry.broken for entry in listed.values() if entry.broken], "a version is half visible"
    assert ledger.living - ledger.doubtful <= listed.keys(), "an acknowledged version is lost"
    assert not ledger.deleted & listed.keys(), "a deleted version is back"
    ledger.doubtful -= listed.keys()  # that delete never came to its tombstone
    try:
        history = registry.history(NAME, ALIAS)
    except RegistryError:
        history = []
    assert history[: len(before)] == before, "an entry of the alias changed, or is gone"
    assert [entry.number for entry in history] == list(range(1, len(history) + 1))
    assert {number: history[number - 1].version for number in ledger.moves} == ledger.moves, "a move is lost"
    target = registry.aliases(NAME).get(ALIAS)
    assert target is None or f"{NAME}@{target}" in listed, "the alias points at what is not there"
    return history


def clean(root: Path, registry: Registry) -> int:
    """Collects all garbage and asserts that nothing is left; how much there was."""
    assert registry.verify() == []
    removed = sum(garbage.removed for garbage in registry.collect_garbage(grace=0))
    assert registry.collect_garbage(grace=0) == []
    assert list((root / ".staging").iterdir()) == [], "staging of dead writers is left"
    stored = {f"{path.parent.parent.name}@{path.parent.name}" for path in root.glob("*/*/metadata.json")}
    assert stored == {entry.ref for entry in registry.list()}, "the payload of a deleted version is left"
    assert registry.verify() == []
    return removed


def file_system(place: Path) -> str:
    """The type of the file system that `place` lies on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    above = [mount for mount in mounts if place.is_relative_to(mount[0])]
    return max(above, key=lambda mount: len(mount[0]))[1]


def main(root: str, kills: str, seed: str) -> None:
    """Runs the rounds."""
    chance, registry, ledger, history = random.Random(int(seed)), Registry(root), Ledger(), list[AliasEntry]()
    with tempfile.TemporaryDirectory(dir=Path(root).parent) as folder:
        prepare(Path(folder))
        while ledger.counts["kills"] < int(kills):
            strike(root, Path(folder), chance, ledger)
            history = check(registry, ledger, history)
    removed = clean(Path(root), registry)
    ledger.counts.update(entries=len(history), versions=len(registry.list()), garbage=removed)
    print(json.dumps({"file_system": file_system(Path(root).resolve()), **ledger.counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
