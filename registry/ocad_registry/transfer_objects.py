"""Copies into an object store, and what its writers leave there.

A copy keeps the paths of `files`, and so shares its keys with every other copy of the same number. It therefore claims the
number by `metadata.sha256` before it sends anything: who holds the same digest sends the same bytes.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ocad_registry import documents, names
from ocad_registry.digests import digest_line, digest_stream
from ocad_registry.errors import Corrupt, RemoteError
from ocad_registry.storage import DAY, Stored, Waste, duration
from ocad_registry.versions import DIGEST, METADATA, is_deleted

if TYPE_CHECKING:
    from ocad_registry.storage import Payload
    from ocad_registry.storage_objects import ObjectStorage

ORPHAN_AGE = 7 * DAY
"""Seconds after which nobody can still be publishing: an object store has no lock that would say so."""
_STALE = ORPHAN_AGE - DAY


class ObjectReceiving:
    """A version that is copied into an object store as it is."""

    def __init__(self, storage: ObjectStorage, folder: str, sha256: str) -> None:
        self._storage = storage
        self._folder = folder
        left = set(storage.names(folder))
        if METADATA in left:
            raise FileExistsError(errno.EEXIST, "version exists", folder)
        if left and storage.age(folder) > _STALE:
            hint = "`ocad registry gc` removes it when it is 7 days old; copy again then"
            raise RemoteError("storage", f"an old unfinished copy is in the way at `{storage.location(folder)}`", hint)
        storage.create(f"{folder}/{DIGEST}", digest_line(sha256))
        self._left = left - {DIGEST}

    def holds(self, payload: Payload) -> bool:
        """Whether an earlier copy sent the file."""
        path = f"{self._folder}/{payload.path}"
        if payload.path.partition("/")[0] not in self._left or self._storage.kind(path) != "file":
            return False
        try:
            self._storage.check(path, payload, f"`{payload.path}`")
        except Corrupt:
            return False
        return True

    def add(self, source: Path, name: str, start: int = 0, size: int | None = None) -> Stored:
        """Sends the file, a part of one by way of a temporary file."""
        with source.open("rb") as whole, tempfile.NamedTemporaryFile(prefix="ocad-") as part:
            whole.seek(start)
            copied, sha256 = digest_stream(whole.fileno(), part.write if size is not None else None, size)
            part.flush()
            self._storage.upload(Path(part.name) if size is not None else source, f"{self._folder}/{name}")
        return Stored(name, copied, sha256)

    def publish(self, folder: str, documents: Mapping[str, bytes]) -> None:
        """Puts `metadata.json`, for which all is ready."""
        self._storage.create(f"{folder}/{METADATA}", documents[METADATA])

    def discard(self) -> None:
        """Nothing: the objects may be those of a copy that won."""

    def pause(self) -> None:
        """What was sent stays for the next copy."""


def orphans(storage: ObjectStorage) -> Iterator[Waste]:
    """What lies under the number of a version that is not deleted, and belongs to no living version.

    What is due by this machine's clock is looked at by the store's, so that a clock that leapt takes nobody's work away.
    """
    found = list(_orphans(storage))
    lead = storage.lead() if any(waste.due for waste in found) else 0.0
    for waste in found:
        yield _waste(waste.path, max(0.0, waste.age - lead), waste.reason.partition(",")[0]) if lead else waste


def _orphans(storage: ObjectStorage) -> Iterator[Waste]:
    for name, kind in sorted(storage.list("").items()):
        if kind == "folder" and names.is_model(name):
            for version, groups in sorted(_versions(storage, name).items()):
                if not is_deleted(storage, name, version):
                    yield from _unlisted(storage, name, version, groups)


def _versions(storage: ObjectStorage, name: str) -> dict[str, dict[str, float]]:
    """Version → what lies directly in it → seconds since the youngest object of that was written."""
    found: dict[str, dict[str, float]] = {}
    for path, age in storage.ages(name).items():
        version, _, rest = path.partition("/")
        if rest and names.is_version(version):
            group = rest.partition("/")[0]
            groups = found.setdefault(version, {})
            groups[group] = min(age, groups.get(group, age))
    return found


def _unlisted(storage: ObjectStorage, name: str, version: str, groups: dict[str, float]) -> Iterator[Waste]:
    payload = {group: age for group, age in groups.items() if group not in (METADATA, DIGEST)}
    if METADATA not in groups:
        age = min(groups.values())
        # the claim on the number goes last, so that nobody takes it while the payload is being removed
        for group in sorted(groups, key=lambda group: (group == DIGEST, group)):
            yield _waste(f"{name}/{version}/{group}", age, "was never published")
    elif len(payload) > 1:  # one is the version's own
        listed = _listed(storage, name, version)
        for group, age in sorted(payload.items()):
            if listed is not None and group not in listed:
                yield _waste(f"{name}/{version}/{group}", age, "belongs to no version: its publisher lost the number")


def _listed(storage: ObjectStorage, name: str, version: str) -> set[str] | None:
    """What the version's files lie in; None for a version that cannot be read, of which nothing is removed."""
    from ocad_registry.manifest import parse_manifest

    try:
        data = storage.read(f"{name}/{version}/{METADATA}", documents.METADATA_LIMIT)
        manifest = parse_manifest(documents.parse(data, f"`{name}@{version}`"), name, version)
    except (FileNotFoundError, Corrupt):
        return None
    return {file.path.partition("/")[0] for file in manifest.files}


def _waste(path: str, age: float, what: str) -> Waste:
    due = age >= ORPHAN_AGE
    later = "" if due else f", kept for {duration(ORPHAN_AGE - age)} more"
    return Waste(path, "orphan", age, due, f"{what}, {duration(age)} old{later}")
