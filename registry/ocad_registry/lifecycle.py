"""What `Registry` does with whole versions once they are there: delete, collect, copy, compare, sign.

The bodies are imported when they are called: most programs only read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ocad_registry import names
from ocad_registry.aliases import now
from ocad_registry.errors import Invalid, InvalidName, NotFound
from ocad_registry.storage import DAY
from ocad_registry.versions import Version, find_version

if TYPE_CHECKING:
    import os

    from ocad_registry.collection import Garbage
    from ocad_registry.deletion import Tombstone
    from ocad_registry.difference import Change
    from ocad_registry.listing import Catalogue, Entry
    from ocad_registry.modes import Mode
    from ocad_registry.signed_aliases import Signer
    from ocad_registry.signing import Keys, Signed
    from ocad_registry.storage import Storage
    from ocad_registry.transfer import Copied

GRACE = 7 * DAY
"""Seconds between a delete and the removal of its payload: time for readers that resolved the version before, and to copy."""


class Lifecycle(ABC):
    """The part of `Registry` that handles versions as wholes. Every failure is a `RegistryError`."""

    _storage: Storage
    _catalogue: Catalogue

    def delete(self, reference: str, *, reason: str = "") -> Tombstone:
        """Deletes the version `name@version`: it is gone from every answer at once, and its number never comes back.

        Raises `InUse` while an alias points at it or a living version was built from it, `NotFound`, and `InvalidName`
        for anything but a version: what a name or an alias leads to may change under the caller's hands.
        """
        from ocad_registry.deletion import Tombstone, delete

        wanted = names.parse_reference(reference)
        if wanted.version is None:
            hint = f"`ocad registry list {wanted.name}` shows the versions"
            raise InvalidName(f"`{reference}` names no version", hint)
        tombstone = Tombstone(wanted.name, wanted.version, now(), self._signer(), reason)
        with self._failures(f"deleting `{tombstone.ref}`", "nothing was deleted"):
            self._open(writing=True)
            delete(self._storage, tombstone, lambda: self._children(tombstone.ref), self._entry_signer())
        return tombstone

    def collect_garbage(self, *, grace: float = GRACE, dry_run: bool = False) -> list[Garbage]:
        """Removes what nobody can see and nobody will finish; what it found and why, also what is still kept.

        `grace` is the time in seconds between a delete and the removal of its payload. `dry_run` removes nothing.
        """
        from ocad_registry.collection import collect

        if not grace >= 0:
            raise Invalid(f"a grace of {grace} seconds is no time", "give 0 or more")
        with self._failures("collecting garbage"):
            self._open(writing=True)
            return collect(self._storage, self._catalogue.models(), grace, dry_run)

    def check_modes(self, *, fix: bool = False) -> list[Mode]:
        """What keeps readers, or the group that shares the registry, out of files and folders; with `fix`, mended.

        Raises `Invalid` for an object store, `NotFound` where there is no folder.
        """
        from ocad_registry.modes import examine

        place = self._storage.local("")
        if place is None:
            raise Invalid(f"`{self._storage.root}` is an object store, which has no modes", "look at its policies")
        self.require()
        with self._failures("looking at the modes"):
            return examine(str(place), fix)

    def copy(self, reference: str, target: Lifecycle, *, with_parents: bool = False) -> list[Copied]:
        """Copies a version with its signatures into `target`, byte for byte, its parents before it if asked.

        A version that is there already is left alone; a copy that was cut short is gone on with. Raises `VersionExists`
        where `target` has another version of that number, `Corrupt` for a damaged one.
        """
        from ocad_registry.transfer import install, lineage, pack

        with self._failures(f"copying `{reference}`"):
            version = self.resolve(reference)
            target._open(writing=True)
            versions = lineage(self._storage, target._storage, version) if with_parents else [version]
            packages = [pack(self._storage, one) for one in versions]
            target._found()
        copied = []
        for package in packages:
            with target._failures(f"copying `{package.manifest.ref}`", "what was copied stays for the next attempt"):
                copied.append(install(target._storage, package))
        return copied

    def export(self, reference: str, target: str | os.PathLike[str]) -> int:
        """Writes a version with its signatures to the new tar file `target`; its size in bytes.

        The same version gives the same bytes. Raises `Invalid` where `target` cannot be made.
        """
        from ocad_registry.archive import write_archive
        from ocad_registry.transfer import pack

        place = Path(target)
        if not place.parent.is_dir():
            raise Invalid(f"there is no folder `{place.parent}`", "make it first")
        with self._failures(f"exporting `{reference}` to `{place}`"):
            return write_archive(self._storage, pack(self._storage, self.resolve(reference)), place)

    def import_archive(self, source: str | os.PathLike[str]) -> Copied:
        """Copies the version in a tar file that `export` wrote into this registry, visible when it is verified whole.

        Raises `Corrupt` (`bad-archive`, or the kind of damage) for any other file, `VersionExists` as `copy`.
        """
        from ocad_registry.archive import read_archive
        from ocad_registry.transfer import install

        place = Path(source)
        if not place.is_file():
            raise Invalid(f"`{place}` is no file", "give an archive that `ocad registry export` wrote")
        with self._failures(f"importing `{place}`", "nothing was imported"):
            self._open(writing=True)
            package = read_archive(place)
            self._found()
            return install(self._storage, package)

    def diff(self, first: str, second: str) -> list[Change]:
        """What differs between two versions: data, parameters, metrics, gates, environment, files."""
        from ocad_registry.difference import compare

        with self._failures(f"comparing `{first}` with `{second}`"):
            return compare(self.resolve(first), self.resolve(second))

    def sign(self, reference: str, key: str | os.PathLike[str]) -> Signed:
        """Signs a version, every byte of it verified, with the secret ed25519 key in the PEM file `key`.

        Raises `Invalid` for another file, `Corrupt` for a damaged version.
        """
        from ocad_registry.signing import sign

        with self._failures(f"signing `{reference}`", "nothing was signed"):
            self._open(writing=True)
            version = self.resolve(reference)
            version.verify()
            signed = sign(self._storage, version, key)
            find_version(self._storage, version.name, version.version)
            return signed

    def check_signed(self, reference: str, keys: Keys) -> str:
        """The id of the key in `keys` that signed the version; raises `Corrupt` (`unsigned`, `bad-signature`)."""
        from ocad_registry.signing import check_signed

        with self._failures(f"reading `{reference}`"):
            return check_signed(self._storage, self.resolve(reference), keys)

    def _give_way(self, version: str, name: str, alias: str) -> None:
        """After a move of `alias`: where a delete of its version came between, the alias is settled. Raises `NotFound`."""
        try:
            find_version(self._storage, name, version)
        except NotFound:
            from ocad_registry.deletion import settle

            settle(self._storage, name, alias, self._signer(), self._entry_signer())
            raise

    def _children(self, ref: str) -> Iterable[Entry]:
        return self.query(f"parents.ref = '{ref}'")

    @abstractmethod
    def resolve(self, reference: str) -> Version:
        """The living version that `reference` names."""

    @abstractmethod
    def query(self, expression: str) -> list[Entry]:
        """The readable versions for which `expression` holds."""

    @abstractmethod
    def _signer(self) -> str:
        """Who signs what this object writes."""

    @abstractmethod
    def _entry_signer(self) -> Signer | None:
        """With which key alias entries are signed."""

    @abstractmethod
    def _open(self, *, writing: bool = False) -> None:
        """Refuses a registry of a newer format."""

    @abstractmethod
    def require(self) -> None:
        """Refuses a folder that does not exist."""

    @abstractmethod
    def _found(self) -> None:
        """Writes `registry.json` before the first version."""

    @abstractmethod
    def _failures(self, doing: str, result: str = "") -> AbstractContextManager[None]:
        """Turns what the storage says into one clear error."""
