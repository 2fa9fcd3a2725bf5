"""The number of the next version, at a cost that does not grow with the versions there are.

A writer remembers the highest number beside what the model's folder looked like *after* its own publish, and lists it again
only when somebody else changed something: the folder's times differ then, or, if that came between its two looks, the count
of its subfolders. This is only a cache: which writer gets a number is decided when the version is put in place.
"""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ocad_registry import names
from ocad_registry.versions import DELETED

if TYPE_CHECKING:
    from ocad_registry.storage import Stamp, Storage


LEAST_LINKS = 2
"""What a folder has where its subfolders are counted as links."""


class _Look(NamedTuple):
    """A model's folder: its identity and times, how many subfolders it has, and the identity of `deleted/`."""

    folder: tuple[int, ...]
    subfolders: int
    deleted: Stamp | None


class _State(NamedTuple):
    look: _Look | None
    highest: str | None


class Numbering:
    """The next numbers of the models of one registry."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._asked: dict[str, _State] = {}
        self._known: dict[str, _State] = {}

    def next(self, name: str) -> str:
        """The next minor after the highest number ever given: to a living, broken, incomplete or deleted version."""
        look = self._look(name)
        state = self._known.get(name)
        if state is None or look is None or state.look != look:
            state = _State(look, self._highest(name))
        self._asked[name] = state
        return names.check_version(names.next_minor([state.highest] if state.highest else []))

    def published(self, name: str, version: str) -> None:
        """`version` was put in place under the number that `next` gave."""
        before, look = self._asked.pop(name, None), self._look(name)
        self._known.pop(name, None)
        if look and before and before.look and look[1:] == (before.look.subfolders + 1, before.look.deleted):
            highest = max(filter(None, (before.highest, version)), key=names.version_key)
            self._known[name] = _State(look, highest)

    def _look(self, name: str) -> _Look | None:
        """None where it cannot be told: an object store, or a file system that does not count subfolders as links."""
        place = self._storage.local(name)
        if place is None:
            return None
        try:
            found = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if found.st_nlink < LEAST_LINKS:
            return None
        folder = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        return _Look(folder, found.st_nlink, self._storage.stamp(f"{name}/{DELETED}"))

    def _highest(self, name: str) -> str | None:
        deleted = (file[:-5] for file in self._storage.names(f"{name}/{DELETED}") if file.endswith(".json"))
        taken = filter(names.is_version, chain(self._storage.names(name), deleted))
        return max(taken, key=names.version_key, default=None)
