"""What the storage holds of a model at one moment, read so cheaply that every answer can begin with it.

Versions never change, so the names in the model's folder and in `deleted/` say which metadata a remembered answer is about.
A file that was changed, or a folder that was made again, behind our back is found by the identity of its `metadata.json`;
that costs a look at each, which is spared as long as nothing was created, removed or renamed in the model's folder.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ocad_registry import names
from ocad_registry.versions import DELETED, DIGEST, METADATA

if TYPE_CHECKING:
    from ocad_registry.storage import Kind, Stamp, Storage

SETTLED_NS = 2 * 10**9
"""How old a folder's last change must be for its times to tell a next one: file systems count in up to two seconds."""
ABSENT = b"-"
LINK = b"link"


class Survey(NamedTuple):
    """A model's folder at one moment: what lies in it, the names in `deleted/`, a digest of both.

    `mark` changes with everything that is created, removed or renamed in the folder; it is empty where that cannot be told
    (the last change is too young; an object store).
    """

    name: str
    listed: Mapping[str, Kind]
    tombstones: Sequence[str]
    digest: bytes
    mark: bytes

    def living(self) -> dict[str, bool]:
        """The versions that are not deleted, and whether each lies in a plain folder (a symlink is broken)."""
        deleted = {file[:-5] for file in self.tombstones if file.endswith(".json")}
        return {
            version: kind == "folder"
            for version, kind in self.listed.items()
            if kind in ("folder", "link") and names.is_version(version) and version not in deleted
        }


def survey(storage: Storage, name: str) -> Survey:
    """Looks at the model `name`; raises `Corrupt` (`unreadable`) where its folder is shut."""
    mark = _mark(storage, name)  # before the listing, so that what comes between is found the next time
    listed, tombstones = storage.list(name), storage.names(f"{name}/{DELETED}")
    parts = ("/".join(listed), "/".join(listed.values()), "/".join(tombstones))
    return Survey(
        name, listed, tombstones, hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).digest(), mark
    )


def stamps(storage: Storage, name: str, versions: Mapping[str, bool]) -> dict[str, bytes]:
    """For each living version what changes with its `metadata.json`; versions without one are left out.

    In an object store, where objects are never changed, it is the identity of the registry: another one under the same URL
    is told apart by its `registry.json`.
    """
    place = storage.local(name)
    if place is None:
        return dict.fromkeys(versions, packed(storage.stamp(names.REGISTRY)))
    found = {version: LINK for version, plain in versions.items() if not plain}
    try:
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        return dict.fromkeys(versions, _failed(error))
    try:
        for version, plain in versions.items():
            if plain:
                try:
                    file = os.stat(f"{version}/{METADATA}", dir_fd=folder, follow_symlinks=False)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError as error:  # reading it will say so
                    found[version] = _failed(error)
                    continue
                found[version] = _PACK(file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
    finally:
        os.close(folder)
    return found


def identity(storage: Storage, name: str, version: str, plain: bool) -> bytes:
    """What changes with `metadata.json` and `metadata.sha256` of one version; empty in an object store."""
    if not _is_folder(storage):
        return b""
    if not plain:
        return LINK
    return b"".join(packed(storage.stamp(f"{name}/{version}/{file}")) for file in (METADATA, DIGEST))


def unchanged(storage: Storage, name: str, version: str, known: bytes) -> bool:
    """Whether the files of a version are those of the `identity` that was `known` before."""
    return identity(storage, name, version, known != LINK) == known


def packed(stamp: Stamp | None) -> bytes:
    """`stamp` as bytes."""
    if stamp is None:
        return ABSENT
    return stamp.encode() if isinstance(stamp, str) else _PACK(*stamp)


def _failed(error: OSError) -> bytes:
    """The stamp of what cannot be looked at: it changes when that changes."""
    return packed((0, 0, 0, 0, error.errno or 0))


def _is_folder(storage: Storage) -> bool:
    """Whether the registry lies in a file system, where anybody may change a file."""
    return "://" not in storage.root


def _mark(storage: Storage, name: str) -> bytes:
    stamp = storage.stamp(name) if _is_folder(storage) else None
    if stamp is None or isinstance(stamp, str) or max(stamp[3:]) > time.time_ns() - SETTLED_NS:
        return b""
    return packed(stamp)


_PACK = struct.Struct("=3Q2q").pack
