"""Brings the query index up to date with what the storage lists, and answers from it in the same transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ocad_registry import index_rows
from ocad_registry.errors import Corrupt, NotFound
from ocad_registry.index import transaction
from ocad_registry.index_rows import Reading
from ocad_registry.prefetch import Prefetch
from ocad_registry.survey import Survey, identity, stamps, survey
from ocad_registry.versions import Reader, read_metadata

if TYPE_CHECKING:
    from ocad_registry.query import Path
    from ocad_registry.storage import Storage

Answer = TypeVar("Answer")
INLINE = 200
"""How many versions may be read while the index is locked; more of them are read before, in batches of `BATCH`."""
BATCH = 2000


class _Task(NamedTuple):
    """A version that is to be read: its model, whether it lies in a plain folder, and its stamp before reading."""

    name: str
    version: str
    plain: bool
    stamp: bytes


class Look:
    """What the storage lists of some models (`complete`: of all there are) at the moment this is made.

    `unreadable` are those that cannot be listed, with the cause; the index knows nothing of them then.
    """

    def __init__(self, storage: Storage, models: Sequence[str], *, complete: bool) -> None:
        self._storage = storage
        self._complete = complete
        self._views: list[_View] = []
        self.unreadable: dict[str, Corrupt] = {}
        for name in models:
            try:
                self._views.append(_View(storage, survey(storage, name)))
            except Corrupt as error:
                self.unreadable[name] = error
        self._models = [view.survey.name for view in self._views]
        self._absent: set[tuple[str, str]] = set()
        self._prefetch = Prefetch(storage)

    def answer(
        self, connection: sqlite3.Connection, paths: Iterable[Path], select: Callable[[sqlite3.Connection], Answer]
    ) -> Answer:
        """What `select` finds once every version has its row, and the fields `paths` their values."""
        with transaction(connection, writing=False):
            if self._fits(connection) and not index_rows.unknown(connection, paths):
                return select(connection)
        while True:
            with transaction(connection, writing=True):
                tasks = self._prune(connection)
                if len(tasks) <= INLINE:
                    index_rows.remember(connection, self._read(tasks))
                    self._seal(connection)
                    index_rows.add_fields(connection, paths)
                    return select(connection)
            for start in range(0, len(tasks), BATCH):
                readings = self._read(tasks[start : start + BATCH])
                with transaction(connection, writing=True):
                    index_rows.remember(connection, readings)
                    index_rows.break_seals(connection, {reading.name for reading in readings})

    def _fits(self, connection: sqlite3.Connection) -> bool:
        """Whether the rows are those of the listing, and nothing is to be written."""
        seals = index_rows.seals(connection)
        if self._complete and not seals.keys() <= set(self._models):
            return False
        return all(view.fits(connection, seals.get(view.survey.name)) for view in self._views)

    def _prune(self, connection: sqlite3.Connection) -> list[_Task]:
        """Forgets what is no more, or no more the same; what is still to be read."""
        if self._complete:
            index_rows.keep_only(connection, self._models)
        seals = index_rows.seals(connection)
        tasks: list[_Task] = []
        for view in self._views:
            if not view.fits(connection, seals.get(view.survey.name)):
                gone, missing = view.difference(connection)
                index_rows.forget(connection, gone)
                tasks += [task for task in missing if (task.name, task.version) not in self._absent]
        return tasks

    def _seal(self, connection: sqlite3.Connection) -> None:
        seals = index_rows.seals(connection)
        for view in self._views:
            if not view.fits(connection, seals.get(view.survey.name)):
                view.seal(connection)

    def _read(self, tasks: Sequence[_Task]) -> list[Reading]:
        """Reads versions; those without metadata are noted as absent."""
        self._prefetch.add((task.name, task.version) for task in tasks if task.plain)
        readings = [_read(self._storage, task, self._prefetch) for task in tasks]
        self._absent |= {
            (task.name, task.version) for task, reading in zip(tasks, readings, strict=True) if reading is None
        }
        return [reading for reading in readings if reading is not None]


class _View:
    """One model: its survey, and what follows from it once it is needed."""

    def __init__(self, storage: Storage, found: Survey) -> None:
        self._storage = storage
        self.survey = found

    @cached_property
    def living(self) -> dict[str, bool]:
        return self.survey.living()

    @cached_property
    def stamps(self) -> dict[str, bytes]:
        return stamps(self._storage, self.survey.name, self.living)

    def fits(self, connection: sqlite3.Connection, seal: index_rows.Seal | None) -> bool:
        """Whether the rows are those of the survey."""
        if seal is None:
            return not self.survey.listed
        if seal.digest != self.survey.digest:
            return False
        if self.survey.mark and seal.mark == self.survey.mark and seal.whole:
            return True
        # an older mark is renewed once, so that the next answer costs less
        return (not self.survey.mark or seal.mark == self.survey.mark) and self.difference(connection) == ([], [])

    def difference(self, connection: sqlite3.Connection) -> tuple[list[int], list[_Task]]:
        """The rows that are not true any more, and the versions that have no true one."""
        name = self.survey.name
        known = {version: (id_, stamp) for version, id_, stamp in index_rows.stamps(connection, name)}
        for version, known_identity in index_rows.broken(connection, name):
            # its cause may lie in either file
            now = identity(self._storage, name, version, self.living.get(version, True))
            if not now or now != known_identity:
                known[version] = (known[version][0], b"")
        gone = [id_ for version, (id_, stamp) in known.items() if self.stamps.get(version) != stamp]
        missing = [
            _Task(name, version, self.living[version], stamp)
            for version, stamp in self.stamps.items()
            if version not in known or known[version][1] != stamp
        ]
        return gone, missing

    def seal(self, connection: sqlite3.Connection) -> None:
        """Says that the rows are those of the survey."""
        name, _, _, digest, mark = self.survey
        if self.survey.listed:
            index_rows.set_seal(connection, name, digest, mark, len(self.living))
        else:
            index_rows.drop_seal(connection, name)


def _read(storage: Storage, task: _Task, reader: Reader) -> Reading | None:
    """The row of a version, whose documents `reader` reads; None if it has no metadata."""
    name, version, plain, stamp = task
    start = name, version, stamp, identity(storage, name, version, plain)
    try:
        if not plain:
            raise Corrupt("symlink", f"`{name}@{version}` is a symlink")
        metadata = read_metadata(reader, name, version)
    except NotFound:
        return None
    except Corrupt as error:
        return Reading(*start, broken=error.verdict)
    return Reading.of(start, metadata.document, metadata.sha256)


def look_up(connection: sqlite3.Connection, name: str, version: str, known: bytes) -> tuple[str, str] | None:
    """The metadata (JSON, sha256) that was read from a file of this identity."""
    found = connection.execute(
        "SELECT sha256, json, document.digest FROM document JOIN version USING (id)"
        " WHERE model = ? AND version = ? AND identity = ?",
        (name, version, known),
    ).fetchone()
    if found is None:
        return None
    sha256, text = index_rows.undamaged(found)
    return text, sha256


def keep(connection: sqlite3.Connection, reading: Reading) -> None:
    """Writes the row of a version that was read by itself."""
    with transaction(connection, writing=True):
        index_rows.remember(connection, [reading])
        index_rows.break_seals(connection, {reading.name})
