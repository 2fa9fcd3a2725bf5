"""The one interface between the registry and the place where its bytes lie.

Its one primitive of mutual exclusion is create-if-absent, of a document (`create`) and of a whole version
(`Staging.publish`): a link and a rename on a local file system, conditional puts on an object store. Everything above
(versions, aliases, tombstones) is built on it, and nothing stored is ever changed.
Paths are relative to the root, joined by `/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["file", "folder", "link", "other"]
Stamp = tuple[int, ...] | str
"""Changes whenever a file's content does: device, inode, size, mtime and ctime; an ETag."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A payload file as it was stored: `path` relative to the version's folder, `size` in bytes."""

    path: str
    size: int
    sha256: str


class Staging(Protocol):
    """An unfinished version: nobody sees it before `publish` returns."""

    def add(self, source: Path, name: str) -> Stored:
        """Copies `source` in under `name`; raises `OSError` when it cannot be read or written."""
        ...

    def file(self, stored: Stored) -> Path:
        """Where an added file can be read."""
        ...

    def publish(self, folder: str, documents: Mapping[str, bytes]) -> None:
        """Makes the payload and `documents` appear as `folder`, durable and all at once.

        Raises `FileExistsError` when `folder` exists; it may then be called again for another folder.
        """
        ...

    def discard(self) -> None:
        """Drops what is left of it; harmless after `publish`."""
        ...


class Storage(Protocol):
    """Reads raise `FileNotFoundError` for what is absent and `Corrupt` (`symlink`, `not-a-file`) for what is no plain file."""

    @property
    def root(self) -> str:
        """The place, as the user named it."""
        ...

    def list(self, folder: str) -> dict[str, Kind]:
        """What lies directly in `folder`; empty when there is no such folder."""
        ...

    def names(self, folder: str) -> Sequence[str]:
        """The keys of `list`, in any order, for less."""
        ...

    def kind(self, path: str) -> Kind | None:
        """What `path` is; None when it, or a plain folder on the way to it, is absent."""
        ...

    def stamp(self, path: str) -> Stamp | None:
        """The identity of a file's content, for caches; None when it is absent."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """The bytes of a document; raises `Corrupt` (`oversized-json`) above `limit` bytes."""
        ...

    def digest(self, path: str) -> tuple[int, str]:
        """Size and sha256 of a payload file."""
        ...

    def local(self, path: str) -> Path:
        """Where `path` can be opened on this machine."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Creates the document `path`, durable and all at once; raises `FileExistsError` when it exists."""
        ...

    def stage(self) -> Staging:
        """Begins a version."""
        ...
