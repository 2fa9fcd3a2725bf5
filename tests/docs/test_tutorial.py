"""The tutorial for authors of plugins, done as it stands: every block in its order, in an empty folder and environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocad_registry import Registry

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block of a page."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def hunks(diff: str) -> Iterator[tuple[str, str, str]]:
    """File, old text and new text of each hunk of a diff without line numbers."""
    for part in re.split(r"^--- a/", diff, flags=re.MULTILINE)[1:]:
        head, *bodies = re.split(r"^@@\n", part, flags=re.MULTILINE)
        for body in bodies:
            lines = body.splitlines(keepends=True)
            old, new = ("".join(line[1:] for line in lines if line[0] in kinds) for kinds in (" -", " +"))
            yield head.splitlines()[0], old, new


def apply(diff: str, folder: Path) -> None:
    """Does what a `diff` block shows; each of its old texts must be there once."""
    for file, old, new in hunks(diff):
        text = (folder / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"the tutorial changes what `{file}` does not have once:\n{old}"
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    """A throw-away environment that sees what is installed here, installs into itself, and reaches no index."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, capture_output=True)
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    ours = Path(pytest.__file__).resolve().parents[1]
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({str(ours)!r})\n")
    tools = folder / "venv" / "bin"
    (tools / "ocad").write_text(f"#!{tools / 'python'}\nfrom ocad.__main__ import main\n\nmain()\n")
    (tools / "ocad").chmod(0o755)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OCAD_", "PYTHON"))}
    return {**kept, **pip, "PATH": path, "HOME": str(folder)}


def test_the_tutorial_ends_with_a_promoted_version(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    variables = environment(tmp_path)

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"

    do: dict[str, Callable[[str], None]] = {
        "sh": lambda text: run("bash", "-eu", "-o", "pipefail", "-c", text),
        "python": lambda text: run("python", "-c", text),
        "diff": lambda text: apply(text, folder),
    }
    found = blocks(TUTORIAL)
    assert {language for language, _ in found} == {*do}
    assert len(found) >= 8
    for language, text in found:
        do[language](text)
    registry = Registry(folder / "models")
    version = registry.resolve("ridge-udp_echo@production")
    assert version.ref == "ridge-udp_echo@1.0.0"
    assert {gate.name for gate in version.manifest.gates} == {"better than the last value again", "no wild forecasts"}
    assert version.manifest.plugin.package == "ocad-ridge"
    assert [entry.version for entry in registry.list("ridge-udp_echo")] == ["1.1.0", "1.0.0"]
