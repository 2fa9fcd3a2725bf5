"""New plugins in a folder of their own, installed as their wheel would be, into nothing that outlives the test."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Workshop:
    """Runs programs in `folder` with the packages of `site` on the path, as a shell of its own would."""

    folder: Path
    site: Path
    more: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path, at: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`python -m arguments…` in `at`, or in the folder."""
        path = os.pathsep.join([str(self.site), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path, "OCAD_HOME": str(self.folder), **self.more}
        command = [sys.executable, "-m", *map(str, arguments)]
        return subprocess.run(
            command, cwd=at or self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def must(self, *arguments: str | Path, at: Path | None = None) -> str:
        """The same, and what it printed; the test fails when the program does."""
        done = self.run(*arguments, at=at)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, package: Path) -> None:
        """Builds the wheel of `package` and unpacks it into the site."""
        wheels = self.site.parent / "wheels" / package.name
        self.must("hatchling", "build", "-t", "wheel", "-d", wheels, at=package)
        for wheel in wheels.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(self.site)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    folder, site = tmp_path / "work", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    return Workshop(folder, site)
