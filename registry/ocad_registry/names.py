"""Names, versions and references: the grammars of FORMAT.md, and nothing that touches a disk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from ocad_registry.errors import InvalidName

MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
ALIAS = re.compile(r"[a-z][a-z0-9-]{0,63}")
ENTRY = re.compile(r"(?:[0-9]{6}|[1-9][0-9]{6,14})\.json")
_NUMBER = r"(?:0|[1-9][0-9]{0,14})"
_LABEL = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_LABEL}(?:\.{_LABEL})*))?")
VERSION_LENGTH = 64
LARGEST = 10**15 - 1
"""The largest number in a version."""
FURTHEST = 1_000_000
"""How far the number of an alias entry may lie above the one before it: no entry takes the numbers away from its successors."""
SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
PATH_LENGTH = 255
REGISTRY = "registry.json"
"""Beside the models: which format the registry has."""
RESERVED_MODELS = frozenset({REGISTRY})
RESERVED_FILES = frozenset({"metadata.json", "metadata.sha256"})
DEFAULT_ALIAS = "production"
FIRST_VERSION = "1.0.0"

VersionKey = tuple[int, int, int, int, tuple[tuple[int, int, str], ...]]


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: at most one of `version` and `alias` is set; neither stands for the default of the model."""

    name: str
    version: str | None = None
    alias: str | None = None

    def __str__(self) -> str:
        target = self.version or self.alias
        return f"{self.name}@{target}" if target else self.name


def is_model(name: str) -> bool:
    """Whether `name` may name a model."""
    return MODEL.fullmatch(name) is not None and name not in RESERVED_MODELS


def is_version(version: str) -> bool:
    """Whether `version` is a legal version in its stored form (SemVer, no build metadata, no leading `v`)."""
    return len(version) <= VERSION_LENGTH and VERSION.fullmatch(version) is not None


def is_path(path: str) -> bool:
    """Whether `path` may stand in `files[].path`: plain segments joined by `/`, inside the folder, not the metadata's."""
    if len(path) > PATH_LENGTH or path in RESERVED_FILES:
        return False
    return all(SEGMENT.fullmatch(segment) for segment in path.split("/"))


def entry_number(file_name: str) -> int:
    """The number of an alias entry's file (`000007.json` is 7); 0 for any other name."""
    return int(file_name[:-5]) if ENTRY.fullmatch(file_name) else 0


def entry_numbers(files: Iterable[str]) -> tuple[list[int], list[int]]:
    """The numbers of the entries among `files`, ascending, and those that are none because they leap too far ahead."""
    numbers = sorted(filter(None, map(entry_number, files)))
    for place, (before, number) in enumerate(zip([0, *numbers], numbers, strict=False)):
        if number - before > FURTHEST:
            return numbers[:place], numbers[place:]
    return numbers, []


def entry_name(number: int) -> str:
    """The file name of alias entry `number` (from 1)."""
    return f"{number:06d}.json"


def check_model(name: str) -> str:
    """`name` itself; raises `InvalidName`."""
    if not is_model(name):
        raise InvalidName(
            f"`{name}` is no model name", "use a-z, 0-9, `.`, `_`, `-`, at most 128, a letter or digit first"
        )
    return name


def check_alias(alias: str) -> str:
    """`alias` itself; raises `InvalidName`."""
    if not ALIAS.fullmatch(alias):
        raise InvalidName(f"`{alias}` is no alias", "use a-z, 0-9 and `-`, at most 64, a letter first")
    return alias


def check_version(version: str) -> str:
    """The stored form of `version` (a leading `v` is stripped); raises `InvalidName`."""
    plain = version[1:] if version.startswith("v") else version
    if not is_version(plain):
        raise InvalidName(f"`{version}` is no version", "use MAJOR.MINOR.PATCH such as `1.2.0` or `1.2.0-rc.1`")
    return plain


@lru_cache(maxsize=4096)
def parse_reference(reference: str) -> Reference:
    """`name`, `name@1.2.0`, `name@v1.2.0` or `name@alias`; raises `InvalidName`.

    What follows `@` is a version when it holds a `.` (an alias cannot), else an alias.
    """
    name, at, target = reference.partition("@")
    check_model(name)
    if not at:
        return Reference(name)
    if "." in target:
        return Reference(name, version=check_version(target))
    return Reference(name, alias=check_alias(target))


@lru_cache(maxsize=16384)
def version_key(version: str) -> VersionKey:
    """Sorts legal versions by SemVer precedence: a pre-release before its release, numbers before words."""
    match = VERSION.fullmatch(version)
    if match is None:
        raise InvalidName(f"`{version}` is no version", "use MAJOR.MINOR.PATCH such as `1.2.0`")
    major, minor, patch, labels = match.groups()
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in (labels or "").split(".") if part)
    return int(major), int(minor), int(patch), 0 if labels else 1, parts


def version_rank(version: str) -> str:
    """A string for each legal version; their order is that of `version_key`. The blank sorts before every label character."""
    major, minor, patch, release, labels = version_key(version)
    parts = " ".join(f"1{word}" if kind else f"0{number:015}" for kind, number, word in labels)
    return f"{major:015}.{minor:015}.{patch:015}.{release}{parts}"


def is_release(version: str) -> bool:
    """Whether a legal `version` is no pre-release."""
    return "-" not in version


def next_minor(versions: list[str]) -> str:
    """The version after the highest of `versions`: its next minor, or major where no minor is left; at first `1.0.0`."""
    if not versions:
        return FIRST_VERSION
    major, minor, *_ = version_key(max(versions, key=version_key))
    return f"{major}.{minor + 1}.0" if minor < LARGEST else f"{major + 1}.0.0"


def slug(text: str) -> str:
    """A model name made from any text: lower case, other characters to `_`; raises `InvalidName` if nothing is left."""
    return check_model(re.sub(r"[^a-z0-9._-]", "_", text.lower()).lstrip("._-")[:128])
