"""What lists and queries answer: one entry for each version, broken ones included, newest first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ocad_registry import names
from ocad_registry.aliases import all_current
from ocad_registry.numbering import Numbering
from ocad_registry.survey import identity, stamps, survey, unchanged
from ocad_registry.versions import Version, read_metadata

if TYPE_CHECKING:
    import sqlite3

    from ocad_registry.index import Index
    from ocad_registry.query import Query
    from ocad_registry.storage import Storage

Aliases = Mapping[str, Mapping[str, Sequence[str]]]
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A version in a list. Of a `broken` one (`kind: cause`) only name, version and aliases are known.

    A model whose folder cannot be listed stands there as one broken entry, its `version` empty.
    """

    name: str
    version: str
    plugin: str | None = None
    task: str | None = None
    metric: str | None = None
    created_at: str | None = None
    aliases: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    passed: bool = False
    broken: str | None = None

    @property
    def ref(self) -> str:
        """`name@version`; the name alone of a model that cannot be listed."""
        return f"{self.name}@{self.version}" if self.version else self.name

    def to_json(self) -> dict[str, Any]:
        """The shape of `ocad registry list --json`; `broken` only where it is."""
        shown = {
            "name": self.name,
            "version": self.version,
            "ref": self.ref,
            "plugin": self.plugin,
            "task": self.task,
            "metric": self.metric,
            "created_at": self.created_at,
            "aliases": self.aliases,
            "metrics": self.metrics,
            "passed": self.passed,
        }
        return shown if self.broken is None else {**shown, "broken": self.broken}


class Page(NamedTuple):
    """A part of a list, and how many entries the whole has."""

    entries: list[Entry]
    total: int


class Catalogue:
    """Answers from the query index, which is brought up to date each time with what the storage lists."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._opened: Index | None = None
        self.numbering = Numbering(storage)

    @property
    def _index(self) -> Index:
        """The index; resolving and publishing do without it, and without sqlite."""
        if self._opened is None:
            from ocad_registry.index import Index

            self._opened = Index(self._storage.root)
        return self._opened

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        listed = self._storage.list("").items()
        return sorted(name for name, kind in listed if kind == "folder" and names.is_model(name))

    def living(self, name: str) -> dict[str, bool]:
        """The versions that are not deleted, and whether each lies in a plain folder (a symlink is broken)."""
        return survey(self._storage, name).living()

    def page(
        self, name: str | None = None, query: Query | None = None, limit: int | None = None, offset: int = 0
    ) -> Page:
        """The versions of the model `name`, or of all: newest first, then by name and highest version; broken ones last.

        With `query` only the readable ones that it chooses; from `offset` on, at most `limit`.
        """
        while True:
            rows, total, aliases, shut = self._select(name, query, limit, offset)
            # a file that was changed in place shows in no listing: what is answered is looked at
            changed = [row for row in rows if not unchanged(self._storage, row[0], row[1], row[-1])]
            if not changed:
                entries = [_entry(row, aliases) for row in rows]
                end = None if limit is None else max(0, offset + limit - total)
                entries += shut[max(0, offset - total) : end]  # after all others, as the broken ones that they are
                return Page(entries, total + len(shut))
            self._index.answer(partial(_discard, rows=changed))

    def _select(
        self, name: str | None, query: Query | None, limit: int | None, offset: int
    ) -> tuple[list[Row], int, Aliases, list[Entry]]:
        """The rows of a page, how many there are in all, the aliases of their models, and the models that are shut."""
        from ocad_registry import index_rows
        from ocad_registry.coherence import Look

        paths = query.paths if query else frozenset()
        models = self.models() if name is None else [name]
        aliases = self._aliases(models) if any(path[0] == "aliases" for path in paths) else {}
        look = Look(self._storage, models, complete=name is None)

        def select(connection: sqlite3.Connection) -> tuple[list[Row], int]:
            chosen = query.select(index_rows.IndexFacts(connection, aliases)) if query else None
            return index_rows.page(connection, name, chosen, limit, offset)

        rows, total = self._index.answer(lambda connection: look.answer(connection, paths, select))
        shut = [] if query else [Entry(other, "", broken=error.verdict) for other, error in look.unreadable.items()]
        return rows, total, aliases or self._aliases({row[0] for row in rows}), shut

    def document(self, version: Version) -> dict[str, Any]:
        """The verified `metadata.json`, from the index while its file is unchanged; raises `Corrupt` or `NotFound`."""
        from ocad_registry.coherence import keep, look_up
        from ocad_registry.index_rows import Reading

        name, number = version.name, version.version
        known = identity(self._storage, name, number, True)
        found = self._index.answer(lambda connection: look_up(connection, name, number, known)) if known else None
        if found:
            version.check_digest(found[1])
            document: dict[str, Any] = json.loads(found[0])
            return document
        stamp = stamps(self._storage, name, {number: True}).get(number, b"")
        metadata = read_metadata(self._storage, name, number)
        version.check_digest(metadata.sha256)
        reading = Reading.of((name, number, stamp, known), metadata.document, metadata.sha256)
        self._index.answer(lambda connection: keep(connection, reading))
        return metadata.document

    def _aliases(self, models: Iterable[str]) -> dict[str, dict[str, list[str]]]:
        """Model → version → the aliases that point at it, sorted."""
        found: dict[str, dict[str, list[str]]] = {}
        for name in models:
            pointing = found[name] = {}
            for alias, version in all_current(self._storage, name).items():
                pointing.setdefault(version, []).append(alias)
        return found


def completions(storage: Storage, catalogue: Catalogue, prefix: str) -> list[str]:
    """The references that begin with `prefix`: models, and after `@` a model's aliases and versions, highest first."""
    name, at, start = prefix.partition("@")
    if not at:
        return [model for model in catalogue.models() if model.startswith(name)]
    if not names.is_model(name):
        return []
    versions = sorted(catalogue.living(name), key=names.version_key, reverse=True)
    targets = [*all_current(storage, name), *versions]
    return [f"{name}@{target}" for target in targets if target.startswith(start)]


def _entry(row: Row, aliases: Aliases) -> Entry:
    name, version, plugin, task, metric, created_at, metrics, passed, broken, _ = row
    pointing = list(aliases[name].get(version, ()))
    if broken is not None:
        return Entry(name, version, aliases=pointing, broken=broken)
    return Entry(name, version, plugin, task, metric, created_at, pointing, json.loads(metrics), bool(passed))


def _discard(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    from ocad_registry import index_rows
    from ocad_registry.index import transaction

    with transaction(connection, writing=True):
        for name, version, *_ in rows:
            index_rows.discard(connection, name, version)
