"""What the query index holds: rows of versions, the values that queries compare, and the seals of models (see `index`).

Every function works inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import json
import operator
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from ocad_registry import names
from ocad_registry.patterns import Pattern
from ocad_registry.query import TRUTH, Literal, Path, Value, values

COLUMNS: dict[Path, str] = {
    ("task",): "task",
    ("plugin",): "plugin",
    ("metric",): "metric",
    ("name",): "model",
    ("created_at",): "created_at",
    ("version",): "rank",
    ("ref",): "model || '@' || version",
    ("passed",): "CASE passed WHEN 1 THEN CAST('true' AS BLOB) ELSE CAST('false' AS BLOB) END",
}
"""Fields that stand in the rows of versions; those of metrics are kept as values, and others since somebody asked for them."""
ASKED_LIMIT = 32
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_Value = tuple[int, Value, int]
_ONE = "SELECT id FROM version WHERE model = ? AND version = ?"
_INSERT = "INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Reading(NamedTuple):
    """A version as it was read: its `metadata.json` as `text`, or why it is `broken`.

    `stamp` and `identity` (see `survey`) were taken before the file was opened.
    """

    name: str
    version: str
    stamp: bytes
    identity: bytes
    created_at: str = ""
    shown: tuple[Any, ...] = (None, None, None, None, None)
    """Plugin, task, metric, metrics as JSON, `passed`."""
    metrics: Mapping[str, float] = {}
    text: str = ""
    sha256: str = ""
    broken: str | None = None

    @classmethod
    def of(cls, start: tuple[str, str, bytes, bytes], document: Mapping[str, Any], sha256: str) -> Reading:
        """The reading of a sound `document`, which itself is not kept: thousands of them would weigh on the collector."""
        metrics = document["metrics"]
        shown = (
            document["plugin"]["name"],
            document["task"],
            document.get("metric"),
            _COMPACT.encode(metrics),
            document["passed"],
        )
        return cls(*start, document["created_at"], shown, metrics, _COMPACT.encode(document), sha256)

    def digest(self) -> bytes:
        """That of the row that `page` answers."""
        plugin, task, metric, metrics, passed = self.shown
        kept = None if passed is None else int(passed)
        row = (
            self.name,
            self.version,
            plugin,
            task,
            metric,
            self.created_at,
            metrics,
            kept,
            self.broken,
            self.identity,
        )
        return digest(row)


def digest(row: Sequence[str | int | bytes | None]) -> bytes:
    """What tells a row that was damaged in the file from the one that was written."""
    return hashlib.blake2b(repr(tuple(row)).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def undamaged(row: Sequence[Any]) -> Sequence[Any]:
    """`row` without its last column, the digest of the others; raises `sqlite3.DatabaseError` where that is another."""
    *values, known = row
    if digest(values) != known:
        raise sqlite3.DatabaseError("a row is damaged")
    return values


class Seal(NamedTuple):
    """What the rows of a model were last compared with; `whole` when every version in the listing could be read."""

    digest: bytes
    mark: bytes
    whole: bool


def seals(connection: sqlite3.Connection) -> dict[str, Seal]:
    """The seal of every model."""
    rows = connection.execute("SELECT name, digest, mark, whole FROM model")
    return {name: Seal(digest, mark, bool(whole)) for name, digest, mark, whole in rows}


def set_seal(connection: sqlite3.Connection, name: str, digest: bytes, mark: bytes, versions: int) -> None:
    """Seals the rows of a model, of which the listing has so many `versions`."""
    readable = connection.execute(
        "SELECT count(*) FROM version WHERE model = ? AND broken IS NULL", (name,)
    ).fetchone()[0]
    connection.execute("INSERT OR REPLACE INTO model VALUES (?, ?, ?, ?)", (name, digest, mark, readable == versions))


def break_seals(connection: sqlite3.Connection, models: Iterable[str]) -> None:
    """Rows of `models` were written or removed without a look at the listing."""
    connection.executemany("INSERT OR REPLACE INTO model VALUES (?, x'', x'', 0)", [(name,) for name in models])


def drop_seal(connection: sqlite3.Connection, name: str) -> None:
    """The model has no rows."""
    connection.execute("DELETE FROM model WHERE name = ?", (name,))


def keep_only(connection: sqlite3.Connection, models: Iterable[str]) -> None:
    """Forgets every model but these."""
    for name in seals(connection).keys() - set(models):
        forget(connection, [id_ for (id_,) in connection.execute("SELECT id FROM version WHERE model = ?", (name,))])
        drop_seal(connection, name)


def stamps(connection: sqlite3.Connection, name: str) -> list[tuple[str, int, bytes]]:
    """Version, row and stamp of every version of a model."""
    return connection.execute("SELECT version, id, stamp FROM version WHERE model = ?", (name,)).fetchall()


def broken(connection: sqlite3.Connection, name: str) -> list[tuple[str, bytes]]:
    """Version and identity of those that could not be read."""
    return connection.execute(
        "SELECT version, identity FROM version WHERE model = ? AND broken IS NOT NULL", (name,)
    ).fetchall()


def discard(connection: sqlite3.Connection, name: str, version: str) -> None:
    """Forgets one version, whose file is not what it was."""
    forget(connection, [id_ for (id_,) in connection.execute(_ONE, (name, version))])
    break_seals(connection, [name])


def forget(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Removes these rows and all that hangs on them."""
    if not ids:
        return
    keys = [(id_,) for id_ in ids]
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS gone (id INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM gone")
    connection.executemany("INSERT INTO gone VALUES (?)", keys)
    connection.execute("DELETE FROM value WHERE version IN (SELECT id FROM gone)")
    connection.executemany("DELETE FROM document WHERE id = ?", keys)
    connection.executemany("DELETE FROM version WHERE id = ?", keys)


def remember(connection: sqlite3.Connection, readings: Sequence[Reading]) -> None:
    """Writes rows for `readings`, in place of older ones."""
    # rows that another process has written meanwhile
    forget(connection, [id_ for new in readings for (id_,) in connection.execute(_ONE, (new.name, new.version))])
    first = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM version").fetchone()[0]
    numbered = list(enumerate(readings, first))
    rows = [(id_, *r[:5], names.version_rank(r.version), *r.shown, r.broken, r.digest()) for id_, r in numbered]
    connection.executemany(_INSERT, rows)
    sound = [(id_, reading) for id_, reading in numbered if reading.broken is None]
    documents = [(id_, r.sha256, r.text, digest((r.sha256, r.text))) for id_, r in sound]
    connection.executemany("INSERT INTO document VALUES (?, ?, ?, ?)", documents)
    _Fields(connection).fill(sound)


class _Fields:
    """The fields that have a number in the index."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        rows = connection.execute("SELECT path, id, asked FROM field").fetchall()
        self._numbers: dict[Path, int] = {tuple(json.loads(path)): number for path, number, _ in rows}
        self._asked: list[Path] = [tuple(json.loads(path)) for path, _, asked in rows if asked]

    def fill(self, numbered: Iterable[tuple[int, Reading]]) -> None:
        """The values of new rows."""
        rows: list[_Value] = []
        for id_, reading in numbered:
            for metric, value in reading.metrics.items():
                rows.append((self._number(("metrics", metric)), float(value), id_))
            rows += self._asked_values(id_, reading.text, self._asked)
        self._write(rows)

    def add(self, paths: Sequence[Path]) -> None:
        """The values of fields that nobody asked for before, of all rows."""
        for path in paths:
            self._number(path, asked=True)
        rows = []
        for id_, text in self._connection.execute("SELECT id, json FROM document"):
            rows += self._asked_values(id_, text, paths)
        self._write(rows)

    def _asked_values(self, id_: int, text: str, paths: Sequence[Path]) -> list[_Value]:
        document = json.loads(text) if paths else {}
        return [(self._number(path), value, id_) for path in paths for value in values(document, path)]

    def _number(self, path: Path, asked: bool = False) -> int:
        number = self._numbers.get(path)
        if number is None:
            inserted = self._connection.execute(
                "INSERT INTO field (path, asked) VALUES (?, ?)", (json.dumps(path), asked)
            )
            number = self._numbers[path] = int(inserted.lastrowid or 0)
        return number

    def _write(self, rows: list[_Value]) -> None:
        self._connection.executemany("INSERT INTO value VALUES (?, ?, ?)", rows)


def is_kept(path: Path) -> bool:
    """Whether values at `path` are known without having been asked for."""
    return path in COLUMNS or path[0] == "aliases" or (path[0] == "metrics" and len(path) == 2)


def unknown(connection: sqlite3.Connection, paths: Iterable[Path]) -> list[Path]:
    """Those of `paths` whose values are still to be added."""
    known = {path for (path,) in connection.execute("SELECT path FROM field WHERE asked")}
    return [path for path in paths if not is_kept(path) and json.dumps(path) not in known]


def add_fields(connection: sqlite3.Connection, paths: Iterable[Path]) -> None:
    """Makes `paths` known; where there are too many, the others that were asked for are forgotten."""
    fresh = unknown(connection, paths)
    (asked,) = connection.execute("SELECT count(*) FROM field WHERE asked").fetchone()
    if fresh and asked + len(fresh) > ASKED_LIMIT:
        connection.execute("DELETE FROM value WHERE field IN (SELECT id FROM field WHERE asked)")
        connection.execute("DELETE FROM field WHERE asked")
        fresh = unknown(connection, paths)
    if fresh:
        _Fields(connection).add(fresh)


class IndexFacts:
    """`query.Facts` in the index, and in `aliases`: model → version → the aliases that point at it now."""

    def __init__(self, connection: sqlite3.Connection, aliases: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self._connection = connection
        self._aliases = aliases

    def everything(self) -> set[int]:
        """Every readable version."""
        return self._ids("SELECT id FROM version WHERE broken IS NULL")

    def present(self, path: Path) -> set[int]:
        """Those that have a value at `path`."""
        if path[0] == "aliases":
            return self._pointed(path, lambda _: True)
        return self._ids(f"SELECT version FROM {self._values(path)}")

    def comparing(self, path: Path, symbol: str, literals: Sequence[Literal]) -> set[int]:
        """Those of which a value at `path` is `symbol` than one of `literals`, and of its type."""
        found: set[int] = set()
        for literal in literals:
            found |= self._comparing(path, symbol, literal)
        return found

    def matching(self, path: Path, pattern: Pattern) -> set[int]:
        """Those of which a string at `path` matches as a whole; a version's rank is no string of the user's."""
        if path[0] == "aliases":
            return self._pointed(path, pattern.matches)
        if path == ("version",):
            return set()
        rows = self._connection.execute(f"SELECT value, version FROM {self._values(path)} WHERE typeof(value) = 'text'")
        return {id_ for value, id_ in rows if pattern.matches(value)}

    def _comparing(self, path: Path, symbol: str, literal: Literal) -> set[int]:
        if path[0] == "aliases":
            compare = _COMPARISONS[symbol]
            return self._pointed(path, lambda alias: isinstance(literal, str) and compare(alias, literal))
        if isinstance(literal, bool):
            # of the two there are, `!=` one is `=` the other
            wanted = {"=": literal, "!=": not literal}.get(symbol)
            if wanted is None:
                return set()
            return self._ids(f"SELECT version FROM {self._values(path)} WHERE value = ?", TRUTH[wanted])
        kind = "text" if isinstance(literal, str) else "real"
        assert symbol in _COMPARISONS
        chosen = f"SELECT version FROM {self._values(path)} WHERE value {symbol} ? AND typeof(value) = ?"
        return self._ids(chosen, literal, kind)

    def _values(self, path: Path) -> str:
        """The values at `path` with the versions that have them, as a table to select from; nothing in it is the user's."""
        if path in COLUMNS:
            column = COLUMNS[path]
            return (
                f"(SELECT {column} AS value, id AS version FROM version WHERE broken IS NULL AND {column} IS NOT NULL)"
            )
        row = self._connection.execute("SELECT id FROM field WHERE path = ?", (json.dumps(path),)).fetchone()
        return f"(SELECT value, version FROM value WHERE field = {int(row[0]) if row else 0})"

    def _ids(self, statement: str, *parameters: object) -> set[int]:
        return {id_ for (id_,) in self._connection.execute(statement, parameters)}

    def _pointed(self, path: Path, test: Callable[[str], bool]) -> set[int]:
        """The readable versions at which an alias points that passes `test`."""
        if len(path) > 1:
            return set()
        found: set[int] = set()
        for name, versions in self._aliases.items():
            for version, aliases in versions.items():
                if any(map(test, aliases)):
                    found |= self._ids(
                        "SELECT id FROM version WHERE model = ? AND version = ? AND broken IS NULL", name, version
                    )
        return found


_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def page(
    connection: sqlite3.Connection, name: str | None, chosen: AbstractSet[int] | None, limit: int | None, offset: int
) -> tuple[list[Any], int]:
    """The rows (`ROW`) from `offset` on, at most `limit`, newest first and broken ones last, and how many there are in all.

    Of the model `name` alone, or of all; of the versions `chosen` alone, or of all.
    """
    where, parameters = ("WHERE model = ?", [name]) if name is not None else ("", [])
    if chosen is None:
        (total,) = connection.execute(f"SELECT count(*) FROM version {where}", parameters).fetchone()
        bounds = [*parameters, -1 if limit is None else limit, offset]
        rows = connection.execute(f"SELECT {ROW} FROM version {where} {_ORDER} LIMIT ? OFFSET ?", bounds)
        return list(map(undamaged, rows)), total
    ordered = [
        id_ for (id_,) in connection.execute(f"SELECT id FROM version {where} {_ORDER}", parameters) if id_ in chosen
    ]
    wanted = ordered[offset : None if limit is None else offset + limit]
    one = f"SELECT {ROW} FROM version WHERE id = ?"
    return [undamaged(connection.execute(one, (id_,)).fetchone()) for id_ in wanted], len(ordered)


ROW = "model, version, plugin, task, metric, created_at, metrics, passed, broken, identity, digest"
_ORDER = "ORDER BY created_at DESC, model, rank DESC"
