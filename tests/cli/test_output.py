"""What commands print of other people's words: no colour, no forged line, and JSON that means the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.errors import printable_json, printable_lines
from ocad_registry import Draft, GateResult, PluginReference, Registry

from .conftest import CommandLine

EVIL = "x\x1b[31m\x9b2J\r\nerror: forged\x07\u202e\u2028"


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())), st.sampled_from([None, 2]))
def test_json_means_the_same_and_prints(value: object, indent: int | None) -> None:
    written = printable_json(json.dumps(value, ensure_ascii=False, indent=indent))
    assert json.loads(written) == value
    assert all(line.isprintable() for line in written.split("\n"))


@given(st.text())
def test_lines_stay_lines(text: str) -> None:
    written = printable_lines(text)
    assert written.count("\n") == text.count("\n")
    assert all(line.isprintable() for line in written.split("\n"))


@pytest.mark.parametrize("json_", [True, False], ids=["json", "text"])
def test_a_version_full_of_escapes_reaches_no_terminal(ocad: CommandLine, tmp_path: Path, json_: bool) -> None:
    registry = Registry(tmp_path / "models", by=EVIL)
    gate = GateResult(name=f"g{EVIL}", metric=f"m{EVIL}", op=">", threshold=2, observed=1, passed=False)
    plugin = PluginReference(name=EVIL, version=EVIL, package=EVIL)
    words = {"task": EVIL, "metric": EVIL, "description": EVIL, "tags": {EVIL: EVIL}, "params": {EVIL: EVIL}}
    for _ in range(2):
        registry.publish(Draft(name="a", plugin=plugin, metrics={f"m{EVIL}": 1}, gates=[gate], **words), [])
    registry.promote("a@1.0.0", "production", force=True, reason=EVIL)
    (tmp_path / "models" / f"stray{EVIL}").write_bytes(b"")
    commands = (
        ["list"],
        ["show", "a@1.0.0"],
        ["history", "a"],
        ["verify"],
        ["diff", "a@1.0.0", "a@1.1.0"],
        ["promote", "a@1.1.0", "x"],
    )
    for command in commands:
        done = ocad("registry", *command, "--registry", str(tmp_path / "models"), *(["--json"] if json_ else []))
        for line in f"{done.out}\n{done.err}".split("\n"):
            assert line.isprintable(), (command, line)
            assert not line.startswith("error: forged"), command
