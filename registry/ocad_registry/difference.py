"""What differs between two versions: data, parameters, metrics, gates, environment and files, name by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocad_registry.versions import Version

_SECTIONS = (
    "params",
    "metrics",
    "gates",
    "parity",
    "data",
    "environment",
    "signature",
    "plugin",
    "parents",
    "files",
    "tags",
)
_FIELDS = ("task", "metric", "passed", "git_commit", "description")


@dataclass(frozen=True, slots=True)
class Change:
    """A value that is not the same in both; one that is missing is None, as null is.

    `section` is a field of `metadata.json`, `name` the dotted way to the value below it (empty for the field itself).
    `delta` is second minus first where both are numbers.
    """

    section: str
    name: str
    first: Any
    second: Any
    delta: float | None

    def to_json(self) -> dict[str, Any]:
        """As `ocad registry diff --json` shows it."""
        return asdict(self)


def compare(first: Version, second: Version) -> list[Change]:
    """Every difference, section by section; empty for versions that say the same of themselves.

    Lists of named things (gates, parents, files) are compared by name, others as a whole; file digests count, numbers, names
    and times of the versions do not.
    """
    ours, theirs = (version.manifest.model_dump(mode="json") for version in (first, second))
    return [change for section in (*_FIELDS, *_SECTIONS) for change in _compare(section, ours, theirs)]


def _compare(section: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Change]:
    first, second = (dict(_leaves(document.get(section), "")) for document in (ours, theirs))
    for name in [*first, *(name for name in second if name not in first)]:
        before, after = first.get(name), second.get(name)
        if before != after or _is_number(before) != _is_number(after):
            yield Change(section, name, before, after, _delta(before, after))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values below `value` with the dotted ways to them."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            key = next((key for key in ("name", "ref", "path") if item.get(key)), "")
            inner = {other: each for other, each in item.items() if other != key}
            yield from _leaves(inner, _join(path, str(item.get(key, position))))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, _join(path, name))
    elif value not in (None, []):
        yield path, value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _delta(before: Any, after: Any) -> float | None:
    return float(after) - float(before) if _is_number(before) and _is_number(after) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
