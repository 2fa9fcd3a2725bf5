"""Fixtures that every room shares."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

settings.register_profile("ocad", deadline=None)  # the machine may be busy
settings.load_profile("ocad")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The registry's caches lie in a temporary folder, of child processes too."""
    os.environ["OCAD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def lacking(message: str) -> NoReturn:
    """Skips what needs something that is not here; fails it under OCAD_REQUIRE_SHARED=1."""
    if os.environ.get("OCAD_REQUIRE_SHARED") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; skips where it is absent and not required."""
    folder = Path(os.environ.get("OCAD_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        lacking(f"no shared data at {folder}: set OCAD_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def plugin_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `sys.path` or PYTHONPATH with the packages of `tests/fixtures/` as a wheel installs them."""
    folder = tmp_path_factory.mktemp("plugins")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    for package in sorted((ROOT / "tests" / "fixtures").glob("ocad-*")):
        subprocess.run(build, cwd=package, check=True, capture_output=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"
