"""The local copies of what lies in an object store, or in a folder that others can write (FORMAT.md, "The read cache").

Processes and the server share them.

    CACHE/                         `$OCAD_CACHE`, else `$XDG_CACHE_HOME/ocad`, else `~/.cache/ocad`; folders 0755
      versions/AA/DIGEST/          a version: the sha256 of its metadata.json, AA its first two digits
        files[].path               a payload file under its own path, so that an ONNX finds its external data; 0444
        .lock                      flocked (exclusive) while a file is being downloaded into the folder
        .UUID.part                 a download under way; renamed when its size and sha256 are right
      versions/.lock             flocked (exclusive) while room is being made

A reader flocks (shared) the folder DIGEST for as long as it may open files in it again, and sets its mtime at each use.
Room is made by removing the folders with the oldest mtime that nobody has flocked, until everything fits into
`OCAD_CACHE_SIZE` bytes. Everything here can be removed at any time: what is open stays readable, the rest is downloaded again.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from ocad_registry.digests import check_file, digest_stream
from ocad_registry.errors import Invalid, RemoteError, StorageFailed
from ocad_registry.private import make_folder, others_write

if TYPE_CHECKING:
    from ocad_registry.storage import Payload

PLACE = "OCAD_CACHE"
SIZE = "OCAD_CACHE_SIZE"
DEFAULT_SIZE = 10 * 1024**3
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_LOCK = ".lock"
_HELD_LIMIT = 128
_held: OrderedDict[str, int] = OrderedDict()
_held_by = threading.Lock()


class Cache:
    """The cache in `root` (None: the user's), of at most `limit` bytes (None: `OCAD_CACHE_SIZE`, else 10 GiB).

    A `private` one must be this user's alone to write. Raises `Invalid` for an `OCAD_CACHE_SIZE` that is no size. Any number of
    processes and threads may use one folder.
    """

    def __init__(
        self, root: str | os.PathLike[str] | None = None, limit: int | None = None, *, private: bool = False
    ) -> None:
        self.root = Path(root) if root is not None else cache_folder()
        self.limit = limit if limit is not None else _configured_limit()
        self._private = private
        self._sound: dict[Path, tuple[int, ...]] = {}

    def folder(self, owner: str) -> Path:
        """Where the files of the version lie whose `metadata.json` has the sha256 `owner`."""
        return self.root / "versions" / owner[:2] / owner

    def file(self, owner: str, payload: Payload, where: str, download: Callable[[Path], None]) -> Path:
        """The copy of `payload`, whose size and sha256 are right; `download` writes it to a path if it is not here yet.

        One process downloads, others wait for it. Raises `Corrupt` (`missing-file`, `size`, `digest`) naming `where` if
        what was downloaded is not `payload`, `StorageFailed` (`cache`) if it cannot be kept, and what `download` raises.
        """
        try:
            return self._file(self.folder(owner), payload, where, download)
        except RemoteError:
            raise
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            hint = f"make room there, or set `{PLACE}` to a folder that can be written"
            raise StorageFailed(f"the read cache `{self.root}` failed: {cause}", hint, code="cache") from error

    def _file(self, folder: Path, payload: Payload, where: str, download: Callable[[Path], None]) -> Path:
        self._hold(folder)
        if self._private and others_write(folder):
            hint = f"`chmod -R go-w` it and the folders above, or set `{PLACE}` to a folder of your own"
            raise StorageFailed(f"the read cache `{self.root}` can be written by others", hint, code="cache")
        target = folder / payload.path
        if not self._is_sound(target, payload):
            with _locked(folder / _LOCK):
                if not self._is_sound(target, payload):
                    self._download(folder, target, payload, where, download)
        os.utime(folder)
        return target

    def make_room(self, size: int) -> None:
        """Removes the versions that were not used for longest, and by nobody now, until `size` bytes more fit."""
        versions = self.root / "versions"
        with _locked(versions / _LOCK):
            found = sorted((_used_at(folder), _size(folder), folder) for folder in versions.glob("*/*/"))
            total = sum(occupied for _, occupied, _ in found) + size
            for _, occupied, folder in found:
                if total <= self.limit:
                    return
                if _remove_unused(folder):
                    total -= occupied

    def _hold(self, folder: Path) -> None:
        """Flocks `folder`, made if it is missing, against removal, until this process ends or has used many others."""
        key = str(folder)
        with _held_by:
            if key in _held and _is_open_at(_held[key], folder):
                _held.move_to_end(key)
                return
            descriptor = _shared(folder)
            if key in _held:
                os.close(_held.pop(key))
            _held[key] = descriptor
            while len(_held) > _HELD_LIMIT:
                os.close(_held.popitem(last=False)[1])

    def _is_sound(self, target: Path, payload: Payload) -> bool:
        """Whether the copy is whole; its digest is taken again only when the file is not the one last seen."""
        try:
            descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # absent, a link, somebody else's: downloading replaces it, or says why it cannot
            return False
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return False
            stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if self._sound.get(target) == stamp:
                return True
            if digest_stream(descriptor) != (payload.size, payload.sha256):
                return False
        finally:
            os.close(descriptor)
        self._sound[target] = stamp
        return True

    def _download(
        self, folder: Path, target: Path, payload: Payload, where: str, download: Callable[[Path], None]
    ) -> None:
        self.make_room(payload.size)
        make_folder(target.parent)
        part = folder / f".{uuid4().hex}.part"
        try:
            check_file(lambda: _downloaded(part, download), payload, where)
            part.chmod(0o444)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def cache_folder() -> Path:
    """`$OCAD_CACHE`, else `$XDG_CACHE_HOME/ocad`, else `~/.cache/ocad`."""
    if place := os.environ.get(PLACE):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ocad")


def _downloaded(part: Path, download: Callable[[Path], None]) -> tuple[int, str]:
    """Size and sha256 of what `download` wrote."""
    download(part)
    with part.open("rb") as stream:
        return digest_stream(stream.fileno())


def _configured_limit() -> int:
    text = os.environ.get(SIZE)
    if not text:
        return DEFAULT_SIZE
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise Invalid(f"`{SIZE}={text}` is no size", "give bytes, or such as `500M` or `20G`")
    return int(float(match[1]) * _UNITS[match[2]])


def _shared(folder: Path) -> int:
    """A descriptor of `folder` that is flocked (shared), opened anew as long as somebody removes it meanwhile."""
    while True:
        make_folder(folder)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_open_at(descriptor, folder):
            return descriptor
        os.close(descriptor)


def _is_open_at(descriptor: int, folder: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    return False


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Holds the exclusive flock of the file `place`, for this thread alone."""
    make_folder(place.parent)
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _used_at(folder: Path) -> int:
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime_ns
    return 0


def _size(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(f"{parent}/{name}").st_size
    return total


def _remove_unused(folder: Path) -> bool:
    """Removes `folder` unless a reader has it flocked; whether it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
