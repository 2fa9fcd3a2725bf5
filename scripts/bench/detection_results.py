"""Where the figures of detection go: each script replaces its own section of `docs/results/detection.md`, no other.

A section stands between `<!-- NAME -->` and `<!-- /NAME -->`; what is written around them by hand stays.
"""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "detection.md"
HEADER = """# Detection: what was measured

Written by `scripts/bench/detection_*.py` after the protocols in [detection_protocol.md](detection_protocol.md); events are never
point-adjusted, and shortfalls stand beside what is met.
"""


def write_section(name: str, markdown: str, page: Path = PAGE) -> None:
    """Replaces the section `name` of `page` by `markdown` (with its own heading), or appends it.

    Scripts that run at the same time write one after the other. Raises `ValueError` for a name that is no `a-z0-9-`.
    """
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"section name `{name}` may hold a-z, 0-9 and - only")
    section = f"<!-- {name} -->\n{markdown.strip()}\n<!-- /{name} -->\n"
    pattern = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->\n", re.DOTALL)
    page.parent.mkdir(parents=True, exist_ok=True)
    with page.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read() or HEADER
        found = pattern.search(text)
        text = text[: found.start()] + section + text[found.end() :] if found else f"{text.rstrip()}\n\n{section}"
        file.seek(0)
        file.truncate()
        file.write(text)
