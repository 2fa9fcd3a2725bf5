"""The one interface between the registry and the place where its bytes lie.

Its one primitive of mutual exclusion is create-if-absent, of a document (`create`) and of a whole version
(`Staging.publish`): a link and a rename on a local file system, conditional puts on an object store. Everything above
(versions, aliases, tombstones) is built on it, and nothing stored is ever changed.
Paths are relative to the root, joined by `/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["file", "folder", "link", "other"]
Stamp = tuple[int, ...] | str
"""Changes whenever a file's content does: device, inode, size, mtime and ctime; an ETag."""
DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A payload file as it was stored: `path` relative to the version's folder, `size` in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Waste:
    """Leftovers of writers, as a `Storage` finds them: `age` in seconds; `due` when no writer can still be at work on them."""

    path: str
    kind: str
    age: float
    due: bool
    reason: str


class Payload(Protocol):
    """A payload file as `metadata.json` lists it."""

    @property
    def path(self) -> str:
        """Relative to the version's folder."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def sha256(self) -> str:
        """64 lower-case hex digits."""
        ...


class Staging(Protocol):
    """An unfinished version: nobody sees it before `publish` returns."""

    def add(self, source: Path, name: str) -> Stored:
        """Takes `source` in under `name`; raises `OSError` when it cannot be read or written.

        It must stay as it is until `publish` returns: an object store sends it only then.
        """
        ...

    def file(self, stored: Stored) -> Path:
        """Where an added file can be read."""
        ...

    def take_turn(self, model: str) -> None:
        """Waits for other writers to `model` where that costs little, so that few choose the same number.

        The turn ends with `publish`. A courtesy only, and bounded: who gets a number is decided there.
        """
        ...

    def publish(self, folder: str, documents: Mapping[str, bytes]) -> None:
        """Makes the payload and `documents` appear as `folder`, durable and all at once.

        Raises `FileExistsError` when `folder` exists; it may then be called again for another folder.
        """
        ...

    def discard(self) -> None:
        """Drops what is left of it; harmless after `publish`."""
        ...


class Receiving(Protocol):
    """A version that is copied as it is, paths and metadata byte for byte: nobody sees it before `publish` returns."""

    def holds(self, payload: Payload) -> bool:
        """Whether the file is here already, whole, from a copy that was cut short."""
        ...

    def add(self, source: Path, name: str, start: int = 0, size: int | None = None) -> Stored:
        """Takes `source`, or `size` bytes of it from `start`, in under `name`, which may lead through folders."""
        ...

    def publish(self, folder: str, documents: Mapping[str, bytes]) -> None:
        """As that of `Staging`."""
        ...

    def discard(self) -> None:
        """Drops what is here, unless another copy may use it; harmless after `publish`."""
        ...

    def pause(self) -> None:
        """Leaves what is there for the next copy to go on with; harmless after `publish`."""
        ...


class Storage(Protocol):
    """Reads raise `FileNotFoundError` for what is absent and `Corrupt` (`symlink`, `not-a-file`) for what is no plain file.

    A model, or what lies in it, that the file system refuses to this user or fails on is `Corrupt` (`unreadable`).
    """

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

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The bytes of those documents that can be had in fewer or quicker requests than by `read`, up to `METADATA_LIMIT`.

        What is missing here says nothing about the document: ask `read`.
        """
        ...

    def etags(self, folder: str) -> dict[str, str]:
        """The ETag, without quotes, of every object below `folder`; empty where there is no such thing."""
        ...

    def age(self, path: str) -> float:
        """Seconds since the youngest file at or below `path` was written, for garbage collection; 0 when it is absent."""
        ...

    def digest(self, path: str) -> tuple[int, str]:
        """Size and sha256 of a payload file, every byte of it read where it is stored."""
        ...

    def location(self, path: str) -> str:
        """What a person is shown for `path`: a place on this machine, or a URL."""
        ...

    def local(self, path: str) -> Path | None:
        """Where `path` lies on this machine; None in an object store, of which only `fetch` makes local files."""
        ...

    def fetch(self, owner: str, path: str, payload: Payload, where: str) -> Path:
        """Where the payload file at `path` can be opened, its size and sha256 verified; an ONNX has its data beside it.

        `owner` is the sha256 of its version's metadata, `where` names the file in messages. Raises `Corrupt`
        (`missing-file`, `symlink`, `not-a-file`, `size`, `digest`).
        """
        ...

    def check(self, path: str, payload: Payload, where: str) -> None:
        """Verifies every byte of the payload file where it is stored; raises as `fetch` does."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Creates the document `path`, durable and all at once; raises `FileExistsError` when it exists."""
        ...

    def remove(self, path: str) -> None:
        """Removes the file, or the folder and all below it, at `path`; harmless when it is absent. Links are not followed.

        A version's `metadata.json` goes first, so that no reader sees a version without its payload.
        """
        ...

    def stage(self) -> Staging:
        """Begins a version."""
        ...

    def receive(self, folder: str, sha256: str) -> Receiving:
        """Begins the copy of a version whose metadata has the digest `sha256`, or goes on with one that was cut short.

        Raises `FileExistsError` where another version has claimed `folder`.
        """
        ...

    def abandoned(self) -> Iterable[Waste]:
        """What writers left behind and no reader sees."""
        ...

    def size(self, path: str) -> int:
        """Bytes of all files at or below `path`; 0 when it is absent."""
        ...

    def discard(self, path: str) -> bool:
        """Removes what no reader sees: the payload of a deleted version, or `Waste`; whether this call removed it."""
        ...


def duration(seconds: float) -> str:
    """`3 days`, `5 hours`, `20 minutes`, `4 seconds`: the largest unit of which there are two."""
    for unit, length in (("days", DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
