"""Garbage: what no reader can see any more and no writer will finish.

Three kinds: the payload and signatures of deleted versions once their grace is over (`deleted`); staging folders that no
writer holds (`staging`); and, in object stores, what a killed or beaten publisher left under a version's number (`orphan`).
Nothing that is, or may become, a living version is ever among them, so that collecting needs no lock against writers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ocad_registry import names
from ocad_registry.errors import Corrupt
from ocad_registry.storage import Waste, duration
from ocad_registry.versions import DELETED, SIGNATURES

if TYPE_CHECKING:
    from ocad_registry.storage import Storage


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that collecting removes now (`due`) or later; `size` in bytes, `path` relative to the registry."""

    path: str
    kind: str
    size: int
    due: bool
    removed: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As `ocad registry gc --json` shows it."""
        return asdict(self)


def collect(storage: Storage, models: Iterable[str], grace: float, dry_run: bool) -> list[Garbage]:
    """Finds all garbage and, unless `dry_run`, removes what is due. `grace` in seconds."""
    found = (_dispose(storage, waste, dry_run) for waste in _find(storage, models, grace))
    # what was due and is gone was removed, or taken up again, by another process
    return [garbage for garbage in found if garbage.removed or dry_run or not garbage.due]


def _dispose(storage: Storage, waste: Waste, dry_run: bool) -> Garbage:
    size = storage.size(waste.path)
    removed = waste.due and not dry_run and storage.discard(waste.path)
    return Garbage(waste.path, waste.kind, size, waste.due, removed, waste.reason)


def _find(storage: Storage, models: Iterable[str], grace: float) -> Iterator[Waste]:
    yield from storage.abandoned()
    for name in models:
        try:
            tombstones = sorted(storage.names(f"{name}/{DELETED}"))
        except Corrupt:  # what cannot be read is not garbage
            continue
        for file in tombstones:
            version = file.removesuffix(".json")
            if file.endswith(".json") and names.is_version(version):
                yield from _deleted(storage, name, version, grace)


def _deleted(storage: Storage, name: str, version: str, grace: float) -> Iterator[Waste]:
    left = [path for path in (f"{name}/{version}", f"{name}/{SIGNATURES}/{version}") if storage.kind(path) is not None]
    if not left:
        return
    age = storage.age(f"{name}/{DELETED}/{version}.json")
    due = age >= grace
    reason = f"deleted {duration(age)} ago" + ("" if due else f", kept for {duration(grace - age)} more")
    for path in left:
        yield Waste(path, "deleted", age, due, reason)
