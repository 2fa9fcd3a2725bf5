"""Deleting: a tombstone, created once, before which everything else gives way (FORMAT.md §3).

A delete and a promotion of the same version cannot see each other while both are under way, so each looks once more when its
own file is in place: whoever comes second finds the other and lets the alias say what readers do anyway.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ocad_registry import aliases as rows
from ocad_registry import documents
from ocad_registry.aliases import AliasEntry
from ocad_registry.errors import Corrupt, InUse, Refused
from ocad_registry.versions import DELETED, find_version, is_deleted, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ocad_registry.listing import Entry
    from ocad_registry.signed_aliases import Signer
    from ocad_registry.storage import Storage


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What a delete left in the version's place."""

    name: str
    version: str
    deleted_at: str
    by: str
    reason: str

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> dict[str, Any]:
        """As `ocad registry delete --json` shows it."""
        return {"ref": self.ref, **self.document()}

    def document(self) -> dict[str, Any]:
        """The stored fields."""
        return {"deleted_at": self.deleted_at, "by": self.by, "reason": self.reason}


def delete(
    storage: Storage, tombstone: Tombstone, children: Callable[[], Iterable[Entry]], signer: Signer | None = None
) -> None:
    """Puts `tombstone` in place, unless an alias points at its version or one of the living `children` was built from it.

    Raises `InUse` then, and `NotFound` when there is no such version (any more).
    """
    name, version, ref = tombstone.name, tombstone.version, tombstone.ref
    with suppress(Corrupt):  # a version that cannot be read can be deleted
        find_version(storage, name, version)
    built = sorted(child.ref for child in children() if child.ref != ref)
    if built:
        raise InUse(f"`{ref}` is not deleted while `{built[0]}` is built from it", f"delete `{built[0]}` first")
    # asked last: aliases move more often than children appear, and each question takes its time
    pointing = [alias for alias, target in rows.all_current(storage, name).items() if target == version]
    if pointing:
        listed = ", ".join(f"`{alias}`" for alias in pointing)
        hint = f"`ocad registry promote` another version, or `ocad registry unset {name} {pointing[0]}`"
        raise InUse(f"`{ref}` is not deleted while {listed} points at it", hint)
    try:
        storage.create(f"{name}/{DELETED}/{version}.json", documents.dump(tombstone.document()))
    except FileExistsError:
        raise missing(name, f"`{ref}` was deleted meanwhile by another") from None
    for alias in rows.known(storage, name):
        settle(storage, name, alias, tombstone.by, signer)


def settle(storage: Storage, name: str, alias: str, by: str, signer: Signer | None = None) -> AliasEntry | None:
    """Ends a row of entries whose last one names a deleted version with the entry that says what readers do anyway.

    None when there is nothing to say, which is also so when another writer has said it, and when the row is damaged, or
    signed and there is no `signer`.
    """
    while True:
        taken = rows.numbers(storage, name, alias)
        try:
            last = rows.read_entry(storage, name, alias, taken[-1]) if taken else None
            if last is None or last.version is None or not is_deleted(storage, name, last.version):
                return None
            entry = _instead(rows.current(storage, name, alias), f"{name}@{last.version} was deleted meanwhile", by)
            if done := rows.place(storage, name, alias, taken, entry, signer):
                return done
        except (Corrupt, Refused):
            return None


def _instead(current: AliasEntry | None, reason: str, by: str) -> AliasEntry:
    if current is None:
        return AliasEntry(0, "unset", None, None, rows.now(), by, reason, False)
    return AliasEntry(0, "rollback", current.version, current.metadata_sha256, rows.now(), by, reason, False)
