"""Unfinished work on a local file system: a folder under `.staging`, and the one order in which its bytes become durable."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from ocad_registry.digests import digest_stream
from ocad_registry.modes import FILE_MODE, folder_mode
from ocad_registry.storage import Stored

if TYPE_CHECKING:
    from ocad_registry.storage import Payload
    from ocad_registry.storage_local import LocalStorage

STAGING = ".staging"
PATIENCE_S = 1.0
"""How long a writer waits for its turn; one that was stopped while it had its turn must not hold up the others for good."""
_PAUSE_S = 0.001
_SYNCED = -1
# O_NONBLOCK: opening a FIFO that somebody planted must not hang
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalStaging:
    """`.staging/<uuid>`, locked (flock) for as long as its writer lives, so that gc can tell dead work from running work."""

    def __init__(self, storage: LocalStorage, name: str = "") -> None:
        self._storage = storage
        staging = storage.make_folder(STAGING)
        self._mode = folder_mode(os.path.dirname(staging))  # noqa: PTH120
        self.folder, self._lock = _claim(staging, name, self._mode)
        self._files: dict[str, int] = {}
        self._resumed = bool(name)
        self._turn: int | None = None

    def add(self, source: Path, name: str, start: int = 0, size: int | None = None) -> Stored:
        """Copies `source`, or `size` bytes of it from `start`, in under `name`, taking the digest on the way."""
        origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.lseek(origin, start, os.SEEK_SET)
            descriptor = self._begin(name)
            copied, sha256 = digest_stream(origin, lambda chunk: _write_all(descriptor, chunk), size)
        finally:
            os.close(origin)
        return Stored(name, copied, sha256)

    def holds(self, payload: Payload) -> bool:
        """Whether an earlier copy left the file here whole; what is not whole is written again."""
        try:
            descriptor = os.open(f"{self.folder}/{payload.path}", READ)
        except OSError:
            return False
        if digest_stream(descriptor) != (payload.size, payload.sha256):
            os.close(descriptor)
            return False
        self._files[payload.path] = descriptor
        return True

    def file(self, stored: Stored) -> Path:
        """Where an added file can be read."""
        return Path(self.folder, stored.path)

    def write(self, name: str, data: bytes) -> None:
        """Writes a document, in place of one that an earlier attempt left."""
        if name in self._files:
            descriptor = self._files.pop(name)
            if descriptor != _SYNCED:
                os.close(descriptor)
            os.unlink(f"{self.folder}/{name}")  # noqa: PTH108
        _write_all(self._begin(name), memoryview(data))

    def sync(self) -> None:
        """Every file, then the folders; files stay open until then, so that a failed write-back is reported here."""
        self._sync_files()
        for folder in sorted({parent for name in self._files for parent in _parents(name)}, reverse=True):
            sync_folder(f"{self.folder}/{folder}")
        os.fsync(self._lock)

    def take_turn(self, model: str) -> None:
        """See `Staging`; it is a flock on the model's folder until the rename. The payload is made durable before."""
        self._end_turn()
        self._sync_files()
        place, deadline = f"{self._storage.root}/{model}", time.monotonic() + PATIENCE_S
        while (lock := lock_folder(place)) is None and os.path.isdir(place) and time.monotonic() < deadline:  # noqa: PTH112
            time.sleep(_PAUSE_S)
        self._turn = lock

    def _end_turn(self) -> None:
        if self._turn is not None:
            os.close(self._turn)
            self._turn = None

    def publish(self, folder: str, documents: Mapping[str, bytes]) -> None:
        """Syncs everything and renames the folder into place: a rename fails on a folder that holds anything."""
        for name, data in documents.items():
            self.write(name, data)
        self.sync()
        parent = self._storage.make_folder(folder.rpartition("/")[0])
        target = f"{parent}/{folder.rpartition('/')[2]}"
        try:
            os.rename(self.folder, target)  # noqa: PTH104
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, "version exists", target) from None
            raise
        finally:
            self._end_turn()
        sync_folder(parent)

    def discard(self) -> None:
        """Removes the folder unless it was published, and frees the locks."""
        self._end_turn()
        if self._lock < 0:
            return
        for name, descriptor in self._files.items():
            if descriptor != _SYNCED:
                os.close(descriptor)
            with suppress(OSError):
                os.unlink(f"{self.folder}/{name}")  # noqa: PTH108
        for folder in sorted({parent for name in self._files for parent in _parents(name)}, reverse=True):
            with suppress(OSError):
                os.rmdir(f"{self.folder}/{folder}")  # noqa: PTH106
        with suppress(OSError):
            os.rmdir(self.folder)  # noqa: PTH106
        os.close(self._lock)
        self._lock = -1

    def pause(self) -> None:
        """Frees the lock and leaves the files for the next copy, or the collector of garbage."""
        for name, descriptor in self._files.items():
            if descriptor != _SYNCED:
                os.close(descriptor)
                self._files[name] = _SYNCED
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _sync_files(self) -> None:
        waiting = {name: descriptor for name, descriptor in self._files.items() if descriptor != _SYNCED}
        for (
            descriptor
        ) in waiting.values():  # all are on their way before the first wait, which then mostly does for all
            _begin_writing(descriptor)
        for name, descriptor in waiting.items():
            os.fsync(descriptor)
            os.close(descriptor)
            self._files[name] = _SYNCED

    def _begin(self, name: str) -> int:
        for folder in _parents(name):
            with suppress(FileExistsError):
                os.mkdir(f"{self.folder}/{folder}")  # noqa: PTH102
                os.chmod(f"{self.folder}/{folder}", self._mode)  # noqa: PTH101 - whatever the umask
        if self._resumed:
            with suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/{name}")  # noqa: PTH108
        descriptor = os.open(f"{self.folder}/{name}", _WRITE, FILE_MODE)
        self._files[name] = descriptor
        os.fchmod(descriptor, FILE_MODE)
        return descriptor


def _begin_writing(descriptor: int) -> None:
    """Starts to write dirty pages back without waiting; Linux does so for this advice (posix_fadvise(2))."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def sync_folder(place: str) -> None:
    """Makes the names in the folder `place` durable."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(place: str) -> int | None:
    """A descriptor of the folder `place` that holds its exclusive flock; None when another has it, or it is gone."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # whoever collects garbage may have removed it between the two
        if os.path.samestat(os.fstat(descriptor), os.lstat(place)):
            return descriptor
    os.close(descriptor)
    return None


def _claim(staging: str, name: str, mode: int) -> tuple[str, int]:
    """A folder in `staging` that nobody else works in, and its lock: `name` if that is free, else a new one."""
    while True:
        folder = f"{staging}/{name or uuid4().hex}"
        with suppress(FileExistsError):
            os.mkdir(folder)  # noqa: PTH102
        lock = lock_folder(folder)
        if lock is not None:
            with suppress(PermissionError):  # another user's, which was killed
                os.fchmod(lock, mode)
            return folder, lock
        name = ""


def _parents(name: str) -> list[str]:
    """The folders on the way to the file `name`, outermost first."""
    segments = name.split("/")[:-1]
    return ["/".join(segments[: depth + 1]) for depth in range(len(segments))]


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
