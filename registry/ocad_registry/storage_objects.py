"""The registry in an object store: whole objects, and one conditional put where a file system has `link` and `rename`.

Order of a publish: the payload under `MODEL/VERSION/UUID/`, which no other writer touches; then `metadata.sha256` on
condition that it is absent, which claims the number; `metadata.json` last, on the same condition, which makes the version
appear. A put whose answer was lost is sent again and then finds its own object: one with our bytes is ours.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from ocad_registry.cache import Cache
from ocad_registry.digests import check_file, digest_stream
from ocad_registry.documents import METADATA_LIMIT
from ocad_registry.errors import Corrupt, RemoteError
from ocad_registry.remotes import connect, patiently
from ocad_registry.storage import Kind, Payload, Stamp, Stored, Waste
from ocad_registry.transfer_objects import ObjectReceiving, orphans

_AMBIGUOUS = frozenset({"connection", "unreachable", "storage"})
CHUNK = 8 * 1024 * 1024
AT_ONCE = 32
"""Requests under way when many documents are read."""
LAST = "metadata.json"


class ObjectStorage:
    """A `Storage` under the `url` of a bucket and prefix. Nothing is requested before it is needed.

    Everything may raise `RemoteError` where a file system raises `OSError`.
    """

    def __init__(self, url: str, *, private: bool = False) -> None:
        self._private = private
        self._url = url.rstrip("/")
        self._connection: tuple[int, Any, str] | None = None
        self._cache: Cache | None = None

    @property
    def root(self) -> str:
        """The URL, as the user named it."""
        return self._url

    @property
    def cache(self) -> Cache:
        """The user's read cache."""
        if self._cache is None:
            self._cache = Cache(private=self._private)
        return self._cache

    def list(self, folder: str) -> dict[str, Kind]:
        """The objects and common prefixes directly under `folder`."""
        return {name: kind for name, kind, _ in self._children(folder)}

    def names(self, folder: str) -> Sequence[str]:
        """The keys of `list`."""
        return tuple(name for name, _, _ in self._children(folder))

    def kind(self, path: str) -> Kind | None:
        """A `file` is an object, a `folder` a common prefix; there is nothing else."""
        try:
            return "folder" if self._info(path)["type"] == "directory" else "file"
        except FileNotFoundError:
            return None

    def stamp(self, path: str) -> Stamp | None:
        """The ETag, if the store has one, the size, and when the object was written."""
        try:
            return _stamp(self._info(path))
        except FileNotFoundError:
            return None

    def age(self, path: str) -> float:
        """Seconds since the youngest object at or below `path` was written, by this machine's clock; 0 if it is absent."""
        return min(self.ages(path).values(), default=0.0)

    def read(self, path: str, limit: int) -> bytes:
        """The bytes of a document."""
        data = self._range(path, 0, limit + 1)
        if len(data) > limit:
            raise Corrupt("oversized-json", f"`{path}` is larger than {limit} bytes")
        return data

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """All of them at once, over one event loop; nothing of protocols other than S3."""
        system, root = self._system()
        if not paths or not hasattr(system, "call_s3"):
            return {}
        places = [f"{root}/{path}" for path in paths]
        answers = system.cat_ranges(places, 0, METADATA_LIMIT + 1, batch_size=AT_ONCE, on_error="return")
        return {path: data for path, data in zip(paths, answers, strict=True) if isinstance(data, bytes)}

    def etags(self, folder: str) -> dict[str, str]:
        """By one listing of all keys."""
        system, root = self._system()
        if not hasattr(system, "call_s3"):
            return {}
        found = patiently(self._url, lambda: _list_s3(system, f"{root}/{folder}/", delimiter=""))
        return {str(one["name"]).removeprefix(f"{root}/"): str(one.get("ETag", "")).strip('"') for one in found}

    def digest(self, path: str) -> tuple[int, str]:
        """Size and sha256 of a payload file, which is read from the store."""
        state, size = hashlib.sha256(), 0
        for chunk in self._chunks(path):
            state.update(chunk)
            size += len(chunk)
        return size, state.hexdigest()

    def location(self, path: str) -> str:
        """The URL."""
        return f"{self._url}/{path}"

    def local(self, path: str) -> None:
        """Nowhere."""

    def fetch(self, owner: str, path: str, payload: Payload, where: str) -> Path:
        """The copy in the read cache, downloaded if it is not there."""
        return self.cache.file(owner, payload, where, lambda target: self._download(path, target, payload.size))

    def check(self, path: str, payload: Payload, where: str) -> None:
        """Reads the whole object."""
        check_file(lambda: self.digest(path), payload, where)

    def create(self, path: str, data: bytes) -> None:
        """One conditional put. A failure that leaves open whether it was done is an uncertain `RemoteError`."""
        system, root = self._system()
        try:
            patiently(self._url, lambda: system.pipe_file(f"{root}/{path}", data, mode="create"))
        except FileExistsError:
            if not self._holds(path, data):
                raise FileExistsError(errno.EEXIST, "it exists", path) from None
        except RemoteError as error:
            error.certain = error.code not in _AMBIGUOUS
            raise

    def remove(self, path: str) -> None:
        """Removes the object `path`, or every object below it; `metadata.json` of a version first."""
        system, root = self._system()
        found = patiently(self._url, lambda: system.find(f"{root}/{path}"))
        for key in sorted(found, key=lambda key: (not key.endswith(f"/{LAST}"), key)):
            with suppress(FileNotFoundError):
                patiently(self._url, partial(system.rm_file, key))

    def stage(self) -> ObjectStaging:
        """Begins a version: nothing is sent before it is published."""
        return ObjectStaging(self)

    def receive(self, folder: str, sha256: str) -> ObjectReceiving:
        """Claims the number, or goes on with a copy that has the same digest."""
        return ObjectReceiving(self, folder, sha256)

    def abandoned(self) -> Iterator[Waste]:
        """What publishers left under numbers that they did not get."""
        return orphans(self)

    def size(self, path: str) -> int:
        """Bytes of all objects at or below `path`."""
        return sum(int(found.get("size") or 0) for found in self._below(path).values())

    def ages(self, folder: str) -> dict[str, float]:
        """Paths of all objects below `folder`, relative to it → seconds since each was written, by this machine's clock."""
        now = time.time()
        return {path: max(0.0, now - (_written(found) or now)) for path, found in self._below(folder).items()}

    def lead(self) -> float:
        """How many seconds this machine's clock is ahead of the store's at most, by an object that is put there and removed.

        0 where that is refused: whoever may not put may not remove either.
        """
        path, begun = f".staging/{uuid4().hex}", time.time()
        try:
            self.create(path, b"")
            written = _written(self._info(path))
            self.remove(path)
        except OSError:
            return 0.0
        # the store's clock may count whole seconds
        return max(0.0, begun - written - 1.0) if written else 0.0

    def discard(self, path: str) -> bool:
        """Removes the objects at or below `path`."""
        self.remove(path)
        return True

    def upload(self, source: Path, path: str) -> None:
        """Puts the file `source` as the object `path`, which no other writer may use."""
        system, root = self._system()
        patiently(self._url, lambda: system.put_file(str(source), f"{root}/{path}"))

    def copy(self, path: str, other: str) -> None:
        """Copies an object to another key, within the store."""
        system, root = self._system()
        patiently(self._url, lambda: system.cp_file(f"{root}/{path}", f"{root}/{other}"))

    def _system(self) -> tuple[Any, str]:
        """The file system and the root's path in it, made anew in a forked process."""
        if self._connection is None or self._connection[0] != os.getpid():
            system = connect(self._url)
            self._connection = os.getpid(), system, str(system._strip_protocol(self._url)).rstrip("/")
        return self._connection[1], self._connection[2]

    def _below(self, path: str) -> dict[str, dict[str, Any]]:
        """The objects at or below `path`, by their paths relative to it."""
        system, root = self._system()
        place = f"{root}/{path}"
        found = patiently(self._url, lambda: system.find(place, detail=True))
        return {str(key).removeprefix(place).lstrip("/"): info for key, info in found.items()}

    def _download(self, path: str, target: Path, size: int) -> None:
        """Writes the object to `target`, no more than one byte beyond `size`."""
        with target.open("wb") as stream:
            for chunk in self._chunks(path, size + 1):
                stream.write(chunk)

    def _info(self, path: str) -> dict[str, Any]:
        system, root = self._system()
        return patiently(self._url, _looker(system, f"{root}/{path}"))

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return self._range(path, 0, len(data) + 1) == data
        except FileNotFoundError:
            return False

    def _range(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`, fewer at the object's end."""
        system, root = self._system()
        try:
            data: bytes = patiently(self._url, lambda: system.cat_file(f"{root}/{path}", start=start, end=end))
        except RemoteError as error:
            if _is_beyond(error):
                return b""
            raise
        return data

    def _chunks(self, path: str, limit: int | None = None) -> Iterator[bytes]:
        """The object in pieces, each its own request, so that a cut connection costs one of them."""
        start = 0
        while limit is None or start < limit:
            end = start + CHUNK if limit is None else min(start + CHUNK, limit)
            chunk = self._range(path, start, end)
            yield chunk
            start += len(chunk)
            if start < end:
                return

    def _children(self, folder: str) -> Iterator[tuple[str, Kind, dict[str, Any]]]:
        system, root = self._system()
        place = f"{root}/{folder}" if folder else root
        try:
            listed = patiently(self._url, _lister(system, place))
        except FileNotFoundError:
            return
        for found in listed:
            name = str(found["name"]).rstrip("/").removeprefix(f"{place}/")
            if name and "/" not in name:
                yield name, "folder" if found["type"] == "directory" else "file", found


class ObjectStaging:
    """A version of which nothing is stored yet: `publish` sends the files as they were when they were added."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._identifier = uuid4().hex
        self._sources: dict[str, tuple[Path, tuple[int, ...]]] = {}
        self._sent = ""

    def add(self, source: Path, name: str) -> Stored:
        """Takes the digest of `source`, which must stay as it is until `publish` returns."""
        path = f"{self._identifier}/{name}"
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._sources[path] = source, _identity(os.fstat(descriptor))
            size, sha256 = digest_stream(descriptor)
        finally:
            os.close(descriptor)
        return Stored(path, size, sha256)

    def file(self, stored: Stored) -> Path:
        """The file that was added."""
        return self._sources[stored.path][0]

    def take_turn(self, model: str) -> None:
        """Nothing: a bucket has no cheap lock."""

    def publish(self, folder: str, documents: Mapping[str, bytes]) -> None:
        """Sends the payload, or copies it from where an earlier attempt lost; then the documents, `metadata.json` last."""
        if set(self._storage.names(folder)) & set(documents):
            raise FileExistsError(errno.EEXIST, "version exists", folder)
        self._send(folder)
        for name, data in documents.items():
            if name != LAST:
                self._storage.create(f"{folder}/{name}", data)
        self._sent = ""  # from here on the version may be live, whatever we hear of it: its payload must stay
        try:
            self._storage.create(f"{folder}/{LAST}", documents[LAST])
        except FileExistsError:
            self._sent = folder
            raise

    def discard(self) -> None:
        """Removes the payload of an attempt that lost; harmless after `publish`."""
        if self._sent:
            with suppress(OSError):
                self._storage.remove(f"{self._sent}/{self._identifier}")
            self._sent = ""

    def _send(self, folder: str) -> None:
        earlier, self._sent = self._sent, folder
        for path, (source, identity) in self._sources.items():
            if earlier:
                self._storage.copy(f"{earlier}/{path}", f"{folder}/{path}")
                continue
            self._storage.upload(source, f"{folder}/{path}")
            if _identity(source.stat()) != identity:
                raise RemoteError("storage", f"`{source}` changed while it was being published", "publish it again")
        if earlier:
            with suppress(OSError):
                self._storage.remove(f"{earlier}/{self._identifier}")


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _lister(system: Any, place: str) -> Callable[[], Sequence[dict[str, Any]]]:
    """What lists the folder `place`; not by `ls` of s3fs, which reads the whole parent of what it does not find."""
    if hasattr(system, "call_s3"):
        return lambda: _list_s3(system, f"{place}/")
    return lambda: system.ls(place, detail=True)


def _looker(system: Any, place: str) -> Callable[[], dict[str, Any]]:
    """What looks at `place` alone: of S3 one list, where `info` of s3fs has two requests for what is not there."""

    def look() -> dict[str, Any]:
        for found in _list_s3(system, place):
            if found["name"] in (place, f"{place}/"):
                return found
        raise FileNotFoundError(errno.ENOENT, "no such object", place)

    return look if hasattr(system, "call_s3") else lambda: dict(system.info(place))


def _list_s3(system: Any, start: str, delimiter: str = "/") -> list[dict[str, Any]]:
    """The objects and common prefixes whose names begin with `start` (`BUCKET/…`) and have no `/` after it, but at the end.

    Without a delimiter: all objects whose names begin so.
    """
    bucket, _, prefix = start.partition("/")
    found: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        page = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter=delimiter, **token)
        for one in page.get("CommonPrefixes", ()):
            found.append({"name": f"{bucket}/{one['Prefix']}", "type": "directory"})
        for one in page.get("Contents", ()):
            found.append({"name": f"{bucket}/{one['Key']}", "type": "file", **one})
        if not page.get("IsTruncated"):
            return found
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _stamp(info: Mapping[str, Any]) -> Stamp:
    return f"{info.get('ETag')} {info.get('size')} {_written(info)}"


def _written(info: Mapping[str, Any]) -> float | None:
    for field in ("LastModified", "created"):
        moment = info.get(field)
        if isinstance(moment, datetime):
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def _is_beyond(error: RemoteError) -> bool:
    """Whether a range began at or after the end of the object."""
    response = getattr(getattr(error.__cause__, "__cause__", None), "response", {})
    return response.get("Error", {}).get("Code") in ("InvalidRange", "416")
