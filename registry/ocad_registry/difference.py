"""What differs between two versions: data, parameters, metrics, gates, environment and files, name by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
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
_DIVIDING = ("seed", "split", "windows")
"""The parameters that decide which rows are for test."""
_FIELDS = ("task", "metric", "passed", "git_commit", "description")


@dataclass(frozen=True, slots=True)
class Change:
    """A value that is not the same in both; one that is missing is None, as null is.

    `section` is a field of `metadata.json`, `name` the dotted way to the value below it (empty for the field itself).
    `delta` is second minus first where both are numbers. `same_rows` says of a metric whether both were measured on the same
    rows; None: nobody can tell, as the rows were prepared differently.
    """

    section: str
    name: str
    first: Any
    second: Any
    delta: float | None
    same_rows: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """As `ocad registry diff --json` shows it; `same_rows` for metrics alone."""
        shown = asdict(self)
        if self.section != "metrics":
            del shown["same_rows"]
        return shown


def same_rows(first: Version, second: Version) -> bool | None:
    """Whether the metrics of both come from the same rows; None where only their preparation differs, or nothing is known.

    A fingerprint covers rows and encoder: equal ones prove equal rows. Other data, other numbers of rows, or another split
    prove the contrary.
    """
    one, other = first.manifest, second.manifest
    if one.data is None or other.data is None:
        return None
    if one.data.fingerprint == other.data.fingerprint:
        return True
    ours, theirs = ((data.name, data.rows, data.splits) for data in (one.data, other.data))
    divided = [{key: manifest.params.get(key) for key in _DIVIDING} for manifest in (one, other)]
    return False if ours != theirs or divided[0] != divided[1] else None


def compare(first: Version, second: Version) -> list[Change]:
    """Every difference, section by section; empty for versions that say the same of themselves.

    Lists of named things (gates, parents, files) are compared by name, others as a whole; file digests count, numbers, names
    and times of the versions do not.
    """
    ours, theirs = (version.manifest.model_dump(mode="json") for version in (first, second))
    changes = [change for section in (*_FIELDS, *_SECTIONS) for change in _compare(section, ours, theirs)]
    same = same_rows(first, second)
    return [replace(change, same_rows=same) if change.section == "metrics" else change for change in changes]


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
