"""The query index: a sqlite file in the user's cache folder that remembers what every `metadata.json` said when it was read.

It is only a cache. Which versions there are is asked of the storage each time (`survey`); the index keeps one row for each
version, with the verdict on its metadata and the identity of the file that it was read from, and a *seal* for each model: the
digest of the listing that its rows were last compared with. An answer is selected in the same transaction in which the
listing was found to fit the seal, or the rows were brought up to date. Processes may interleave in any order: a row is true
of the file it was read from, whoever writes it, and whoever writes or removes one outside such a transaction breaks the seal.

A file that is broken, foreign, or of another schema is removed and built anew, and so is one that somebody else wrote into:
its last writer leaves a *mark* (`_mark`) that every other write takes away, and what is answered has a digest in its row.
Where no file can be kept (no room, no rights, another process holds it for too long) an answer comes from an index in memory.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ocad_registry.cache import cache_folder

APPLICATION = 0x6F636164
SCHEMA = 2
BUSY_SECONDS = 10.0
KEPT_SECONDS = 90 * 24 * 3600.0
MARKED_SECONDS = 0.25
"""How long a writer is waited for that has committed and not left its mark yet."""
MEMORY = ":memory:"
DAMAGE = (sqlite3.Error, ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""What an answer from a damaged file may raise."""
logger = logging.getLogger("ocad_registry")
_SMALLEST_PAGE = 512
Answer = TypeVar("Answer")
_TABLES = (
    """CREATE TABLE model (name TEXT PRIMARY KEY, digest BLOB NOT NULL, mark BLOB NOT NULL, whole INTEGER NOT NULL)""",
    """CREATE TABLE version (
        id INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, stamp BLOB NOT NULL, identity BLOB NOT NULL,
        created_at TEXT NOT NULL, rank TEXT NOT NULL, plugin TEXT, task TEXT, metric TEXT, metrics TEXT, passed INTEGER,
        broken TEXT, digest BLOB NOT NULL, UNIQUE (model, version)
    )""",
    "CREATE INDEX newest ON version (created_at DESC, model, rank DESC)",
    "CREATE INDEX newest_of_model ON version (model, created_at DESC, rank DESC)",
    "CREATE INDEX broken ON version (model) WHERE broken IS NOT NULL",
    "CREATE TABLE document (id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, json TEXT NOT NULL, digest BLOB NOT NULL)",
    "CREATE TABLE field (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, asked INTEGER NOT NULL)",
    "CREATE TABLE value (field INTEGER, value, version INTEGER, PRIMARY KEY (field, value, version)) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)


class Index:
    """The index of the registry at `root`, opened when it is first asked; safe for threads, and anew in a forked process."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, tuple[int, int] | None] = 0, None
        self._memory: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    def __getstate__(self) -> str:
        return self._root

    def __setstate__(self, root: str) -> None:
        self.__init__(root)  # type: ignore[misc]

    def answer(self, ask: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """What `ask` makes of the index: of a new one if the file is broken, of one in memory if there can be no file."""
        with self._lock:
            for _ in range(2):
                try:
                    return ask(self._open())
                except DAMAGE as error:
                    cause = error
                    self._close()
                    if not _is_broken(error):
                        break
                    _remove(self._place())
            if self._memory is None:
                self._memory = connect(MEMORY)
                self._tell(cause)
            return ask(self._memory)

    def _tell(self, cause: Exception) -> None:
        """Once: without a file every process reads all versions."""
        said = "no query index is kept for `%s` (%s): set `OCAD_CACHE` to a folder that can be written"
        logger.warning(said, self._root, " ".join(str(cause).split()))

    def _open(self) -> sqlite3.Connection:
        """The connection, to the file that has the index's name now."""
        place = self._place()
        if self._connection is None or self._opened != (os.getpid(), _inode(place)):
            self._close()
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise sqlite3.OperationalError(str(error)) from None
            if not place.exists():
                _remove_old(place.parent)
            self._connection = connect(str(place))
            self._opened = os.getpid(), _inode(place)
            with suppress(OSError):
                os.utime(place, ns=(time.time_ns(), place.stat().st_mtime_ns))
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._opened[0] != os.getpid():
            _FOREIGN.append(connection)  # closing it here would take the parent's locks away
            return
        with suppress(sqlite3.Error):
            connection.close()

    def _place(self) -> Path:
        return index_file(self._root)


def index_file(root: str) -> Path:
    """Where the index of the registry at `root` (a folder or URL) lies; raises `sqlite3.OperationalError` without a home."""
    place = root if "://" in root else os.path.realpath(root)
    # by machine, because sqlite's locks do not hold between the machines that share a home folder
    key = hashlib.sha256(f"{place}\n{os.uname().nodename}".encode(errors="surrogateescape")).hexdigest()
    try:
        return cache_folder() / "index" / f"{key[:32]}.sqlite"
    except RuntimeError as error:
        raise sqlite3.OperationalError(str(error)) from None


class Connection(sqlite3.Connection):
    """A connection to an index; `place` is its file, None for one in memory."""

    place: Path | None = None


@contextmanager
def transaction(connection: sqlite3.Connection, *, writing: bool) -> Iterator[None]:
    """One transaction; a writing one waits for others. Raises `sqlite3.DatabaseError` where the file has lost its mark."""
    place = connection.place if isinstance(connection, Connection) else None
    connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
    try:
        if place is not None:
            connection.execute("PRAGMA user_version").fetchone()  # from here on nobody commits
            _check_mark(place)
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if writing and place is not None:
        with suppress(OSError):
            os.utime(place, ns=(time.time_ns(), _mark(place)))


def _mark(place: Path) -> int:
    """The time of change (ns) that the last writer gives the file: whole seconds, which all file systems keep, by its size."""
    return place.stat().st_size // _SMALLEST_PAGE * 10**9


def _check_mark(place: Path) -> None:
    deadline = time.monotonic() + MARKED_SECONDS
    with suppress(FileNotFoundError):  # removed by another, who had a reason
        while place.stat().st_mtime_ns != _mark(place) and place.stat().st_size:
            if time.monotonic() > deadline:
                raise sqlite3.DatabaseError("somebody else wrote into it")
            time.sleep(0.001)


_FOREIGN: list[sqlite3.Connection] = []


def connect(place: str) -> sqlite3.Connection:
    """A connection to the index in the file `place`, whose tables are made where they are missing."""
    connection = sqlite3.connect(
        place, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=Connection
    )
    connection.place = None if place == MEMORY else Path(place)
    try:
        for setting in ("synchronous = NORMAL", "cache_size = -65536", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}")
        if not _is_ours(connection):
            with transaction(connection, writing=True):
                # another process may have made them while this one waited
                if not _is_ours(connection):
                    for statement in _TABLES:
                        connection.execute(statement)
    except sqlite3.Error as error:
        connection.close()
        if "already exists" in str(error):
            raise sqlite3.DatabaseError(f"`{place}` is no index of this schema") from None
        raise
    return connection


def _is_ours(connection: sqlite3.Connection) -> bool:
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if found not in ([0, 0], [APPLICATION, SCHEMA]):
        raise sqlite3.DatabaseError("it is no index of this schema")
    return found == [APPLICATION, SCHEMA]


def _is_broken(error: Exception) -> bool:
    """Whether the file is at fault: what is wrong with its surroundings is an `OperationalError`."""
    said = str(error)
    return not isinstance(error, sqlite3.OperationalError) or "no such" in said or "decode" in said


def _remove(place: Path) -> None:
    for suffix in ("", "-journal"):
        with suppress(OSError):
            place.with_name(place.name + suffix).unlink()


def _remove_old(folder: Path) -> None:
    """Indexes that nobody has opened for long: of registries that may be gone."""
    for place in folder.glob("*.sqlite"):
        with suppress(OSError):
            if place.stat().st_atime < time.time() - KEPT_SECONDS:
                place.unlink()


def _inode(place: Path) -> tuple[int, int] | None:
    try:
        found = place.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
