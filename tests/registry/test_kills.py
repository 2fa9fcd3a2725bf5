"""kill -9 at random moments of publishing, promoting, rolling back, deleting, collecting, importing and copying."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import counts_of

STEPS = ("published", "moved", "deleted", "collected", "imported", "copied", "refused")


def kill(folder: Path, kills: int) -> dict[str, Any]:
    """The counts of so many kills."""
    counts = counts_of("killed", folder / "models", kills, 20260103, timeout=1500)
    assert counts["kills"] == kills
    assert counts["interrupted"] > 0, "no kill ever hit a writer at work"
    return counts


def test_thirty_kills_leave_nothing_half_done(tmp_path: Path) -> None:
    counts = kill(tmp_path, 30)
    assert counts["published"] > 10


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_five_hundred_kills_leave_nothing_half_done(tmp_path: Path) -> None:
    counts = kill(tmp_path, 500)
    assert counts["file_system"] != "tmpfs", "give pytest a `--basetemp` on a real disk"
    assert all(counts[step] > 10 for step in STEPS), counts
