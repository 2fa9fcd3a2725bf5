"""Fails when a source file exceeds 500 lines or a function 60, in Python and Rust; there is no ignore list."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES, FUNCTION_LINES = 500, 60
_RUST_FUNCTION = re.compile(
    r"^(?P<indent>\s*)(?:pub(?:\([a-z]+\))? )?(?:const )?(?:async )?(?:unsafe )?fn (?P<name>\w+)"
)


def python_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, first line and length of every function of a Python file."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def rust_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, first line and length of every function of a Rust file in rustfmt's layout."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if found := _RUST_FUNCTION.match(line):
            close = found["indent"] + "}"
            end = next(
                (i for i in range(start, len(lines)) if lines[i] == close or (lines[i].endswith(";") and i == start)),
                start,
            )
            yield found["name"], start + 1, end - start + 1


def findings(path: Path) -> Iterator[str]:
    """One line for each file or function that is too long."""
    text = path.read_text(encoding="utf-8")
    length = len(text.splitlines())
    if length > FILE_LINES:
        yield f"{path}: {length} lines, at most {FILE_LINES}"
    functions = python_functions(text) if path.suffix == ".py" else rust_functions(text)
    for name, line, size in functions:
        if size > FUNCTION_LINES:
            yield f"{path}:{line}: function `{name}` has {size} lines, at most {FUNCTION_LINES}"


def main() -> int:
    """Checks every tracked and new source file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.rs"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    found = [line for name in sorted(set(listed)) if Path(name).is_file() for line in findings(Path(name))]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
