"""The systemd units of the documentation: they load without a complaint, and hold what they start in bounds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
UNITS = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.service"))


def settings(unit: str) -> dict[str, dict[str, str]]:
    """Section → setting → value, the last one where it stands several times."""
    found: dict[str, dict[str, str]] = {}
    section = ""
    for line in (DOCS / unit).read_text(encoding="utf-8").splitlines():
        if title := re.fullmatch(r"\[(\w+)\]", line):
            section = title[1]
        elif setting := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(section, {})[setting[1]] = setting[2]
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_five_crashes_do_not_end_it_and_its_memory_is_bounded(unit: str) -> None:
    found = settings(unit)
    assert found["Unit"]["StartLimitIntervalSec"] == "0", "in any other section systemd ignores it"
    assert found["Service"]["Restart"] in ("always", "on-failure")
    assert float(found["Service"]["RestartSec"]) >= 1
    assert re.fullmatch(r"\d+G", found["Service"]["MemoryMax"])


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_knows_every_setting_and_finds_it_shut_in(unit: str, tmp_path: Path) -> None:
    place = tmp_path / Path(unit).name
    place.write_text(re.sub(r"/usr/bin/ocad[\w-]*", "/bin/true", (DOCS / unit).read_text(encoding="utf-8")))

    def told(*command: str) -> str:
        done = subprocess.run(["systemd-analyze", *command], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert told("verify", str(place)) == ""
    level = re.search(r"exposure level .*: ([\d.]+)", told("security", "--offline=true", str(place)))
    assert level is not None
    assert float(level[1]) <= 2
