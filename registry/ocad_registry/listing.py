"""What lists and queries answer: one entry for each version, broken ones included, newest first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from ocad_registry import names
from ocad_registry.aliases import all_current
from ocad_registry.errors import Corrupt, NotFound
from ocad_registry.versions import DELETED, METADATA, read_metadata

if TYPE_CHECKING:
    from ocad_registry.storage import Stamp, Storage


@dataclass(frozen=True, slots=True)
class Entry:
    """A version in a list. Of a `broken` one (`kind: cause`) only name, version and aliases are known."""

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
    document: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The `metadata.json` that it was made from."""

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

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


class Catalogue:
    """Reads the metadata of many versions, each only once for as long as its file stays the same."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._seen: dict[str, tuple[frozenset[str], list[str]]] = {}
        self._known: dict[str, tuple[Stamp, dict[str, Any]]] = {}

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        listed = self._storage.list("").items()
        return sorted(name for name, kind in listed if kind == "folder" and names.is_model(name))

    def next_version(self, name: str) -> str:
        """The next minor after the highest number ever given: to a living, broken, incomplete or deleted version.

        Looks closely only at names that it has not seen before, so that the cost of a publish hardly grows.
        """
        seen, highest = self._seen.get(name, (frozenset(), []))
        listed = frozenset(chain(self._storage.names(name), self._deleted(name)))
        fresh = [version for version in listed - seen if names.is_version(version)]
        highest = sorted([*highest, *fresh], key=names.version_key)[-1:]
        self._seen[name] = listed, highest
        return names.check_version(names.next_minor(highest))

    def entries(self, models: Iterable[str]) -> list[Entry]:
        """The versions of `models`: newest first, then by name and highest version; broken ones last."""
        found = [entry for name in models for entry in self._model(name)]
        found.sort(key=lambda entry: names.version_key(entry.version), reverse=True)
        found.sort(key=lambda entry: entry.name)
        found.sort(key=lambda entry: entry.created_at or "", reverse=True)
        return found

    def document(self, name: str, version: str) -> dict[str, Any]:
        """The verified `metadata.json`, from memory while the file is unchanged; raises `Corrupt` or `NotFound`."""
        ref, stamp = f"{name}@{version}", self._storage.stamp(f"{name}/{version}/{METADATA}")
        if (known := self._known.get(ref)) and known[0] == stamp:
            return known[1]
        document = read_metadata(self._storage, name, version).document
        if stamp is not None:
            self._known[ref] = stamp, document
        return document

    def living(self, name: str) -> dict[str, bool]:
        """The versions that are not deleted, and whether each lies in a plain folder (a symlink is broken)."""
        deleted = self._deleted(name)
        return {
            version: kind == "folder"
            for version, kind in self._storage.list(name).items()
            if kind in ("folder", "link") and names.is_version(version) and version not in deleted
        }

    def _model(self, name: str) -> Iterable[Entry]:
        aliases: dict[str, list[str]] = {}
        for alias, version in all_current(self._storage, name).items():
            aliases.setdefault(version, []).append(alias)
        for version, plain in self.living(name).items():
            entry = self._entry(name, version, plain, aliases.get(version, []))
            if entry is not None:
                yield entry

    def _entry(self, name: str, version: str, plain: bool, aliases: list[str]) -> Entry | None:
        try:
            if not plain:
                raise Corrupt("symlink", f"`{name}@{version}` is a symlink")
            document = self.document(name, version)
        except NotFound:
            return None
        except Corrupt as error:
            return Entry(name, version, aliases=aliases, broken=error.verdict)
        return Entry(
            name,
            version,
            plugin=document["plugin"]["name"],
            task=document["task"],
            metric=document.get("metric"),
            created_at=document["created_at"],
            aliases=aliases,
            metrics=document["metrics"],
            passed=document["passed"],
            document=document,
        )

    def _deleted(self, name: str) -> set[str]:
        files = self._storage.names(f"{name}/{DELETED}")
        return {file[:-5] for file in files if file.endswith(".json") and names.is_version(file[:-5])}
