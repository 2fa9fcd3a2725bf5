"""`scripts/system_tools.sh` where things are missing: what it says, what it installs, and when it ends the build."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.needs import skipped_for

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "system_tools.sh"
TOOLS = ("strace", "wrk", "tshark", "chromium", "openssl", "ip", "tc")
NO_CARGO = "error: cargo is not on the PATH: install Rust with `curl -sSf https://sh.rustup.rs | sh -s -- -y`\n"
NO_DEFAULT = "error: cargo does not run (error: no default): choose a toolchain with `rustup default stable`\n"
MISSING = "missing: wrk tc; what needs them is skipped (on Debian: apt-get install wrk iproute2)\n"
INSTALLING = "installing wrk tc (OCAD_INSTALL_TOOLS=0 leaves them out)\n"
INSTALLED = ["update -qq", "install -y -qq --no-install-recommends wrk iproute2"]


def stub(folder: Path, name: str, body: str = "exit 0") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("cargo", "lacks", "user", "variables", "said", "code", "asked"),
    [
        pytest.param(None, (), 0, {}, NO_CARGO, 1, [], id="no Rust"),
        pytest.param("echo error: no default >&2; exit 1", TOOLS, 0, {}, NO_DEFAULT, 1, [], id="no default toolchain"),
        pytest.param("", (), 0, {}, "", 0, [], id="all here"),
        pytest.param("", ("wrk", "tc"), 0, {}, INSTALLING, 0, INSTALLED, id="root"),
        pytest.param("", ("wrk", "tc"), 1000, {}, MISSING, 0, [], id="not root"),
        pytest.param(
            "",
            ("ip", "tc"),
            1000,
            {},
            MISSING.replace("wrk tc", "ip tc").replace("wrk ", ""),
            0,
            [],
            id="a package once",
        ),
        pytest.param("", ("wrk", "tc"), 0, {"OCAD_INSTALL_TOOLS": "0"}, MISSING, 0, [], id="not wanted"),
        pytest.param("", ("wrk", "tc"), 0, {"FAILS": "1"}, INSTALLING + MISSING, 0, INSTALLED[:1], id="no network"),
    ],
)
def test_what_is_missing_is_named_or_installed(
    tmp_path: Path,
    cargo: str | None,
    lacks: tuple[str, ...],
    user: int,
    variables: dict[str, str],
    said: str,
    code: int,
    asked: list[str],
) -> None:
    log = tmp_path / "asked"
    log.touch()
    for tool in {*TOOLS} - {*lacks}:
        stub(tmp_path, tool)
    stub(tmp_path, "id", f"echo {user}")
    stub(tmp_path, "apt-get", f'echo "$@" >> {log}; exit "${{FAILS:-0}}"')
    if cargo is not None:
        stub(tmp_path, "cargo", cargo)
    done = subprocess.run(
        [str(shutil.which("bash")), str(SCRIPT)],
        env={"PATH": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
    assert log.read_text().splitlines() == asked


def test_skipped_tests_are_counted_by_what_they_need() -> None:
    reasons = ["Skipped: needs `tshark`: install it", "Skipped: needs `root`: be it", "Skipped: other"]
    assert skipped_for([*reasons, reasons[0]]) == {"tshark": 2, "root": 1}
