"""What every benchmark shares: where its figures go, and the line that says on what they were measured.

A figure is a ratio of two things run in turn in one process (A B A B …); each benchmark replaces its own section of
`docs/benchmarks.md` and touches no other.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
HEADER = "# Benchmarks\n\nWritten by `scripts/bench/*.py`; every figure is a ratio measured in one run (A B A B …).\n"


def write_section(name: str, title: str, body: str, page: Path = PAGE) -> None:
    """Replaces the section `name` of `page` by `title` and `body` (markdown), or appends it."""
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"section name `{name}` may hold a-z, 0-9 and - only")
    section = f"<!-- bench:{name} -->\n## {title}\n\n{body.strip()}\n<!-- /bench:{name} -->\n"
    text = page.read_text(encoding="utf-8") if page.exists() else HEADER
    pattern = re.compile(rf"<!-- bench:{name} -->\n.*?<!-- /bench:{name} -->\n", re.DOTALL)
    found = pattern.search(text)
    text = text[: found.start()] + section + text[found.end() :] if found else f"{text.rstrip()}\n\n{section}"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")


def machine() -> str:
    """One line: processor, usable cores, kernel, interpreter."""
    system = f"{platform.system()} {platform.release()}"
    return f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {system}, Python {platform.python_version()}"


def file_system(path: str | os.PathLike[str]) -> str:
    """The type of the file system that holds `path`, such as `ext4`; the longest mount point above it decides."""
    place = Path(path).resolve()
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        mount, found = line.split(" ")[1:3]
        mount = mount.encode().decode("unicode_escape")
        if place.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()
