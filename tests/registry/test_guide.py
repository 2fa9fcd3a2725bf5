"""The code and commands of docs/registry.md and registry/README.md, run as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ocad_registry.query import parse_query

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "registry.md"
README = ROOT / "registry" / "README.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the guide's example has run."""
    run([sys.executable, "-c", "\n".join(blocks(GUIDE, "python"))], tmp_path)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def test_the_readme_runs_on_what_the_guide_published(folder: Path) -> None:
    answer = run([sys.executable, "-c", "\n".join(blocks(README, "python"))], folder)
    assert answer.splitlines()[-1].startswith("tcn-udp_echo@1.0.0 {'val_loss': 0.03")


def test_every_command_of_the_guide_works(folder: Path) -> None:
    commands = [shlex.split(line) for block in blocks(GUIDE, "sh") for line in block.splitlines()]
    assert {command[2] for command in commands} == {
        *("list", "show", "query", "promote", "history", "rollback", "unset", "verify", "delete", "gc", "copy"),
        *("diff", "export", "import", "keygen", "sign"),
    }
    for command in commands:
        assert command[0] == "ocad"
        assert run([sys.executable, "-m", *command], folder)


def test_every_query_of_the_guide_parses() -> None:
    queries = [line for block in blocks(GUIDE, "text") for line in block.splitlines()]
    assert len(queries) >= 6
    for query in queries:
        assert parse_query(query).paths
