"""Signed alias entries: by whom, under which number, and after which entry (FORMAT.md §14).

An entry that is signed carries its own number and the digest of the entry below it, so that none can be replayed under
another number, and none below it can be exchanged. What was accepted once is marked, so that none can be taken away.
"""

from __future__ import annotations

import base64
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocad_registry import digests, documents, names
from ocad_registry.aliases import ALIASES, AliasEntry, Proof, numbers, parse_entry
from ocad_registry.errors import Corrupt, Refused, StorageFailed
from ocad_registry.marks import Mark, Marks
from ocad_registry.signing import Keys, key_id, secret_key, verifies

if TYPE_CHECKING:
    from ocad_registry.storage import Storage

_PROMOTE = "promote a version again with `--key`"


class Signer:
    """Signs alias entries with the secret ed25519 key in the PEM file `key`; raises `Invalid` for another file."""

    def __init__(self, key: str | os.PathLike[str]) -> None:
        self._secret = secret_key(Path(key))
        self._id = key_id(self._secret.public_key().public_bytes_raw())

    def __call__(self, name: str, alias: str, entry: AliasEntry, previous: str | None) -> AliasEntry:
        """`entry`, which has its number, with the signature of `name@alias`."""
        message = _message(name, alias, entry, previous)
        return replace(entry, proof=Proof(previous, self._id, base64.b64encode(self._secret.sign(message)).decode()))


def extended(
    storage: Storage, name: str, alias: str, taken: list[int], entry: AliasEntry, signer: Signer | None
) -> AliasEntry:
    """`entry`, which has the number after those `taken`, as it is to be written: signed where there is a `signer`.

    Raises `Refused` where it would break a row of signed entries: unsigned, or after one that nobody signed.
    """
    data = _read(storage, name, alias, taken[-1]) if taken else None
    signed = data is not None and _is_signed(data)
    if signer is None:
        if signed:
            raise Refused(f"the entries of `{name}@{alias}` are signed", "give the secret key with `--key`")
        return entry
    if taken and not signed and any(_is_signed(_read(storage, name, alias, number)) for number in taken[:-1]):
        stray = storage.location(f"{name}/{ALIASES}/{alias}/{names.entry_name(taken[-1])}")
        hint = f"find out who wrote `{stray}`, and remove it"
        raise Refused(f"entry {taken[-1]} of `{name}@{alias}` is not signed, but earlier ones are", hint)
    return signer(name, alias, entry, digests.digest(data) if data is not None else None)


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom a reader believes: versions must be signed by one of `keys`, and the entries of aliases where there are `marks`."""

    keys: Keys
    marks: Marks | None = None


def current(storage: Storage, name: str, alias: str, keys: Keys, marks: Marks) -> AliasEntry | None:
    """The newest entry, which alone decides; None where there never was one, or it is `unset`.

    Raises `Corrupt`: `unsigned`, `bad-signature`, `bad-alias-entry`, or `stale-alias` where an entry that was accepted
    before is gone or another. Raises `StorageFailed` (`cache`) where the marks cannot be kept.
    """
    try:
        mark = marks.read(name, alias)
        taken = numbers(storage, name, alias)
        if mark is not None and mark.number > (taken[-1] if taken else 0):
            raise _stale(name, alias, f"entry {mark.number} was there before and is gone")
        if not taken:
            return None
        entry, now = check(storage, name, alias, taken, keys)
        if mark is not None:
            _follow(storage, name, alias, taken, now, mark)
        if now != mark:
            marks.keep(name, alias, now)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        hint = "set `OCAD_CACHE` to a folder that can be written"
        raise StorageFailed(f"the alias entries seen before cannot be kept: {cause}", hint, code="cache") from error
    return entry if entry.version is not None else None


def check(storage: Storage, name: str, alias: str, taken: list[int], keys: Keys) -> tuple[AliasEntry, Mark]:
    """The highest of the entries `taken`, and its mark; raises `Corrupt` unless one of `keys` signed it as it lies there."""
    number, where = taken[-1], f"entry {taken[-1]} of `{name}@{alias}`"
    data = _read(storage, name, alias, number)
    document = _parse(data, where)
    entry = parse_entry(document, number, where)
    proof = entry.proof
    if "signature" not in document:
        raise Corrupt("unsigned", f"{where} is not signed", _PROMOTE)
    if proof is None:
        raise Corrupt("bad-signature", f"{where} is signed badly", _PROMOTE)
    if proof.key_id not in keys.keys:
        raise Corrupt("unsigned", f"{where} is signed by `{proof.key_id[:8]}…`, whom nobody trusts", _PROMOTE)
    claimed = replace(entry, number=document["number"])
    if not verifies(keys, proof.key_id, _message(name, alias, claimed, proof.previous), proof.signature):
        raise Corrupt("bad-signature", f"the signature of {where} is forged, or of another alias", _PROMOTE)
    if claimed.number != number:
        raise Corrupt("bad-signature", f"{where} was entry {claimed.number}: it is replayed", _PROMOTE)
    below = digests.digest(_read(storage, name, alias, taken[-2])) if len(taken) > 1 else None
    if proof.previous != below:
        raise Corrupt("bad-signature", f"{where} does not follow the entry below it", _PROMOTE)
    return entry, Mark(number, digests.digest(data))


def first_signed(storage: Storage, name: str, alias: str, taken: list[int]) -> int:
    """The place of the lowest signed entry among those `taken`; of the highest where none is signed."""
    signed = (place for place, number in enumerate(taken) if _is_signed(_read(storage, name, alias, number)))
    return next(signed, max(0, len(taken) - 1))


def _follow(storage: Storage, name: str, alias: str, taken: list[int], now: Mark, mark: Mark) -> None:
    """Raises `Corrupt` (`stale-alias`) unless the entries from the highest, `now`, down lead to `mark`."""
    reached, rest = now, taken[:-1]
    while reached.number > mark.number and rest:
        document = _parse(_read(storage, name, alias, reached.number), f"entry {reached.number} of `{name}@{alias}`")
        below = Mark(rest.pop(), "")
        below = below._replace(sha256=digests.digest(_read(storage, name, alias, below.number)))
        if document.get("previous") != below.sha256:
            raise _stale(name, alias, f"entry {below.number} is not the one that entry {reached.number} follows")
        reached = below
    if reached != mark:
        raise _stale(name, alias, f"entry {mark.number} is not the one that was there before")


def _stale(name: str, alias: str, cause: str) -> Corrupt:
    return Corrupt("stale-alias", f"`{name}@{alias}`: {cause}", "restore it, or see docs/security.md")


def _read(storage: Storage, name: str, alias: str, number: int) -> bytes:
    """The bytes of an entry; raises `Corrupt` (`bad-alias-entry`)."""
    where = f"entry {number} of `{name}@{alias}` cannot be read"
    try:
        return storage.read(f"{name}/{ALIASES}/{alias}/{names.entry_name(number)}", documents.DOCUMENT_LIMIT)
    except FileNotFoundError:
        raise Corrupt("bad-alias-entry", f"{where}: it is gone") from None
    except Corrupt as error:
        raise Corrupt("bad-alias-entry", f"{where}: {error.message}") from None


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        return documents.parse(data, "it")
    except Corrupt as error:
        raise Corrupt("bad-alias-entry", f"{where} cannot be read: {error.message}") from None


def _is_signed(data: bytes) -> bool:
    try:
        return "signature" in documents.parse(data, "it")
    except Corrupt:
        return False


def _message(name: str, alias: str, entry: AliasEntry, previous: str | None) -> bytes:
    """What is signed of an entry: eleven lines, each with its line feed."""
    fields = asdict(entry)
    texts = [digests.digest(fields[field].encode()) for field in ("moved_at", "by", "reason")]
    target = [fields[field] or "none" for field in ("version", "metadata_sha256")]
    lines = ["ocad alias entry", f"{name}@{alias}", str(entry.number), previous or "none", entry.kind, *target, *texts]
    return "".join(f"{line}\n" for line in [*lines, "true" if entry.forced else "false"]).encode()
