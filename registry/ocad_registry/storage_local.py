"""The registry on a local file system: staging folders, `link` and `rename`, and an fsync before each of them.

Order of a publish: every file, its folder, the rename, the parent. Order of a document: the file, the link, the parent.
After a power cut a reader therefore sees a version whole or not at all.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from ocad_registry import names
from ocad_registry.digests import check_file, digest_stream
from ocad_registry.errors import Corrupt, StorageFailed
from ocad_registry.modes import FOLDER_MODE, GROUP, folder_mode
from ocad_registry.private import others_write
from ocad_registry.staging_local import READ, STAGING, LocalStaging, lock_folder, sync_folder
from ocad_registry.storage import Kind, Payload, Stamp, Waste, duration

if TYPE_CHECKING:
    from ocad_registry.cache import Cache

_LOCAL = frozenset({errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EUCLEAN, errno.EBADMSG})
"""Errors of one file or folder, not of the program or the whole disk."""


class LocalStorage:
    """A `Storage` in the folder `root`, which need not exist before the first write; symlinks below it are refused.

    With `private` every payload file is opened as a copy in the read cache, else only one that others can write.
    """

    def __init__(self, root: str | os.PathLike[str], *, private: bool = False) -> None:
        self._private = private
        self._cache: Cache | None = None
        self._root = os.fspath(root)
        self._sound: dict[str, Stamp] = {}
        self._base = os.path.abspath(self._root)  # noqa: PTH100 - must not resolve links, and stays a plain string

    @property
    def root(self) -> str:
        """The folder, as the user named it."""
        return self._root

    def list(self, folder: str) -> dict[str, Kind]:
        """What lies directly in `folder`."""
        if folder and self.kind(folder) != "folder":
            return {}
        try:
            with os.scandir(self._place(folder)) as entries:
                return {entry.name: _entry_kind(entry) for entry in entries}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _refused(error, folder) from error

    def names(self, folder: str) -> Sequence[str]:
        """The names in `folder`."""
        if folder and self.kind(folder) != "folder":
            return ()
        try:
            return os.listdir(self._place(folder))  # noqa: PTH208
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _refused(error, folder) from error

    def kind(self, path: str) -> Kind | None:
        """What `path` is; a symlink anywhere on the way makes it a `link`."""
        place, mode = self._base, 0
        try:
            for segment in path.split("/"):
                place = f"{place}/{segment}"
                mode = os.lstat(place).st_mode
                if stat.S_ISLNK(mode):
                    return "link"
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _refused(error, path) from error
        if stat.S_ISREG(mode):
            return "file"
        return "folder" if stat.S_ISDIR(mode) else "other"

    def stamp(self, path: str) -> Stamp | None:
        """Device, inode, size, mtime and ctime; of what cannot be looked at, the error."""
        try:
            found = os.lstat(self._place(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return 0, 0, 0, 0, error.errno or 0
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def read(self, path: str, limit: int) -> bytes:
        """The bytes of a document."""
        descriptor, size = self._open(path)
        try:
            data = os.read(descriptor, min(size, limit) + 1)
            while len(data) <= limit and (more := os.read(descriptor, limit + 1 - len(data))):
                data += more
        finally:
            os.close(descriptor)
        if len(data) > limit:
            raise Corrupt("oversized-json", f"`{path}` is larger than {limit} bytes")
        return data

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Nothing: a file system has nothing quicker than `read`."""
        return {}

    def etags(self, folder: str) -> dict[str, str]:
        """Nothing."""
        return {}

    def digest(self, path: str) -> tuple[int, str]:
        """Size and sha256 of a payload file."""
        if self.kind(path) == "link":
            raise Corrupt("symlink", f"`{path}` is, or lies behind, a symlink")
        descriptor, _ = self._open(path)
        try:
            return digest_stream(descriptor)
        finally:
            os.close(descriptor)

    def age(self, path: str) -> float:
        """Seconds since the youngest mtime at or below `path`."""
        place = self._place(path)
        written = [
            place,
            *(f"{parent}/{name}" for parent, folders, files in os.walk(place) for name in folders + files),
        ]
        moments = []
        for one in written:
            with suppress(FileNotFoundError, NotADirectoryError):
                moments.append(os.lstat(one).st_mtime)
        return max(0.0, time.time() - max(moments)) if moments else 0.0

    def location(self, path: str) -> str:
        """The place on disk."""
        return self._place(path)

    def local(self, path: str) -> Path:
        """The file itself."""
        return Path(self._place(path))

    def fetch(self, owner: str, path: str, payload: Payload, where: str) -> Path:
        """The file itself, verified again only when it is not the file last seen; a private copy where others can write it.

        Without one (the read cache failed) it is read in place, unless `private` copies are asked for.
        """
        if self._private:
            return self._copied(owner, path, payload, where)
        if self._others_write(path):
            with suppress(StorageFailed):
                return self._copied(owner, path, payload, where)
        stamp = self.stamp(path)
        if stamp is None or self._sound.get(path) != stamp:
            self.check(path, payload, where)
        return self.local(path)

    def _others_write(self, path: str) -> bool:
        with suppress(OSError):  # what is absent has a verdict of its own
            return others_write(self._place(path))
        return False

    def _copied(self, owner: str, path: str, payload: Payload, where: str) -> Path:
        """The copy in the read cache, made from one descriptor if it is not there: what is verified is what is opened."""

        def copy(target: Path) -> None:
            descriptor, _ = self._open(path)
            try:
                with target.open("wb") as stream:
                    digest_stream(descriptor, stream.write)
            finally:
                os.close(descriptor)

        if self.kind(path) == "link":
            raise Corrupt("symlink", f"`{path}` is, or lies behind, a symlink")
        if self._cache is None:
            from ocad_registry.cache import Cache

            self._cache = Cache(private=True)
        return self._cache.file(owner, payload, where, copy)

    def check(self, path: str, payload: Payload, where: str) -> None:
        """Reads the whole file."""
        stamp = self.stamp(path)
        self._sound.pop(path, None)
        check_file(lambda: self.digest(path), payload, where)
        if stamp is not None:
            self._sound[path] = stamp

    def create(self, path: str, data: bytes) -> None:
        """Writes a temporary file and links it: a link never replaces, and the content is whole when the name appears."""
        staging = LocalStaging(self)
        try:
            name = path.rpartition("/")[2]
            staging.write(name, data)
            staging.sync()
            parent = self.make_folder(path.rpartition("/")[0])
            os.link(f"{staging.folder}/{name}", f"{parent}/{name}", follow_symlinks=False)
            sync_folder(parent)
        finally:
            staging.discard()

    def remove(self, path: str) -> None:
        """Removes a file, or a folder with all below it; `metadata.json` first, then the rest."""
        place = self._place(path)
        with suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISDIR(os.lstat(place).st_mode):
                with suppress(FileNotFoundError):
                    os.unlink(f"{place}/metadata.json")  # noqa: PTH108
                shutil.rmtree(place)
            else:
                os.unlink(place)  # noqa: PTH108
            sync_folder(os.path.dirname(place))  # noqa: PTH120

    def stage(self) -> LocalStaging:
        """A new folder under `.staging`."""
        return LocalStaging(self)

    def receive(self, folder: str, sha256: str) -> LocalStaging:
        """A folder under `.staging` that is named by the digest, so that a copy which was killed is taken up again."""
        return LocalStaging(self, sha256[:32])

    def abandoned(self) -> Iterator[Waste]:
        """What lies under `.staging` and has no writer."""
        for name in sorted(self.names(STAGING)):
            path = f"{STAGING}/{name}"
            if self.kind(path) == "folder":
                lock = lock_folder(self._place(path))
                if lock is None:
                    continue
                os.close(lock)
            age = self.age(path)
            yield Waste(path, "staging", age, True, f"its writer was killed {duration(age)} ago")

    def size(self, path: str) -> int:
        """Bytes of all files at or below `path`."""
        place = self._place(path)
        files = [place, *(f"{parent}/{name}" for parent, _, files in os.walk(place) for name in files)]
        total = 0
        for file in files:
            with suppress(FileNotFoundError):
                found = os.lstat(file)
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
        return total

    def discard(self, path: str) -> bool:
        """Removes what nobody sees, out of sight first and at once; False when a writer holds it, or it is gone."""
        place = self._place(path)
        if path.partition("/")[0] != STAGING:
            hidden = f"{self.make_folder(STAGING)}/{uuid4().hex}"
            try:
                os.rename(place, hidden)  # noqa: PTH104
            except FileNotFoundError:
                return False
            sync_folder(os.path.dirname(place))  # noqa: PTH120
            place = hidden
        return _remove_hidden(place)

    def make_folder(self, folder: str) -> str:
        """Makes `folder` and what is missing above it, durable; its place."""
        place = self._base
        if not os.path.isdir(place):  # noqa: PTH112
            os.makedirs(place, exist_ok=True)  # noqa: PTH103
            # a group that the umask and the folder above let in stays in
            os.chmod(place, FOLDER_MODE | os.lstat(place).st_mode & GROUP)  # noqa: PTH101
            sync_folder(os.path.dirname(place))  # noqa: PTH120
        for segment in folder.split("/") if folder else []:
            parent, place = place, f"{place}/{segment}"
            try:
                mode = os.lstat(place).st_mode
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(place)  # noqa: PTH102
                    os.chmod(place, folder_mode(self._base))  # noqa: PTH101 - whatever the umask
                sync_folder(parent)
            else:
                if not stat.S_ISDIR(mode):
                    raise Corrupt("symlink" if stat.S_ISLNK(mode) else "not-a-file", f"`{folder}` is no plain folder")
        return place

    def _place(self, path: str) -> str:
        return f"{self._base}/{path}" if path else self._base

    def _open(self, path: str) -> tuple[int, int]:
        """Descriptor and size of a regular file."""
        try:
            descriptor = os.open(self._place(path), READ)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Corrupt("symlink", f"`{path}` is a symlink") from None
            if error.errno in (errno.ENXIO, errno.ENODEV):
                raise Corrupt("not-a-file", f"`{path}` is no regular file") from None
            if error.errno == errno.ENOTDIR:
                raise FileNotFoundError(error.errno, error.strerror, path) from None
            raise _refused(error, path) from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise Corrupt("not-a-file", f"`{path}` is no regular file")
        return descriptor, found.st_size


def _refused(error: OSError, path: str) -> Exception:
    """What to raise for `error` at `path`: where only this is shut or failing, a verdict on it and on nothing else."""
    if error.errno not in _LOCAL or ("/" not in path and not names.is_model(path)):
        return error
    return Corrupt(
        "unreadable",
        f"`{path}` cannot be read ({(error.strerror or 'unknown error').lower()})",
        "`ocad registry doctor` says what to do",
    )


def _remove_hidden(place: str) -> bool:
    try:
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            os.unlink(place)  # noqa: PTH108
            return True
    except FileNotFoundError:
        return False
    lock = lock_folder(place)
    if lock is None:
        return False
    try:
        shutil.rmtree(place)
    finally:
        os.close(lock)
    return True


def _entry_kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return "link"
    if entry.is_file(follow_symlinks=False):
        return "file"
    return "folder" if entry.is_dir(follow_symlinks=False) else "other"
