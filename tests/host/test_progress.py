"""Progress goes to stderr: a bar on a terminal, plain lines elsewhere, and nothing to stdout."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from ocad import progress
from ocad.progress import PlainProgress, SilentProgress, console_progress

WORK = """
from ocad.progress import console_progress
with console_progress().task("training", 2) as line:
    line.advance(1, val_loss=0.5)
    line.advance(1, val_loss=0.25)
"""


def test_a_plain_task_says_its_end_once(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainProgress().task("training", 3) as line:
        line.advance(1, val_loss=0.5)
        line.advance(2, val_loss=0.12345)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "training: done, 3/3 val_loss 0.1235\n")


def test_a_long_task_says_where_it_stands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    with PlainProgress().task("recording") as line:
        line.advance(10)
        line.advance(5, rate=60.0)
    assert capsys.readouterr().err.splitlines() == [
        "recording: 10",
        "recording: 15 rate 60",
        "recording: done, 15 rate 60",
    ]


def test_a_silent_task_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with SilentProgress().task("training", 3) as line:
        line.advance(1, val_loss=0.5)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(console_progress(), PlainProgress)


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", WORK], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.stdout == b""
    assert "training" in shown
    assert "2/2" in shown
    assert "val_loss 0.25" in shown
