"""Aliases: an append-only row of numbered entries; the highest number says where the alias points now.

A move creates the next number and nothing else, so of two racing writers exactly one wins a number; the other reads
again and decides anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from ocad_registry import documents, names
from ocad_registry.errors import Corrupt
from ocad_registry.versions import is_deleted

if TYPE_CHECKING:
    from ocad_registry.signed_aliases import Signer
    from ocad_registry.storage import Storage

ALIASES = "aliases"
EntryKind = Literal["promote", "rollback", "unset", "broken"]
_FIELDS: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "version": (str, type(None)),
    "metadata_sha256": (str, type(None)),
    "moved_at": (str,),
    "by": (str,),
    "reason": (str,),
    "forced": (bool,),
}


@dataclass(frozen=True, slots=True)
class Proof:
    """The signature of an entry by a key, and the sha256 of the entry below it, which it follows."""

    previous: str | None
    key_id: str
    signature: str

    def document(self, number: int) -> dict[str, Any]:
        """The stored fields of entry `number`."""
        signature = {"algorithm": "ed25519", "key_id": self.key_id, "signature": self.signature}
        return {"number": number, "previous": self.previous, "signature": signature}


@dataclass(frozen=True, slots=True)
class AliasEntry:
    """One move of an alias. `version` and `metadata_sha256` are None for `unset`.

    `kind` is `broken` for an entry that cannot be read; its `reason` then is the cause. Nobody writes such an entry.
    """

    number: int
    kind: EntryKind
    version: str | None
    metadata_sha256: str | None
    moved_at: str
    by: str
    reason: str
    forced: bool
    proof: Proof | None = None

    def to_json(self) -> dict[str, Any]:
        """The stored fields and the number."""
        return {"number": self.number, **self.document()}

    def document(self) -> dict[str, Any]:
        """The stored fields."""
        fields = asdict(self)
        del fields["number"], fields["proof"]
        return fields | (self.proof.document(self.number) if self.proof else {})


def now() -> str:
    """The current time as the registry writes it: UTC, microseconds, `Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def numbers(storage: Storage, name: str, alias: str) -> list[int]:
    """The numbers of an alias's entries, ascending; whatever else lies there is ignored.

    Raises `Corrupt` (`bad-alias-entry`) where they cannot be listed.
    """
    try:
        listed = storage.names(f"{name}/{ALIASES}/{alias}")
    except Corrupt as error:
        hint = "`ocad registry doctor` says what to do"
        raise Corrupt("bad-alias-entry", f"the entries of `{name}@{alias}` are lost: {error.message}", hint) from None
    return names.entry_numbers(listed)[0]


def read_entry(storage: Storage, name: str, alias: str, number: int) -> AliasEntry:
    """Entry `number`; raises `Corrupt` (`bad-alias-entry`)."""
    where = f"entry {number} of `{name}@{alias}`"
    try:
        data = storage.read(f"{name}/{ALIASES}/{alias}/{names.entry_name(number)}", documents.DOCUMENT_LIMIT)
        return parse_entry(documents.parse(data, where), number, where)
    except FileNotFoundError:
        raise _bad(where, "it is gone") from None
    except Corrupt as error:
        raise error if error.code == "bad-alias-entry" else _bad(where, error.message) from None


def parse_entry(document: dict[str, Any], number: int, where: str) -> AliasEntry:
    """Entry `number` from its document; raises `Corrupt` (`bad-alias-entry`). Its signature is not checked."""
    for field, types in _FIELDS.items():
        if field not in document or not isinstance(document[field], types):
            raise _bad(where, f"field `{field}` is missing or of the wrong type")
    kind, version, sha256 = document["kind"], document["version"], document["metadata_sha256"]
    if kind == "unset":
        valid = version is None and sha256 is None
    else:
        known = kind in ("promote", "rollback")
        valid = known and version is not None and names.is_version(version) and _is_digest(sha256)
    if not valid:
        raise _bad(where, "kind, version and digest do not fit together")
    return AliasEntry(number, **{field: document[field] for field in _FIELDS}, proof=_proof(document))


def _proof(document: dict[str, Any]) -> Proof | None:
    """The signature of an entry as it is written there; None where there is none, or one that cannot be any."""
    signature, number, previous = document.get("signature"), document.get("number"), document.get("previous")
    if (
        not isinstance(signature, dict)
        or type(number) is not int
        or not 0 < number < 2**53
        or signature.get("algorithm") != "ed25519"
    ):
        return None
    identifier, text = signature.get("key_id"), signature.get("signature")
    if not (isinstance(identifier, str) and isinstance(text, str) and (previous is None or _is_digest(previous))):
        return None
    return Proof(previous, identifier, text)


def _is_digest(sha256: object) -> bool:
    return isinstance(sha256, str) and len(sha256) == 64 and not sha256.strip("0123456789abcdef")


def _bad(where: str, cause: str) -> Corrupt:
    return Corrupt("bad-alias-entry", f"{where} cannot be read: {cause}", "promote or unset the alias again to go on")


def history(storage: Storage, name: str, alias: str) -> list[AliasEntry]:
    """Every entry, oldest first; unreadable ones have the kind `broken`."""
    found = []
    for number in numbers(storage, name, alias):
        try:
            found.append(read_entry(storage, name, alias, number))
        except Corrupt as error:
            found.append(AliasEntry(number, "broken", None, None, "", "", error.message, False))
    return found


def current(storage: Storage, name: str, alias: str) -> AliasEntry | None:
    """The entry that decides: the highest that names no deleted version; None when the alias is not set.

    Raises `Corrupt` when that entry cannot be read: what its writer decided is unknown, and an older entry must not
    come back to life in its place.
    """
    for number in reversed(numbers(storage, name, alias)):
        entry = read_entry(storage, name, alias, number)
        if entry.version is None:
            return None
        if not is_deleted(storage, name, entry.version):
            return entry
    return None


def all_current(storage: Storage, name: str) -> dict[str, str]:
    """Alias → version of every alias that is set and readable, by name."""
    targets: dict[str, str] = {}
    try:
        ever = known(storage, name)
    except Corrupt:
        return targets
    for alias in ever:
        try:
            entry = current(storage, name, alias)
        except Corrupt:
            continue
        if entry is not None:
            targets[alias] = cast("str", entry.version)
    return targets


def known(storage: Storage, name: str) -> list[str]:
    """The aliases of the model that were ever set, sorted."""
    listed = storage.list(f"{name}/{ALIASES}").items()
    return sorted(alias for alias, kind in listed if kind == "folder" and names.ALIAS.fullmatch(alias))


def earlier(entries: list[AliasEntry]) -> Iterator[AliasEntry]:
    """Where rollbacks lead, nearest first: the promotes before the current one, each undone at most once.

    The history is replayed on a stack: a promote or unset pushes, a rollback takes away what it undid.
    """
    stack: list[AliasEntry] = []
    for entry in entries:
        if entry.kind == "rollback":
            while stack and stack[-1].version != entry.version:
                stack.pop()
            if stack:
                continue
        if not stack or stack[-1].version != entry.version or entry.version is None:
            stack.append(entry)
    return (entry for entry in reversed(stack[:-1]) if entry.version is not None)


def append(
    storage: Storage, name: str, alias: str, decide: Callable[[], AliasEntry], signer: Signer | None = None
) -> AliasEntry:
    """Writes the entry that `decide` makes, numbered by this function; the loser of a race decides again."""
    while True:
        taken = numbers(storage, name, alias)
        if entry := place(storage, name, alias, taken, decide(), signer):
            return entry


def place(
    storage: Storage, name: str, alias: str, taken: list[int], entry: AliasEntry, signer: Signer | None = None
) -> AliasEntry | None:
    """Writes `entry` under the number after those `taken` when it was made; None when another writer took it meanwhile.

    Signed where there is a `signer`; raises `Refused` where the row is signed and would not be any more.
    """
    from ocad_registry.signed_aliases import extended

    number = (taken[-1] if taken else 0) + 1
    entry = extended(storage, name, alias, taken, replace(entry, number=number), signer)
    try:
        storage.create(f"{name}/{ALIASES}/{alias}/{names.entry_name(number)}", documents.dump(entry.document()))
    except FileExistsError:
        return None
    return entry
