"""`Registry`: the one class that callers use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, cast

from ocad_registry import aliases as rows
from ocad_registry import documents, names
from ocad_registry.aliases import AliasEntry, EntryKind
from ocad_registry.errors import (
    Corrupt,
    ExpectationFailed,
    Invalid,
    NewerFormat,
    NotFound,
    Refused,
)
from ocad_registry.failures import failures
from ocad_registry.lifecycle import Lifecycle
from ocad_registry.listing import Catalogue, Entry, Page, completions
from ocad_registry.publishing import Artifact, publish
from ocad_registry.remotes import open_storage
from ocad_registry.verification import Finding, verify_entries, verify_registry, verify_version
from ocad_registry.versions import Version, find_undeleted, find_version

if TYPE_CHECKING:
    from ocad_registry.manifest import Draft
    from ocad_registry.signed_aliases import Signer, Trust
    from ocad_registry.signing import Keys

FORMAT = 1
UNSET = "none"

# the method `Registry.list` hides the built-in name in the class's own annotations
Entries = list[Entry]
Names = list[str]
History = list[AliasEntry]
Findings = list[Finding]
Versions = list[Version]


class Registry(Lifecycle):
    """A registry of models in the folder or at the URL `root` (None: `$OCAD_REGISTRY`, else `./models`).

    Making the object reads and writes nothing. `by` stands in alias moves (default: user@host), the secret `key` signs them.
    With `keys`, `resolve` answers only versions that one of these signed, and opens private copies of their files; with
    `signed_aliases` besides, only where entries lead that one of them signed. Every failure is a `RegistryError`; one
    object may be used by several threads, one registry by any number of processes.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        by: str | None = None,
        key: str | os.PathLike[str] | None = None,
        keys: Keys | None = None,
        signed_aliases: bool = False,
    ) -> None:
        place = os.fspath(root) if root is not None else os.environ.get("OCAD_REGISTRY") or "models"
        self._storage = open_storage(place, private=keys is not None)
        self._key = key
        self._trust = self._trusting(keys, signed_aliases)
        self._catalogue = Catalogue(self._storage)
        self._by = by
        self._checked = False

    def __repr__(self) -> str:
        return f"Registry({self.root!r})"

    @property
    def root(self) -> str:
        """The folder, or the URL."""
        return self._storage.root

    def require(self) -> None:
        """Raises `NotFound` where the folder does not exist, which other calls take for an empty registry.

        A person who asks for a list should be told: behind it is a typing error, or a mount that was lost.
        """
        place = self._storage.local("")
        with self._failures("looking for it"):
            try:
                if place is not None:
                    place.stat()
            except FileNotFoundError:
                hint = "correct `--registry` or `OCAD_REGISTRY`, or mount it; the first `ocad train` makes a new one"
                raise NotFound(f"there is no registry `{self.root}`", hint) from None

    def publish(self, draft: Draft, artifacts: Sequence[Artifact], version: str | None = None) -> Version:
        """Stores `draft` with copies of `artifacts` as a new, immutable version; it is durable when this returns.

        Without `version` it is `1.0.0`, then the next minor after the highest number ever given. Raises `InvalidName`,
        `InvalidDraft`, `VersionExists`, `StorageFailed`; nothing is visible then.
        """
        names.check_model(draft.name)
        number = names.check_version(version) if version is not None else None
        with self._failures(f"publishing `{draft.name}`", "nothing was published"):
            self._open(writing=True)
            self._found()
            numbering = self._catalogue.numbering
            published = publish(self._storage, draft, artifacts, number, lambda: numbering.next(draft.name))
            numbering.published(draft.name, published.version)
            return published

    def resolve(self, reference: str) -> Version:
        """The living version that `reference` names; its metadata is not read before it is asked for.

        `name` alone is its alias `production` if set, else its highest readable release that passed. Raises
        `InvalidName`, `NotFound`, `Corrupt`.
        """
        wanted = names.parse_reference(reference)
        with self._failures(f"reading `{reference}`"):
            self._open()
            try:
                found = self._find(wanted)
                found.trust = self._trust
                return found
            except NotFound:
                if self._storage.kind(wanted.name) is None:
                    raise self._no_model(wanted.name) from None
                raise

    def list(self, name: str | None = None, *, limit: int | None = None, offset: int = 0) -> Entries:
        """All versions, or those of the model `name`, newest first, broken ones last with their cause.

        From `offset` on, at most `limit` of them.
        """
        return self.page(name, limit=limit, offset=offset).entries

    def page(
        self, name: str | None = None, *, expression: str | None = None, limit: int | None = None, offset: int = 0
    ) -> Page:
        """A part of what `list`, or with an `expression` what `query` answers, and how many entries the whole has."""
        from ocad_registry.query import parse_query

        query = parse_query(expression) if expression is not None else None
        if name is not None:
            names.check_model(name)
        if offset < 0 or (limit is not None and limit < 0):
            raise Invalid(f"there is no page of {limit} entries from {offset} on", "`limit` and `offset` count from 0")
        with self._failures("listing"):
            self._open()
            return self._catalogue.page(name, query, limit, offset)

    def models(self) -> Names:
        """The names of all models, sorted."""
        with self._failures("listing"):
            self._open()
            return self._catalogue.models()

    def query(self, expression: str, *, limit: int | None = None, offset: int = 0) -> Entries:
        """The readable versions for which `expression` (FORMAT.md, Queries) holds, in the order of `list`.

        Raises `InvalidQuery`.
        """
        return self.page(expression=expression, limit=limit, offset=offset).entries

    def describe(self, reference: str) -> dict[str, Any]:
        """The verified `metadata.json` of a version, with its `aliases` and its `path`: `ocad registry show --json`."""
        version = self.resolve(reference)
        with self._failures(f"reading `{reference}`"):
            document = self._catalogue.document(version)
            pointing = rows.all_current(self._storage, version.name).items()
            aliases = [alias for alias, target in pointing if target == version.version]
            return document | {"aliases": aliases, "path": version.location}

    def completions(self, prefix: str) -> Names:
        """The references that begin with `prefix`: models, and after `@` a model's aliases and versions, highest first."""
        with self._failures("listing"):
            self._open()
            return completions(self._storage, self._catalogue, prefix)

    def promote(
        self, reference: str, alias: str, *, force: bool = False, reason: str = "", expect: str | None = None
    ) -> AliasEntry:
        """Points `alias` at the version that `reference` names, after reading every byte of it.

        A version that did not pass is `Refused` unless `force` is given with a `reason`. `expect` names the version that
        the alias must point at now (`none`: it must not be set), else `ExpectationFailed`. Damaged versions are never
        promoted (`Corrupt`). What holds for the version holds for its children too, whose alias goes along.
        """
        names.check_alias(alias)
        if force and not reason:
            raise Invalid("a forced promotion needs a reason", "say why with `--reason`")
        expected = expect if expect in (None, UNSET) else names.check_version(expect)
        with self._failures(f"promoting `{reference}`", "nothing was moved"):
            self._open(writing=True)
            version = self._promotable(self.resolve(reference), force)
            for child in self._children_of(version):
                self._promotable(child, force)
            passed = version.manifest.passed

            def decide() -> AliasEntry:
                self._expect(version.name, alias, expected)
                return self._entry("promote", version, reason, forced=not passed)

            entry = rows.append(self._storage, version.name, alias, decide, self._entry_signer())
            self._give_way(version.version, version.name, alias)
            self._take_along(version.name, alias, reason)
            return entry

    def rollback(self, name: str, alias: str, *, reason: str = "") -> AliasEntry:
        """Points `alias` at the version that was live before the current one was promoted.

        A second rollback goes one further back, never forth; deleted and damaged versions are passed over. The alias of
        its children goes along. Raises `NotFound` when there is nothing to go back to.
        """
        names.check_model(name)
        names.check_alias(alias)
        with self._failures(f"rolling back `{name}@{alias}`", "nothing was moved"):
            self._open(writing=True)
            entry = rows.append(
                self._storage, name, alias, lambda: self._earlier(name, alias, reason), self._entry_signer()
            )
            self._give_way(cast("str", entry.version), name, alias)
            self._take_along(name, alias, reason)
            return entry

    def unset(self, name: str, alias: str, *, reason: str = "") -> AliasEntry:
        """Ends `alias`, and that of the children; its history stays, and `rollback` brings it back.

        Raises `NotFound` when it is not set.
        """
        names.check_model(name)
        names.check_alias(alias)

        def decide() -> AliasEntry:
            if self._target(name, alias) == UNSET:
                raise self._no_alias(name, alias)
            return self._entry("unset", None, reason)

        with self._failures(f"unsetting `{name}@{alias}`", "nothing was moved"):
            self._open(writing=True)
            entry = rows.append(self._storage, name, alias, decide, self._entry_signer())
            self._take_along(name, alias, reason)
            return entry

    def children(self, reference: str) -> Versions:
        """The versions `NAME-KEY` that were built from the one that `reference` names: further graphs of the same model."""
        version = self.resolve(reference)
        with self._failures(f"reading the children of `{version.ref}`"):
            return self._children_of(version)

    def history(self, name: str, alias: str) -> History:
        """Every move of `alias`, oldest first; raises `NotFound` when it was never set."""
        names.check_model(name)
        names.check_alias(alias)
        with self._failures(f"reading `{name}@{alias}`"):
            self._open()
            entries = rows.history(self._storage, name, alias)
        if not entries:
            raise self._no_alias(name, alias)
        return entries

    def aliases(self, name: str) -> dict[str, str]:
        """Alias → version of every alias of the model that is set and readable, by name."""
        names.check_model(name)
        with self._failures(f"reading the aliases of `{name}`"):
            self._open()
            return rows.all_current(self._storage, name)

    def verify(
        self, reference: str | None = None, keys: Keys | None = None, *, signed_aliases: bool = False
    ) -> Findings:
        """Reads every byte of one version, or of the whole registry with its aliases; empty when all is well.

        With `keys`, each version must be signed by one of them (`unsigned`, `bad-signature`), with `signed_aliases` each
        entry of an alias from the first signed one on, and each must follow the one below it.

        Raises `NotFound` or `InvalidName` for a reference that leads nowhere; damage is a finding, never an exception.
        """
        if reference is not None:
            version = self.resolve(reference)
            with self._failures(f"verifying `{reference}`"):
                found = verify_version(self._storage, version.name, version.version, keys)
                wanted = names.parse_reference(reference)
                if keys is not None and signed_aliases and wanted.version is None:
                    found += verify_entries(self._storage, wanted.name, wanted.alias or names.DEFAULT_ALIAS, keys)
                return found
        with self._failures("verifying"):
            self._open()
            return verify_registry(self._storage, self._catalogue, keys, signed_aliases=signed_aliases)

    def _find(self, wanted: names.Reference) -> Version:
        if wanted.version is not None:
            return find_version(self._storage, wanted.name, wanted.version)
        entry = self._current(wanted.name, wanted.alias or names.DEFAULT_ALIAS)
        if entry is not None and entry.version is not None:
            if self._trust is not None and self._trust.marks is not None:
                # anybody can write a tombstone: it must not bring an older entry back
                find_version(self._storage, wanted.name, entry.version)
            return find_undeleted(self._storage, wanted.name, entry.version, entry.metadata_sha256)
        if wanted.alias is not None:
            raise self._no_alias(wanted.name, wanted.alias)
        if self._trust is not None and self._trust.marks is not None:
            raise self._no_alias(wanted.name, names.DEFAULT_ALIAS)
        return self._highest(wanted.name)

    def _current(self, name: str, alias: str) -> AliasEntry | None:
        if self._trust is None or self._trust.marks is None:
            return rows.current(self._storage, name, alias)
        from ocad_registry.signed_aliases import current

        return current(self._storage, name, alias, self._trust.keys, self._trust.marks)

    def _trusting(self, keys: Keys | None, aliases: bool) -> Trust | None:
        if keys is None:
            return None
        from ocad_registry.cache import cache_folder
        from ocad_registry.marks import Marks
        from ocad_registry.signed_aliases import Trust

        folder = self._storage.local("")
        place = self._storage.root if folder is None else os.path.realpath(folder)
        return Trust(keys, Marks(cache_folder(), place) if aliases else None)

    def _entry_signer(self) -> Signer | None:
        if self._key is None:
            return None
        from ocad_registry.signed_aliases import Signer

        return Signer(self._key)

    def _no_model(self, name: str) -> NotFound:
        from difflib import get_close_matches

        if not (self._checked or self._catalogue.models()):
            return NotFound(f"there is no registry `{self.root}`, and so no model `{name}`", "check its folder or URL")
        close = get_close_matches(name, self._catalogue.models(), n=1)
        hint = f"did you mean `{close[0]}`?" if close else "`ocad registry list` shows all models"
        return NotFound(f"there is no model `{name}` in `{self.root}`", hint)

    def _highest(self, name: str) -> Version:
        releases = [version for version in self._catalogue.living(name) if names.is_release(version)]
        for number in sorted(releases, key=names.version_key, reverse=True):
            try:
                found = find_version(self._storage, name, number)
                found.trust = self._trust
                if self._catalogue.document(found)["passed"] and (self._trust is None or found.manifest.passed):
                    return found
            except (Corrupt, NotFound):
                continue
        hint = f"name a version: `ocad registry list {name}`"
        raise NotFound(f"`{name}` has no production alias and no readable release that passed", hint)

    def _children_of(self, version: Version) -> Versions:
        from ocad_registry.children import children

        found = children(self._storage, self._catalogue.models(), version)
        for child in found:
            child.trust = self._trust
        return found

    def _take_along(self, name: str, alias: str, reason: str) -> None:
        from ocad_registry.children import follow

        def make(kind: EntryKind, child: Version | None) -> AliasEntry:
            if child is not None and kind == "rollback":
                child.verify()
            forced = kind == "promote" and child is not None and not child.manifest.passed
            return self._entry(kind, child, reason or f"goes along with `{name}`", forced)

        follow(self._storage, self._catalogue.models(), name, alias, make, self._entry_signer())

    def _promotable(self, version: Version, force: bool) -> Version:
        version.verify()
        if not version.manifest.passed and not force:
            causes = "; ".join(version.manifest.failures())
            raise Refused(f"`{version.ref}` did not pass: {causes}", "promote another, or `--force --reason …`")
        return version

    def _target(self, name: str, alias: str) -> str:
        """The version that the alias points at, `none`, or `unknown` when the deciding entry is damaged."""
        try:
            entry = rows.current(self._storage, name, alias)
        except Corrupt:
            return "unknown"
        return UNSET if entry is None or entry.version is None else entry.version

    def _expect(self, name: str, alias: str, expected: str | None) -> None:
        if expected is not None and (target := self._target(name, alias)) != expected:
            hint = f"look at `ocad registry history {name} {alias}` and decide again"
            raise ExpectationFailed(f"`{name}@{alias}` is `{target}`, not `{expected}`", hint)

    def _earlier(self, name: str, alias: str, reason: str) -> AliasEntry:
        target = self._target(name, alias)
        for entry in rows.earlier(rows.history(self._storage, name, alias)):
            if entry.version is None or entry.version == target:
                continue
            try:
                find_version(self._storage, name, entry.version)
                version = Version(self._storage, name, entry.version, entry.metadata_sha256)
                version.verify()
            except (Corrupt, NotFound):
                continue
            return self._entry("rollback", version, reason)
        raise NotFound(
            f"`{name}@{alias}` has no earlier version to go back to", f"see `ocad registry history {name} {alias}`"
        )

    def _entry(self, kind: EntryKind, version: Version | None, reason: str, forced: bool = False) -> AliasEntry:
        """An entry still without its number."""
        target, sha256 = (version.version, version.metadata_sha256) if version else (None, None)
        return AliasEntry(0, kind, target, sha256, rows.now(), self._signer(), reason, forced)

    def _signer(self) -> str:
        return self._by or _signature()

    def _no_alias(self, name: str, alias: str) -> NotFound:
        known = ", ".join(f"`{other}`" for other in rows.all_current(self._storage, name)) or "none"
        return NotFound(f"`{name}` has no alias `{alias}`", f"aliases set: {known}; `ocad registry promote` sets one")

    def _open(self, *, writing: bool = False) -> None:
        """Refuses a registry of a newer format, before anything in it is believed; writers look each time."""
        if self._checked and not writing:
            return
        try:
            data = self._storage.read(names.REGISTRY, documents.DOCUMENT_LIMIT)
        except FileNotFoundError:
            return
        found = documents.parse(data, f"`{names.REGISTRY}`").get("format")
        if type(found) is not int or found < FORMAT:
            raise Corrupt(
                "bad-registry", f"`{names.REGISTRY}` names no format", f'write {{"format": {FORMAT}}} into it'
            )
        if found > FORMAT:
            raise NewerFormat(f"registry `{self.root}`", found, FORMAT)
        self._checked = True

    def _found(self) -> None:
        """Writes `registry.json` before the first version."""
        if not self._checked:
            with suppress(FileExistsError):
                self._storage.create(names.REGISTRY, documents.dump({"format": FORMAT}))

    def _failures(self, doing: str, result: str = "") -> AbstractContextManager[None]:
        return failures(self.root, doing, result)


def _signature() -> str:
    """`user@host` of this process."""
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"
