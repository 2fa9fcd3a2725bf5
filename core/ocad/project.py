"""Where the project's own files lie; light to import."""

from __future__ import annotations

import os
from pathlib import Path

CATALOGUE = Path("configs") / "data"
"""The folder of the data catalogue, under the project's root: one `NAME.yaml` for each set."""


def catalogue_files() -> list[Path]:
    """The files of the data catalogue, by name."""
    return sorted((project_root() / CATALOGUE).glob("*.yaml"))


def project_root() -> Path:
    """OCAD_HOME, else the nearest folder from here upwards with `configs/data`, else the checkout of this package."""
    home = os.environ.get("OCAD_HOME")
    if home:
        return Path(home).resolve()
    checkout = Path(__file__).resolve().parents[2]
    here = Path.cwd().resolve()
    return next((folder for folder in (here, *here.parents, checkout) if (folder / CATALOGUE).is_dir()), here)
