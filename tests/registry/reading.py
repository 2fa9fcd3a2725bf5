"""What a reader without any memory answers: every file read anew, in the words of FORMAT.md §7."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocad_registry import Corrupt, NotFound, names
from ocad_registry.aliases import all_current
from ocad_registry.storage_local import LocalStorage
from ocad_registry.versions import read_metadata


def entries(root: Path) -> list[dict[str, Any]]:
    """The whole list, as `Entry.to_json` has it; of broken ones the kind alone."""
    found = [entry for folder in root.glob("*/") if names.is_model(folder.name) for entry in _model(root, folder)]
    found.sort(key=lambda entry: names.version_key(entry["version"]), reverse=True)
    found.sort(key=lambda entry: str(entry["name"]))
    found.sort(key=lambda entry: entry["created_at"] or "", reverse=True)
    return found


def chosen(root: Path, metric: str, above: float) -> list[str]:
    """The references of the versions whose `metric` is above a number."""
    return [entry["ref"] for entry in entries(root) if entry["metrics"].get(metric, above) > above]


def _model(root: Path, folder: Path) -> list[dict[str, Any]]:
    storage = LocalStorage(root)
    aliases = all_current(storage, folder.name)
    found = []
    for place in folder.iterdir():
        name, version = folder.name, place.name
        if not names.is_version(version) or (folder / "deleted" / f"{version}.json").exists():
            continue
        pointing = [alias for alias, target in aliases.items() if target == version]
        try:
            if place.is_symlink():
                raise Corrupt("symlink", "it is a symlink")
            document = read_metadata(storage, name, version).document
        except NotFound:
            continue
        except Corrupt as error:
            found.append(_line(name, version, pointing, {}, error.code))
        else:
            found.append(_line(name, version, pointing, document, None))
    return found


def _line(name: str, version: str, aliases: list[str], document: dict[str, Any], broken: str | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": name, "version": version, "ref": f"{name}@{version}"}
    shown |= {"plugin": document.get("plugin", {}).get("name"), "aliases": aliases}
    shown |= {field: document.get(field) for field in ("task", "metric", "created_at")}
    shown |= {"metrics": document.get("metrics", {}), "passed": document.get("passed", False)}
    return shown if broken is None else {**shown, "broken": broken}
