"""A version as one tar file: the same bytes for the same version, and nothing believed when it is read back.

    MODEL/VERSION/metadata.json
    MODEL/VERSION/metadata.sha256
    MODEL/VERSION/…                       the payload, in the order of `files`
    MODEL/signatures/VERSION/KEYID.json   its signatures, sorted

Plain files only, owner 0, time 0, mode 0444, pax headers where a name or size needs them, never compressed: an archive cannot
unpack to more than its own size. Whatever else stands in one, or stands elsewhere, is refused before anything is visible.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import uuid4

from ocad_registry import digests, documents, names
from ocad_registry.digests import check_file
from ocad_registry.errors import Corrupt, Invalid
from ocad_registry.signing import SIGNATURE_NAME, parse_signature
from ocad_registry.transfer import Package
from ocad_registry.versions import DIGEST, METADATA, SIGNATURES, check_external

if TYPE_CHECKING:
    from ocad_registry.manifest import File, Manifest
    from ocad_registry.storage import Receiving, Storage, Stored

MEMBERS_LIMIT = 100_000
SIGNATURES_LIMIT = 256
_READ_LIMIT = 1024 * 1024
_HINT = "take an archive that `ocad registry export` wrote"


def write_archive(storage: Storage, package: Package, target: Path) -> int:
    """Writes the version to the new file `target`, every byte verified; its size. Raises `Invalid` where it exists."""
    if target.exists():
        raise Invalid(f"`{target}` exists", "archives are not overwritten; give another name")
    part = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        with part.open("xb") as stream:
            _write(storage, package, stream)
            stream.flush()
            os.fsync(stream.fileno())
        return part.rename(target).stat().st_size
    finally:
        part.unlink(missing_ok=True)


def _write(storage: Storage, package: Package, stream: IO[bytes]) -> None:
    manifest = package.manifest
    folder = f"{manifest.name}/{manifest.version}"
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, f"{folder}/{METADATA}", package.metadata)
        _add(tar, f"{folder}/{DIGEST}", digests.digest_line(package.sha256))
        for file in manifest.files:
            where = f"`{file.path}` of `{manifest.ref}`"
            with storage.fetch(package.sha256, f"{folder}/{file.path}", file, where).open("rb") as payload:
                tar.addfile(_member(f"{folder}/{file.path}", file.size), payload)
        for name, data in sorted(package.signatures.items()):
            _add(tar, f"{manifest.name}/{SIGNATURES}/{manifest.version}/{name}", data)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_member(name, len(data)), BytesIO(data))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o444
    return member


def read_archive(path: Path) -> Package:
    """What the archive at `path` holds; its payload is verified when it is handed over.

    Raises `Corrupt`: `bad-archive`, or what is wrong with the metadata; `OSError`.
    """
    with _members(path) as members:
        folder, metadata = _metadata(members)
        name, _, version = folder.partition("/")
        manifest = _manifest(metadata, name, version)
        total = path.stat().st_size
        if sum(file.size for file in manifest.files) > total:
            raise _bad(f"its metadata lists more than the {total} bytes of the archive")
        places = {
            file.path: _expect(members, f"{folder}/{file.path}", file.size).offset_data for file in manifest.files
        }
        signatures = dict(_signatures(members, name, version))
    for file in manifest.files:
        if file.role == "onnx":
            _check_onnx(path, places[file.path], file, manifest)

    def hand_over(receiving: Receiving, file: File) -> Stored:
        return receiving.add(path, file.path, places[file.path], file.size)

    return Package(manifest, metadata, signatures, hand_over)


def _check_onnx(path: Path, start: int, file: File, manifest: Manifest) -> None:
    """The external data of the ONNX that lies in the archive at `start`, as a reader will ask for it."""
    with path.open("rb") as archive, tempfile.NamedTemporaryFile(prefix="ocad-") as part:
        archive.seek(start)
        check_file(lambda: digests.digest_stream(archive.fileno(), part.write, file.size), file, f"`{file.path}`")
        part.flush()
        check_external(Path(part.name), manifest, file)


class _Members:
    """The members of a tar, one after another, each checked to be a plain file."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._count = 0

    def next(self) -> tarfile.TarInfo | None:
        """The next member; None at the end. Raises `Corrupt` (`bad-archive`) for what is no plain file."""
        member = self._tar.next()
        if member is None:
            return None
        self._count += 1
        shown = f"{member.name!r:.100}"
        if self._count > MEMBERS_LIMIT:
            raise _bad(f"it has more than {MEMBERS_LIMIT} members")
        if not member.isreg() or member.issparse():
            raise _bad(f"{shown} is no plain file")
        if self._tar.pax_headers or set(member.pax_headers) - {"path", "size"}:
            raise _bad(f"{shown} has headers of its own")
        return member

    def bytes(self, member: tarfile.TarInfo, limit: int) -> bytes:
        """What a small member holds."""
        if member.size > limit:
            raise _bad(f"{member.name!r:.100} is larger than {limit} bytes")
        stream = self._tar.extractfile(member)
        assert stream is not None
        pieces = []
        while piece := stream.read(_READ_LIMIT):
            pieces.append(piece)
        return b"".join(pieces)


class _Bounded:
    """A file of which no more is read at once than an honest header needs: a pax header may claim any size."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        """At most `_READ_LIMIT` bytes; more is refused."""
        if size > _READ_LIMIT:
            raise _bad("a header is too large")
        return self._stream.read(size)


@contextmanager
def _members(path: Path) -> Iterator[_Members]:
    """The members of the archive at `path`; whatever `tarfile` says about a hostile one becomes `bad-archive`."""
    with path.open("rb") as stream:
        try:
            with tarfile.open(fileobj=_Bounded(stream), mode="r:", errorlevel=2) as tar:  # type: ignore[call-overload]
                yield _Members(tar)
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
            raise _bad(f"it is no whole tar ({' '.join(str(error).split())[:80] or type(error).__name__})") from None


def _metadata(members: _Members) -> tuple[str, bytes]:
    """`MODEL/VERSION` and the metadata, which stand first, with the right digest beside it."""
    member = members.next()
    folder, _, last = member.name.rpartition("/") if member else ("", "", "")
    name, _, version = folder.partition("/")
    if member is None or last != METADATA or not (names.is_model(name) and names.is_version(version)):
        raise _bad(f"it does not begin with `MODEL/VERSION/{METADATA}`")
    data = members.bytes(member, documents.METADATA_LIMIT)
    line = members.bytes(_expect(members, f"{folder}/{DIGEST}"), documents.DOCUMENT_LIMIT)
    if digests.parse_digest_line(line, f"`{name}@{version}`") != digests.digest(data):
        raise Corrupt("metadata-digest", f"metadata of `{name}@{version}` is not what was published", _HINT)
    return folder, data


def _expect(members: _Members, name: str, size: int | None = None) -> tarfile.TarInfo:
    """The next member, which must be `name`."""
    member = members.next()
    if member is None:
        raise _bad(f"it ends before `{name}`")
    if member.name != name:
        raise _bad(f"{member.name!r:.100} stands where `{name}` belongs")
    if size is not None and member.size != size:
        raise Corrupt("size", f"`{name}` has {member.size} bytes, not {size}", _HINT)
    return member


def _manifest(data: bytes, name: str, version: str) -> Manifest:
    from ocad_registry.manifest import parse_manifest

    return parse_manifest(documents.parse(data, f"metadata of `{name}@{version}`"), name, version)


def _signatures(members: _Members, name: str, version: str) -> Iterator[tuple[str, bytes]]:
    """The rest of the archive: each signature once, in the order of their names."""
    folder, last = f"{name}/{SIGNATURES}/{version}", ""
    for _ in range(SIGNATURES_LIMIT):
        member = members.next()
        if member is None:
            return
        parent, _, file = member.name.rpartition("/")
        if parent != folder or not SIGNATURE_NAME.fullmatch(file) or file <= last:
            raise _bad(f"{member.name!r:.100} is not among the files of `{name}@{version}`")
        data, last = members.bytes(member, documents.DOCUMENT_LIMIT), file
        parse_signature(data, file.removesuffix(".json"))
        yield file, data
    raise _bad(f"it has more than {SIGNATURES_LIMIT} signatures")


def _bad(cause: str) -> Corrupt:
    return Corrupt("bad-archive", f"the archive is refused: {cause}", _HINT)
