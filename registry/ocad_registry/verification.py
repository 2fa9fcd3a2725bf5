"""`verify`: every byte read again, and every rule of FORMAT.md that a reader of one version does not look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ocad_registry import names
from ocad_registry.aliases import ALIASES, current, known, numbers, read_entry
from ocad_registry.errors import Corrupt, NotFound
from ocad_registry.versions import (
    DELETED,
    DIGEST,
    METADATA,
    SIGNATURES,
    Version,
    find_version,
    is_deleted,
    read_metadata,
)

if TYPE_CHECKING:
    from ocad_registry.listing import Catalogue
    from ocad_registry.manifest import Manifest
    from ocad_registry.signing import Keys
    from ocad_registry.storage import Kind, Storage

Severity = Literal["error", "warning"]
_ROOT_NAMES = frozenset({names.REGISTRY, ".staging"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as FORMAT.md says; `kind` is one of its verdict kinds, `reference` where it is."""

    reference: str
    severity: Severity
    kind: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """As `ocad registry verify --json` shows it."""
        return asdict(self)


def verify_registry(
    storage: Storage, catalogue: Catalogue, keys: Keys | None = None, *, signed_aliases: bool = False
) -> list[Finding]:
    """The whole registry, by model, version and alias; with `keys`, that one of them signed each version.

    With `signed_aliases`, also that one of them signed each alias.
    """
    found = list(_strays(storage, "", _is_root_name))
    models = catalogue.models()
    if models and storage.kind(names.REGISTRY) is None:
        found.append(Finding(names.REGISTRY, "warning", "registry-missing", "it is missing: format 1 is assumed"))
    for name in models:
        found += _readable(name, _verify_model(storage, catalogue, name, keys))
        if keys is not None and signed_aliases:
            for alias in known(storage, name):
                found += verify_entries(storage, name, alias, keys)
    return found


def verify_entries(storage: Storage, name: str, alias: str, keys: Keys) -> Iterator[Finding]:
    """That one of `keys` signed each entry of an alias from the first signed one on, and each follows the one below it."""
    from ocad_registry.signed_aliases import check, first_signed

    try:
        taken = numbers(storage, name, alias)
        first = first_signed(storage, name, alias, taken)
    except Corrupt as error:
        yield Finding(f"{name}@{alias}", "error", error.code, error.message)
        return
    for place in range(first, len(taken)):
        try:
            check(storage, name, alias, taken[: place + 1], keys)
        except Corrupt as error:
            if error.code != "bad-alias-entry":  # of which there is a finding in any case
                yield Finding(f"{name}@{alias}", "error", error.code, error.message)


def _readable(reference: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The `findings`, and one more where something on the way cannot be read: what comes after it is left out."""
    try:
        yield from findings
    except Corrupt as error:
        yield Finding(reference, "error", error.code, error.message)


def _verify_model(storage: Storage, catalogue: Catalogue, name: str, keys: Keys | None) -> Iterator[Finding]:
    living = catalogue.living(name)
    yield from _strays(storage, name, _is_model_child)
    yield from _strays(storage, f"{name}/{DELETED}", _is_tombstone)
    yield from _readable(f"{name}/{SIGNATURES}", _strays(storage, f"{name}/{SIGNATURES}", _is_version))
    for version in sorted(living, key=names.version_key):
        yield from verify_version(storage, name, version, keys)
    yield from _strays(storage, f"{name}/{ALIASES}", _is_alias)
    for alias, kind in sorted(storage.list(f"{name}/{ALIASES}").items()):
        if _is_alias(alias, kind):
            yield from _readable(f"{name}@{alias}", _verify_alias(storage, name, alias))


def verify_version(storage: Storage, name: str, version: str, keys: Keys | None = None) -> list[Finding]:
    """One version: its metadata, every file, its signature if `keys` are given, its parents, and files that it does not list."""
    ref = f"{name}@{version}"
    try:
        found = find_version(storage, name, version)
        found.verify()
        if keys is not None:
            from ocad_registry.signing import check_signed

            check_signed(storage, found, keys)
    except NotFound:
        if is_deleted(storage, name, version):
            return []
        return [Finding(ref, "warning", "incomplete", f"`{ref}` has no `{METADATA}`: it was never published")]
    except Corrupt as error:
        return [Finding(ref, "error", error.code, error.message)]
    return [*_readable(ref, _unlisted(storage, found)), *_parents(storage, found.manifest)]


def _unlisted(storage: Storage, version: Version) -> Iterator[Finding]:
    folder = f"{version.name}/{version.version}"
    listed = {METADATA, DIGEST, *(file.path for file in version.files)}
    folders = {path.rpartition("/")[0] for path in listed}
    for name in sorted(storage.list(folder)):
        if name not in listed and name not in {parent.partition("/")[0] for parent in folders}:
            yield Finding(
                version.ref, "warning", "unlisted-file", f"`{name}` of `{version.ref}` is not in its metadata"
            )


def _parents(storage: Storage, manifest: Manifest) -> Iterator[Finding]:
    for parent in manifest.parents:
        name, _, version = parent.ref.partition("@")
        if not (names.is_model(name) and names.is_version(version)):
            yield Finding(manifest.ref, "error", "bad-parent", f"`{parent.ref}` is no `name@version`")
            continue
        try:
            find_version(storage, name, version)
            sha256 = read_metadata(storage, name, version).sha256
        except (NotFound, Corrupt):
            yield Finding(manifest.ref, "warning", "missing-parent", f"parent `{parent.ref}` cannot be read here")
            continue
        if sha256 != parent.metadata_sha256:
            yield Finding(
                manifest.ref, "error", "parent-digest", f"parent `{parent.ref}` is not the one it was built from"
            )


def _verify_alias(storage: Storage, name: str, alias: str) -> Iterator[Finding]:
    folder = f"{name}/{ALIASES}/{alias}"
    ref, taken = f"{name}@{alias}", numbers(storage, name, alias)
    leaping = {names.entry_name(number) for number in names.entry_numbers(storage.names(folder))[1]}
    yield from _strays(storage, folder, lambda file, _kind: names.entry_number(file) > 0 and file not in leaping)
    for number in taken:
        try:
            read_entry(storage, name, alias, number)
        except Corrupt as error:
            yield Finding(ref, "error", error.code, error.message)
    missing = next((place for place, number in enumerate(taken, 1) if place != number), None)
    if missing:
        yield Finding(ref, "warning", "alias-gap", f"`{ref}` has no entry {missing} though a later one exists")
    yield from _verify_target(storage, name, alias)


def _verify_target(storage: Storage, name: str, alias: str) -> Iterator[Finding]:
    ref = f"{name}@{alias}"
    try:
        entry = current(storage, name, alias)
    except Corrupt:
        return
    if entry is None or entry.version is None:
        return
    try:
        sha256 = find_version(storage, name, entry.version).metadata_sha256
    except NotFound:
        yield Finding(
            ref, "error", "missing-version", f"`{ref}` points at `{entry.version}`, which is gone without a tombstone"
        )
        return
    except Corrupt:
        return
    if sha256 != entry.metadata_sha256:
        yield Finding(
            ref, "error", "alias-digest", f"`{name}@{entry.version}` is not the version that `{alias}` was given"
        )


def _strays(storage: Storage, folder: str, expected: Callable[[str, Kind], bool]) -> Iterator[Finding]:
    for name, kind in sorted(storage.list(folder).items()):
        if not expected(name, kind):
            place = f"{folder}/{name}" if folder else name
            yield Finding(place, "warning", "stray", f"`{place}` is nothing of this format and is ignored")


def _is_root_name(name: str, kind: Kind) -> bool:
    return name in _ROOT_NAMES or (kind == "folder" and names.is_model(name))


def _is_model_child(name: str, kind: Kind) -> bool:
    return (kind == "folder" and name in (ALIASES, DELETED, SIGNATURES)) or (
        kind in ("folder", "link") and names.is_version(name)
    )


def _is_tombstone(name: str, _kind: Kind) -> bool:
    return name.endswith(".json") and names.is_version(name.removesuffix(".json"))


def _is_version(name: str, kind: Kind) -> bool:
    return kind == "folder" and names.is_version(name)


def _is_alias(name: str, kind: Kind) -> bool:
    return kind == "folder" and names.ALIAS.fullmatch(name) is not None
