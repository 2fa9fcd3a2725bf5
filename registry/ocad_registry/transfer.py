"""Copies: a version as it is, byte for byte, from one registry into another or out of an archive.

Metadata keeps its digest, so that parents, alias entries and signatures stay true, and with it the paths in `files`: a version
from an object store keeps its `UUID/` in a folder, one from a folder its plain paths in an object store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ocad_registry import digests, documents, names
from ocad_registry.errors import Corrupt, NotFound, VersionExists
from ocad_registry.signing import SIGNATURE_NAME
from ocad_registry.versions import DIGEST, METADATA, SIGNATURES, Version, check_external, find_version, is_deleted

if TYPE_CHECKING:
    from ocad_registry.manifest import File, Manifest
    from ocad_registry.storage import Receiving, Storage, Stored


@dataclass(frozen=True, slots=True)
class Copied:
    """A version that is now in another place; not `copied` when it was there already. `size` in bytes, of its files."""

    ref: str
    metadata_sha256: str
    copied: bool
    files: int
    size: int
    signatures: int

    def to_json(self) -> dict[str, Any]:
        """As `ocad registry copy --json` shows it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Package:
    """A version on its way: verified metadata, signatures by file name, and what hands a payload file over."""

    manifest: Manifest
    metadata: bytes
    signatures: dict[str, bytes]
    hand_over: Callable[[Receiving, File], Stored]

    @property
    def sha256(self) -> str:
        """The digest of the metadata."""
        return digests.digest(self.metadata)


def pack(storage: Storage, version: Version) -> Package:
    """A stored version; each file of it is verified when it is handed over. Raises `Corrupt`."""
    manifest, sha256 = version.manifest, version.metadata_sha256
    folder = f"{version.name}/{version.version}"
    metadata = storage.read(f"{folder}/{METADATA}", documents.METADATA_LIMIT)
    if digests.digest(metadata) != sha256:
        raise Corrupt("metadata-digest", f"metadata of `{version.ref}` changed while it was read")

    def hand_over(receiving: Receiving, file: File) -> Stored:
        where = f"`{file.path}` of `{version.ref}`"
        path = storage.fetch(sha256, f"{folder}/{file.path}", file, where)
        if file.role == "onnx":
            check_external(path, manifest, file)
        return receiving.add(path, file.path)

    return Package(manifest, metadata, dict(_signatures(storage, version)), hand_over)


def lineage(source: Storage, target: Storage, version: Version) -> list[Version]:
    """`version` and everything that it was built from, parents first, without what `target` holds in place of `source`.

    Raises `NotFound` for a parent that neither has, `Corrupt` (`parent-digest`) for one that is not the one it was built from.
    """
    order: dict[str, Version] = {}
    waiting: list[tuple[Version, bool]] = [(version, False)]
    while waiting:
        current, parents_done = waiting.pop()
        if parents_done or current.ref in order:
            order.setdefault(current.ref, current)
            continue
        waiting.append((current, True))
        for parent in current.manifest.parents:
            found = _parent(source, target, parent.ref, parent.metadata_sha256, current.ref)
            if found is not None and found.ref not in order:
                waiting.append((found, False))
    return list(order.values())


def _parent(source: Storage, target: Storage, ref: str, sha256: str, child: str) -> Version | None:
    """The parent in `source`; None when only `target` has it."""
    name, _, version = ref.partition("@")
    if not (names.is_model(name) and names.is_version(version)):
        raise Corrupt("bad-parent", f"parent `{ref}` of `{child}` is no `name@version`")
    for storage in (source, target):
        with suppress(NotFound):
            found = find_version(storage, name, version)
            if found.metadata_sha256 != sha256:
                raise Corrupt("parent-digest", f"parent `{ref}` is not the one that `{child}` was built from")
            return found if storage is source else None
    raise NotFound(f"parent `{ref}` of `{child}` is gone", "copy without `--with-parents`")


def install(storage: Storage, package: Package) -> Copied:
    """Puts the version into `storage`, visible when it is whole; nothing to do where the same one is already.

    Raises `VersionExists` where another one, or a tombstone, has the number. What an interrupted copy left is gone on with.
    """
    manifest = package.manifest
    present = _present(storage, package)
    if not present:
        _receive(storage, package)
    for name, data in package.signatures.items():
        with suppress(FileExistsError):
            storage.create(f"{manifest.name}/{SIGNATURES}/{manifest.version}/{name}", data)
    size = sum(file.size for file in manifest.files)
    return Copied(manifest.ref, package.sha256, not present, len(manifest.files), size, len(package.signatures))


def _present(storage: Storage, package: Package) -> bool:
    """Whether the version is there already, with the same digest."""
    ref = package.manifest.ref
    _refuse_deleted(storage, package.manifest)
    try:
        found = find_version(storage, package.manifest.name, package.manifest.version)
    except NotFound:
        return False
    if found.metadata_sha256 != package.sha256:
        raise VersionExists(f"another `{ref}` exists in `{storage.root}`", "`ocad registry diff` shows how they differ")
    return True


def _receive(storage: Storage, package: Package) -> None:
    manifest = package.manifest
    folder = f"{manifest.name}/{manifest.version}"
    try:
        receiving = storage.receive(folder, package.sha256)
        try:
            for file in manifest.files:
                if not receiving.holds(file):
                    _take(receiving, package, file)
            written = {METADATA: package.metadata, DIGEST: digests.digest_line(package.sha256)}
            receiving.publish(folder, written)
        except FileExistsError:
            receiving.discard()
            raise
        finally:
            receiving.pause()
    except FileExistsError:
        if not _present(storage, package):
            hint = "wait for its writer, or `ocad registry gc` if that was killed"
            raise VersionExists(f"`{manifest.ref}` is being written in `{storage.root}`", hint) from None
    _refuse_deleted(storage, manifest)


def _refuse_deleted(storage: Storage, manifest: Manifest) -> None:
    if is_deleted(storage, manifest.name, manifest.version):
        raise VersionExists(f"`{manifest.ref}` was deleted in `{storage.root}`", "a deleted number never comes back")


def _take(receiving: Receiving, package: Package, file: File) -> None:
    stored = package.hand_over(receiving, file)
    if (stored.size, stored.sha256) != (file.size, file.sha256):
        raise Corrupt("digest", f"`{file.path}` of `{package.manifest.ref}` is not what was published (sha256 differs)")


def _signatures(storage: Storage, version: Version) -> Iterator[tuple[str, bytes]]:
    folder = f"{version.name}/{SIGNATURES}/{version.version}"
    for name in sorted(storage.names(folder)):
        if SIGNATURE_NAME.fullmatch(name):
            yield name, storage.read(f"{folder}/{name}", documents.DOCUMENT_LIMIT)
