"""Where the project's own files lie; light to import."""

from __future__ import annotations

import os
import stat
from pathlib import Path

CATALOGUE = Path("configs") / "data"
"""The folder of the data catalogue, under the project's root: one `NAME.yaml` for each set."""
_CHECKOUT = Path(__file__).resolve().parents[2]
"""Where the built-in sets lie."""

MARKS = ("pyproject.toml", ".git", ".ocad")
"""What the root of a project has one of; `.ocad` may be an empty file."""


def catalogue_files() -> list[Path]:
    """The files of the data catalogue: the project's own by name, then the built-in sets whose names it does not use."""
    own = sorted((project_root() / CATALOGUE).glob("*.yaml"))
    names = {file.stem for file in own}
    return [*own, *(file for file in sorted((_CHECKOUT / CATALOGUE).glob("*.yaml")) if file.stem not in names)]


def catalogue_file(name: str) -> Path | None:
    """The entry of that name, the project's own before a built-in one."""
    if not name or Path(name).name != name:
        return None
    files = (root / CATALOGUE / f"{name}.yaml" for root in (project_root(), _CHECKOUT))
    return next((file for file in files if file.is_file()), None)


def own_root() -> Path:
    """Where a new entry of the catalogue belongs: the project's root, and this folder where only the package's own is left."""
    root = project_root()
    here = Path.cwd().resolve()
    return here if root == _CHECKOUT and not here.is_relative_to(root) and not os.environ.get("OCAD_HOME") else root


def project_root() -> Path:
    """OCAD_HOME, else this folder or the nearest one above it that is a project, else the checkout of this package.

    A project is a folder with `configs/data` that belongs to the user and that nobody else may write; one above this
    folder also has a mark of a project's root, so that what lies in `/tmp` or a shared home is nobody's configuration.
    """
    home = os.environ.get("OCAD_HOME")
    if home:
        return Path(home).resolve()
    here = Path.cwd().resolve()
    if _is_project(here):
        return here
    above = (
        folder for folder in here.parents if any((folder / mark).exists() for mark in MARKS) and _is_project(folder)
    )
    return next(above, _CHECKOUT if (_CHECKOUT / CATALOGUE).is_dir() else here)


def _is_project(folder: Path) -> bool:
    """Whether its `configs/data` is the user's own."""
    try:
        return all(_is_own(place) for place in (folder / CATALOGUE.parent, folder / CATALOGUE))
    except OSError:
        return False


def _is_own(folder: Path) -> bool:
    found = folder.stat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWOTH
