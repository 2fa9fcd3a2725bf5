"""One stored version: where it is, what it says, and its files once they are verified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ocad_registry import digests, documents, names
from ocad_registry.errors import Corrupt, NotFound
from ocad_registry.failures import failures
from ocad_registry.onnx_external import BadOnnxError, external_locations

if TYPE_CHECKING:
    from ocad_registry.manifest import File, Manifest
    from ocad_registry.signed_aliases import Trust
    from ocad_registry.storage import Storage

METADATA = "metadata.json"
DIGEST = "metadata.sha256"
DELETED = "deleted"
SIGNATURES = "signatures"


class Reader(Protocol):
    """A storage, as far as metadata needs it."""

    def read(self, path: str, limit: int) -> bytes:
        """As `Storage.read`."""
        ...


class Metadata(NamedTuple):
    """A verified `metadata.json`: parsed, its digest, and as the JSON object that was read."""

    manifest: Manifest
    sha256: str
    document: dict[str, Any]


class Known(NamedTuple):
    """A version by the digest of its metadata, as far as a signature says something of it."""

    name: str
    version: str
    metadata_sha256: str

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


class Version:
    """A living version. `path` costs nothing; `manifest` and `file` read, verify, and raise `Corrupt`.

    `pinned` is the digest that an alias entry or a parent holds for it: metadata with another one is `alias-digest`.
    """

    def __init__(self, storage: Storage, name: str, version: str, pinned: str | None = None) -> None:
        self._storage = storage
        self.name = name
        self.version = version
        self._pinned = pinned
        self.trust: Trust | None = None
        """Whose signature its metadata must have before anything of it is believed."""

    def __repr__(self) -> str:
        return f"Version({self.ref!r})"

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def path(self) -> Path:
        """The version's folder; of a version in an object store that of its local copies, which this downloads.

        In the latter, files lie under `files[].path`: ask for them by `file` or `named`.
        """
        place = self._storage.local(f"{self.name}/{self.version}")
        return place if place is not None else self._downloaded()

    @property
    def location(self) -> str:
        """Where the version is stored, as a person is shown it: a folder, or a URL."""
        return self._storage.location(f"{self.name}/{self.version}")

    @cached_property
    def _metadata(self) -> Metadata:
        with self._failures():
            metadata = read_metadata(self._storage, self.name, self.version)
        self.check_digest(metadata.sha256)
        if self.trust is not None:
            from ocad_registry.signing import check_signed

            with self._failures():
                check_signed(self._storage, Known(self.name, self.version, metadata.sha256), self.trust.keys)
        return metadata

    def check_digest(self, sha256: str) -> None:
        """Raises `Corrupt` (`alias-digest`) if metadata of this digest is not what the alias was given."""
        if self._pinned not in (None, sha256):
            raise Corrupt("alias-digest", f"`{self.ref}` is not the version that the alias was given")

    @property
    def manifest(self) -> Manifest:
        """The verified `metadata.json`; raises `Corrupt` or `NotFound`."""
        return self._metadata.manifest

    @property
    def metadata_sha256(self) -> str:
        """The digest of `metadata.json`, 64 hex digits."""
        return self._metadata.sha256

    @property
    def files(self) -> list[File]:
        """What the version holds, as its manifest lists it; nothing of it is verified by asking."""
        return list(self.manifest.files)

    def file(self, role: str) -> Path:
        """The path of the first file with `role`, verified, an `onnx` together with its external data.

        Raises `NotFound` when there is no such file and `Corrupt` when its bytes are not the published ones.
        """
        file = next((file for file in self.manifest.files if file.role == role), None)
        if file is None:
            raise NotFound(f"`{self.ref}` has no file of role `{role}`", f"it has {self._roles()}")
        if role == "onnx":
            place = self._fetch(file)
            for other in check_external(place, self.manifest, file):
                self._fetch(other)
            return place
        return self._fetch(file)

    def named(self, name: str) -> Path:
        """The path of the file whose last segment is `name`, verified; raises as `file` does."""
        file = next((file for file in self.manifest.files if file.path.rpartition("/")[2] == name), None)
        if file is None:
            listed = ", ".join(f"`{file.path.rpartition('/')[2]}`" for file in self.manifest.files) or "no file at all"
            raise NotFound(f"`{self.ref}` has no file `{name}`", f"it has {listed}")
        return self._fetch(file)

    def verify(self) -> None:
        """Reads every byte of the version again, where it is stored; raises the first `Corrupt`."""
        self.__dict__.pop("_metadata", None)
        for file in self.manifest.files:
            with self._failures():
                self._storage.check(self._place(file), file, self._where(file))
        for file in self.manifest.files:
            if file.role == "onnx":
                check_external(self._fetch(file), self.manifest, file)

    def _fetch(self, file: File) -> Path:
        sha256 = self.metadata_sha256
        with self._failures():
            return self._storage.fetch(sha256, self._place(file), file, self._where(file))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """What is missing because the version was deleted and collected since it was resolved is no damage."""
        with failures(self._storage.root, f"reading `{self.ref}`"):
            try:
                yield
            except (Corrupt, FileNotFoundError) as error:
                if not is_deleted(self._storage, self.name, self.version):
                    raise
                raise missing(self.name, f"`{self.ref}` was deleted, and its files are collected") from error

    def _downloaded(self) -> Path:
        """The folder of the local copies."""
        if not self.manifest.files:
            raise NotFound(f"`{self.ref}` has no file to download", "its metadata is all there is")
        places = [(self._fetch(file), file.path) for file in self.manifest.files]
        place, path = places[0]
        return place.parents[path.count("/")]

    def _place(self, file: File) -> str:
        return f"{self.name}/{self.version}/{file.path}"

    def _where(self, file: File) -> str:
        return f"`{file.path}` of `{self.ref}`"

    def _roles(self) -> str:
        return (
            ", ".join(f"`{role}`" for role in sorted({file.role for file in self.manifest.files})) or "no file at all"
        )


def missing(name: str, message: str) -> NotFound:
    """The error for a version of the model `name` that is not there."""
    return NotFound(message, f"`ocad registry list {name}` shows what there is")


def is_deleted(storage: Storage, name: str, version: str) -> bool:
    """Whether a tombstone stands for it; its name alone counts."""
    kind = storage.kind(f"{name}/{DELETED}/{version}.json")
    return kind is not None and (kind != "link" or storage.kind(f"{name}/{DELETED}") == "folder")


def find_version(storage: Storage, name: str, version: str) -> Version:
    """The living version; raises `NotFound`, or `Corrupt` (`symlink`) when the way to it leads over a link."""
    if is_deleted(storage, name, version):
        raise missing(name, f"there is no version `{name}@{version}` any more")
    return find_undeleted(storage, name, version)


def find_undeleted(storage: Storage, name: str, version: str, pinned: str | None = None) -> Version:
    """As `find_version`, for a version that is known to have no tombstone."""
    kind = storage.kind(f"{name}/{version}/{METADATA}")
    if kind is None:
        raise missing(name, f"there is no version `{name}@{version}`")
    if kind == "link":
        raise Corrupt("symlink", f"`{name}@{version}` is, or lies behind, a symlink")
    return Version(storage, name, version, pinned)


def read_metadata(storage: Reader, name: str, version: str) -> Metadata:
    """The verified metadata; raises `NotFound` or `Corrupt`, in the order of FORMAT.md."""
    from ocad_registry.manifest import parse_manifest

    folder, where = f"{name}/{version}", f"`{name}@{version}`"
    try:
        data = storage.read(f"{folder}/{METADATA}", documents.METADATA_LIMIT)
    except FileNotFoundError:
        raise missing(name, f"there is no version {where}") from None
    try:
        line = storage.read(f"{folder}/{DIGEST}", documents.DOCUMENT_LIMIT)
    except (FileNotFoundError, Corrupt):
        raise Corrupt("metadata-digest", f"`metadata.sha256` of {where} is missing or no plain file") from None
    sha256 = digests.digest(data)
    if digests.parse_digest_line(line, where) != sha256:
        raise Corrupt("metadata-digest", f"metadata of {where} is not what was published (sha256 differs)")
    document = documents.parse(data, f"metadata of {where}")
    return Metadata(parse_manifest(document, name, version), sha256, document)


def check_external(onnx: Path, manifest: Manifest, file: File) -> list[File]:
    """The files that the ONNX `file`, lying at `onnx`, keeps its weights in.

    Raises `Corrupt`: `external-data` when a location is illegal or not in `files`, `bad-onnx` when it cannot be parsed.
    """
    where = f"`{file.path}` of `{manifest.ref}`"
    try:
        locations = external_locations(onnx)
    except BadOnnxError as error:
        raise Corrupt("bad-onnx", f"{where} is no ONNX file ({error})") from None
    listed = {other.path: other for other in manifest.files}
    folder = file.path.rpartition("/")[0]
    found = []
    for location in sorted(locations):
        path = f"{folder}/{location}" if folder else location
        if not names.is_path(path) or path not in listed:
            raise Corrupt("external-data", f"{where} keeps weights in {location!r:.80}, which is not among its files")
        found.append(listed[path])
    return found
