"""Children: further graphs of one model, versions `NAME-KEY` that were built from a version of `NAME`.

They answer for the same model as their parent, so an alias of the parent takes theirs along.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ocad_registry import aliases as rows
from ocad_registry import names
from ocad_registry.errors import Corrupt, NotFound
from ocad_registry.versions import Version, find_version

if TYPE_CHECKING:
    from ocad_registry.aliases import AliasEntry, EntryKind
    from ocad_registry.signed_aliases import Signer
    from ocad_registry.storage import Storage

Make = Callable[["EntryKind", Version | None], "AliasEntry"]
"""Makes an entry that is still without its number."""


def children(storage: Storage, models: list[str], version: Version) -> list[Version]:
    """The living, readable children of `version`, one of each `NAME-KEY` among `models`: its highest."""
    found = (_child(storage, model, version) for model in models if model.startswith(f"{version.name}-"))
    return [child for child in found if child is not None]


def _child(storage: Storage, model: str, parent: Version) -> Version | None:
    listed = [number for number in _listed(storage, model) if names.is_version(number)]
    # the pipeline gives them their parent's number; others are looked for where it has none
    listed.sort(key=lambda number: (number == parent.version, names.version_key(number)), reverse=True)
    for number in listed:
        try:
            child = find_version(storage, model, number)
            if (parent.ref, parent.metadata_sha256) in _parents(child):
                return child
        except (Corrupt, NotFound):
            continue
    return None


def follow(
    storage: Storage, models: list[str], name: str, alias: str, make: Make, signer: Signer | None = None
) -> None:
    """Points `alias` of each child model of `name` where that of `name` points: at the child of that version, or nowhere.

    A child model whose alias leads to a version of another descent is left alone.
    """
    while True:
        entry = _current(storage, name, alias)
        version = None
        if entry is not None and entry.version is not None:
            version = Version(storage, name, entry.version, entry.metadata_sha256)
        for model in models:
            if model.startswith(f"{name}-"):
                _follow(
                    storage, model, name, alias, entry.kind if version and entry else "unset", version, make, signer
                )
        after = _current(storage, name, alias)
        if after == entry:
            return


def _follow(
    storage: Storage,
    model: str,
    name: str,
    alias: str,
    kind: EntryKind,
    parent: Version | None,
    make: Make,
    signer: Signer | None,
) -> None:
    child = _child(storage, model, parent) if parent else None
    try:
        now = rows.current(storage, model, alias)
    except Corrupt:
        now = None
    if child is None and now is None:
        return
    if now is not None and now.version is not None:
        there = child is not None and (now.version, now.metadata_sha256) == (child.version, child.metadata_sha256)
        if there or not _descends(storage, model, now.version, name):
            return
    with suppress(Corrupt):  # a damaged child stays where it is, as its parent does not
        rows.append(storage, model, alias, lambda: make(kind if child else "unset", child), signer)


def _descends(storage: Storage, model: str, number: str, name: str) -> bool:
    """Whether a version of `model` was built from one of `name`; one that cannot be read is taken for it."""
    try:
        parents = _parents(find_version(storage, model, number))
    except (Corrupt, NotFound):
        return True
    return any(ref.partition("@")[0] == name for ref, _ in parents)


def _parents(version: Version) -> list[tuple[str, str]]:
    return [(parent.ref, parent.metadata_sha256) for parent in version.manifest.parents]


def _listed(storage: Storage, model: str) -> list[str]:
    try:
        return list(storage.names(model))
    except Corrupt:
        return []


def _current(storage: Storage, name: str, alias: str) -> AliasEntry | None:
    try:
        return rows.current(storage, name, alias)
    except Corrupt:
        return None
