"""What the fast path imports: a slow import in the wrong place is felt in every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocad.cli.main import COMMANDS

HEAVY = {"torch", "pandas", "sklearn", "onnxruntime", "pyarrow", "numpy", "matplotlib", "rich"}
FOREIGN = {"ocad_tcn", "ocad_hello", "ocad_broken"}
COUNT = """
import json, sys
sys.argv[0] = "ocad"
from ocad.__main__ import run
code = run()
print(json.dumps([code, sorted(sys.modules)]))
"""


def imported(folder: Path, site: Path, *arguments: str) -> set[str]:
    """The top-level modules that a command has imported when it is done."""
    environment = {"PYTHONPATH": str(site), "OCAD_HOME": str(folder), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", COUNT, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("arguments", ["--help", "--version", "registry --help", "verify --help"])
def test_help_imports_nothing_heavy(tmp_path: Path, plugin_site: Path, arguments: str) -> None:
    modules = imported(tmp_path, plugin_site, *arguments.split())
    assert modules & (HEAVY | FOREIGN | {"ocad_registry", "pydantic", "yaml"}) == set()
    assert "click" in modules


def test_a_plugin_is_not_imported_for_the_list_of_versions(tmp_path: Path, plugin_site: Path) -> None:
    (tmp_path / "models").mkdir()
    modules = imported(tmp_path, plugin_site, "registry", "list")
    assert modules & (HEAVY | FOREIGN) == set()


def test_only_the_named_plugin_is_imported_for_its_settings(tmp_path: Path, plugin_site: Path) -> None:
    modules = imported(tmp_path, plugin_site, "train", "--plugin", "hello", "--help")
    assert modules & (HEAVY | FOREIGN) - {"numpy"} == {"ocad_hello"}


def test_verifying_needs_neither_the_plugin_nor_torch(work: Path) -> None:
    modules = imported(work, work, "verify", "hello-udp_echo@1.0.0")
    assert "onnxruntime" in modules
    assert modules & ({"torch", "pandas", "sklearn", "pyarrow", "rich"} | FOREIGN) == set()


def test_help_names_every_command() -> None:
    done = subprocess.run([sys.executable, "-m", "ocad", "-h"], capture_output=True, text=True, check=True)
    listed = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == list(COMMANDS)
