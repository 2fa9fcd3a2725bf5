"""The state of alerts in one sqlite file, `alerts.db`, shared by a running detection and the commands of `ocad alerts`.

WAL with `synchronous=FULL`: what a transaction committed is on the disk. Times are µs since 1970 UTC.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ocad.errors import OcadError

SCHEMA_VERSION = 2
FILE_NAME = "alerts.db"
_SCHEMA = """
CREATE TABLE groups (id TEXT PRIMARY KEY, key TEXT NOT NULL, state TEXT NOT NULL, severity TEXT NOT NULL,
    sequence INTEGER NOT NULL, repeats INTEGER NOT NULL, due_us INTEGER) WITHOUT ROWID;
CREATE TABLE alerts (id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, group_id TEXT NOT NULL REFERENCES groups (id),
    family TEXT NOT NULL, state TEXT NOT NULL, severity TEXT NOT NULL, opened_us INTEGER NOT NULL, ended_us INTEGER,
    resolved_us INTEGER, due_us INTEGER, acknowledged_us INTEGER, acknowledged_by TEXT NOT NULL, note TEXT NOT NULL,
    incidents INTEGER NOT NULL, summary TEXT NOT NULL, labels TEXT NOT NULL,
    skew_us INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE incidents (id TEXT PRIMARY KEY, alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    body TEXT NOT NULL, seen_us INTEGER NOT NULL, end_us INTEGER, due_us INTEGER) WITHOUT ROWID;
CREATE TABLE notifications (seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, group_id TEXT NOT NULL,
    status TEXT NOT NULL, partial INTEGER NOT NULL, at_us INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE deliveries (sink TEXT NOT NULL, seq INTEGER NOT NULL REFERENCES notifications (seq) ON DELETE CASCADE,
    state TEXT NOT NULL, attempts INTEGER NOT NULL, cause TEXT NOT NULL,
    since_us INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (sink, seq)) WITHOUT ROWID;
CREATE TABLE sinks (name TEXT PRIMARY KEY, stateful INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 0), now_us INTEGER NOT NULL);
CREATE INDEX groups_due ON groups (due_us) WHERE due_us IS NOT NULL;
CREATE INDEX alerts_due ON alerts (due_us) WHERE due_us IS NOT NULL;
CREATE INDEX incidents_due ON incidents (due_us) WHERE due_us IS NOT NULL;
CREATE INDEX alerts_active ON alerts (fingerprint) WHERE state != 'resolved';
CREATE INDEX alerts_of_group ON alerts (group_id);
CREATE INDEX incidents_of_alert ON incidents (alert_id);
CREATE INDEX groups_waiting ON groups (key) WHERE state = 'waiting';
CREATE INDEX deliveries_waiting ON deliveries (sink, seq) WHERE state = 'waiting';
CREATE INDEX deliveries_of_notification ON deliveries (seq);
"""
_FROM_1 = (
    "ALTER TABLE alerts ADD COLUMN skew_us INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE deliveries ADD COLUMN since_us INTEGER NOT NULL DEFAULT 0",
)
"""From format 1 to 2."""


class StoreError(OcadError):
    """The store of alerts cannot be opened, read or written; exit code 1."""

    code = "alert-store"


@dataclass(slots=True)
class Group:
    """Alerts that are told in one notification: `waiting` for more of them, `sent`, then `resolved` with the last."""

    table: ClassVar[str] = "groups"
    id: str
    key: str
    state: str
    severity: str
    sequence: int
    """Notifications so far."""
    repeats: int
    due_us: int | None
    """When it is sent, or sent again."""


@dataclass(slots=True)
class Alert:
    """One endpoint's trouble in one family of metrics: `open`, `ending` (within the hold-down), then `resolved`."""

    table: ClassVar[str] = "alerts"
    id: str
    fingerprint: str
    group_id: str
    family: str
    state: str
    severity: str
    opened_us: int
    ended_us: int | None
    resolved_us: int | None
    due_us: int | None
    """When it escalates (`open`) or is resolved (`ending`)."""
    acknowledged_us: int | None
    acknowledged_by: str
    note: str
    incidents: int
    """How many incidents it has joined."""
    summary: str
    """Its closed incidents as one, in JSON; empty while there are none."""
    labels: str
    """The labels it was last announced with, in JSON; empty before."""
    skew_us: int = 0
    """What to add to its link's own times, which all but `due_us` and `resolved_us` are, to get those of the data."""


@dataclass(slots=True)
class Seen:
    """An incident that was observed: `body` in JSON while it is open, `end_us` once it is closed for good."""

    table: ClassVar[str] = "incidents"
    id: str
    alert_id: str
    body: str
    seen_us: int
    end_us: int | None
    due_us: int | None
    """When it counts as left behind by its detector."""


Row = TypeVar("Row", Group, Alert, Seen)


class AlertStore:
    """One connection to `alerts.db` in `folder`, made with it unless `create` is false; for one thread.

    It waits `patience_s` (real seconds) for other writers. Raises `StoreError` when there is none, when it is not ours,
    newer than this program, or cannot be written.
    """

    def __init__(self, folder: str | Path, *, create: bool = True, patience_s: float = 5) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE_NAME
        if not create and not self.path.is_file():
            raise StoreError(
                f"no alerts in `{self.folder}`", "give `--alerts` or `OCAD_ALERTS`, the folder of `alerts.db`"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=patience_s, isolation_level=None)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise self._explain(error) from error

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
        if self._version() < SCHEMA_VERSION:
            with self.transaction():
                found = self._version()  # another process may have been faster
                made = _SCHEMA.strip().split(";\n") if found == 0 else _FROM_1 if found == 1 else ()
                for statement in made:
                    self._connection.execute(statement)
                if made:
                    self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        if self._version() != SCHEMA_VERSION:
            raise StoreError(f"`{self.path}` has format {self._version()}, newer than this ocad", "upgrade ocad")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        """Gives the file back."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, on the disk when it ends; raises `StoreError` when that fails, and then nothing has changed."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                self._connection.rollback()
            if isinstance(error, sqlite3.Error):
                raise self._explain(error) from error
            raise

    def execute(self, statement: str, *values: Any) -> None:
        """One statement that changes rows, within a transaction."""
        self._connection.execute(statement, values)

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """The answer to a query; raises `StoreError` when the file cannot be read."""
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def put(self, row: Group | Alert | Seen) -> None:
        """Writes `row` over the one with its id, if any, within a transaction."""
        names = [field.name for field in fields(row)]
        changed = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        places = ", ".join("?" * len(names))
        statement = (
            f"INSERT INTO {row.table} ({', '.join(names)}) VALUES ({places}) ON CONFLICT (id) DO UPDATE SET {changed}"
        )
        self._connection.execute(statement, astuple(row))

    def find(self, kind: type[Row], where: str, *values: Any) -> list[Row]:
        """The rows of `kind` for which the SQL condition `where` holds, in order of id."""
        return [
            kind(**dict(row)) for row in self.rows(f"SELECT * FROM {kind.table} WHERE {where} ORDER BY id", *values)
        ]

    def get(self, kind: type[Row], identity: str) -> Row:
        """The row of `kind` with that id, which must exist."""
        return self.find(kind, "id = ?", identity)[0]

    def next_due(self) -> tuple[int, str, str] | None:
        """The earliest deadline as time, table and id: incidents before alerts before groups of the same time."""
        found = self.rows(
            "SELECT * FROM (SELECT due_us, 0 AS rank, 'incidents' AS kind, id FROM incidents WHERE due_us IS NOT NULL"
            " UNION ALL SELECT due_us, 1, 'alerts', id FROM alerts WHERE due_us IS NOT NULL"
            " UNION ALL SELECT due_us, 2, 'groups', id FROM groups WHERE due_us IS NOT NULL)"
            " ORDER BY due_us, rank, id LIMIT 1"
        )
        return (found[0]["due_us"], found[0]["kind"], found[0]["id"]) if found else None

    def now_us(self) -> int:
        """The time of the data when a detection last wrote; 0 before."""
        found = self.rows("SELECT now_us FROM clock")
        return int(found[0]["now_us"]) if found else 0

    def set_now(self, now_us: int) -> None:
        """Keeps the time of the data, within a transaction."""
        self.execute("INSERT INTO clock VALUES (0, ?) ON CONFLICT (id) DO UPDATE SET now_us = excluded.now_us", now_us)

    def changes_by_others(self) -> int:
        """A number that is another one after another connection has changed something; costs microseconds."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def prune(self, before_us: int) -> None:
        """Forgets, within a transaction, what ended before `before_us` and waits for no sink any more."""
        untold = "SELECT seq FROM deliveries JOIN sinks ON sink = name WHERE state = 'waiting'"
        self.execute(f"DELETE FROM notifications WHERE at_us < ? AND seq NOT IN ({untold})", before_us)
        self.execute("DELETE FROM alerts WHERE resolved_us < ?", before_us)
        self.execute("DELETE FROM incidents WHERE end_us < ?", before_us)
        self.execute("DELETE FROM groups WHERE id NOT IN (SELECT group_id FROM alerts)")

    def _explain(self, error: Exception) -> StoreError:
        if isinstance(error, OSError):
            return StoreError(
                f"cannot keep alerts in `{self.folder}` ({os.strerror(error.errno or 0).lower()})", "check it"
            )
        reason = " ".join(str(error).split())
        name = getattr(error, "sqlite_errorname", "")
        return StoreError(f"cannot use `{self.path}` ({reason})", _hint(name))


def _hint(name: str) -> str:
    hints: Iterable[tuple[str, str]] = (
        ("SQLITE_FULL", "free some space on its disk"),
        ("SQLITE_IOERR", "check its disk for space and faults"),
        ("SQLITE_BUSY", "another process holds it for long; look for one that hangs"),
        ("SQLITE_READONLY", "check its permissions and mount"),
        ("SQLITE_CANTOPEN", "check its permissions and disk space"),
        ("SQLITE_NOTADB", "it is no store of alerts; move it away"),
        ("SQLITE_CORRUPT", "it is damaged; move it away, a new one is made"),
    )
    return next((hint for prefix, hint in hints if name.startswith(prefix)), "check the file")
