"""The metadata of many versions in a bucket: one request for each instead of two, and many of them at a time.

A listing tells the MD5 of a small object as its ETag. Where that of `metadata.sha256` is the MD5 of the very line which the
`metadata.json` that was read demands, it needs no request of its own. Whatever is not so plain (another kind of ETag, an object
that is missing or cannot be read) is left to the ordinary way, which says what is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ocad_registry import digests
from ocad_registry.versions import DIGEST, METADATA

if TYPE_CHECKING:
    from ocad_registry.storage import Storage

MANY = 50
"""From so many versions of a model on, a listing of all its objects costs less than the requests that it spares."""


class Prefetch:
    """Reads documents of `storage` ahead; `read` gives each of them out once, and asks for all others."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._etags: dict[str, dict[str, str]] = {}
        self._read: dict[str, bytes] = {}

    def add(self, versions: Iterable[tuple[str, str]]) -> None:
        """Reads the metadata of these models' versions."""
        models: dict[str, list[str]] = {}
        for name, version in versions:
            models.setdefault(name, []).append(f"{name}/{version}")
        for name, folders in models.items():
            self._read |= self._storage.read_many([f"{folder}/{METADATA}" for folder in folders])
            known = [folder for folder in folders if f"{folder}/{METADATA}" in self._read]
            lines = self._lines(name, known) if len(folders) >= MANY else {}
            self._read |= lines
            rest = [f"{folder}/{DIGEST}" for folder in known if f"{folder}/{DIGEST}" not in lines]
            self._read |= self._storage.read_many(rest)

    def read(self, path: str, limit: int) -> bytes:
        """As `Storage.read`."""
        data = self._read.pop(path, None)
        return data if data is not None and len(data) <= limit else self._storage.read(path, limit)

    def _lines(self, name: str, folders: list[str]) -> dict[str, bytes]:
        """The `metadata.sha256` of those folders whose listed ETag says that it fits."""
        etags = self._etags.get(name)
        if etags is None:
            etags = self._etags[name] = self._storage.etags(name)
        found = {}
        for folder in folders:
            line = digests.digest_line(digests.digest(self._read[f"{folder}/{METADATA}"]))
            if etags.get(f"{folder}/{DIGEST}") == hashlib.md5(line, usedforsecurity=False).hexdigest():
                found[f"{folder}/{DIGEST}"] = line
        return found
