"""What a version records of where it was made: the commit, the machine's software, its cores."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("ocad", "ocad-registry", "numpy", "torch", "onnx", "onnxruntime", "scikit-learn", "pandas")


def git_commit(folder: Path) -> str | None:
    """The commit checked out at `folder`, with `+dirty` when the work tree differs; None outside a repository."""
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return None
    return f"{head}+dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else head


def environment() -> dict[str, str]:
    """Versions of Python, the platform and the packages that shape a result, and the number of usable cores."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cores": str(usable_cores())}
    return found | package_versions()


def package_versions() -> dict[str, str]:
    """The installed version of each of `PACKAGES`; a missing one is left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
