"""What the shells are offered after TAB: asked as their scripts ask, and by a real bash with a person at its keys."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocad.cli.main import COMMANDS
from ocad.host import Host

from .conftest import CommandLine
from .test_startup import FOREIGN, HEAVY

Ask = Callable[[str], list[str]]
TARGETS = ["hello-udp_echo@staging", "hello-udp_echo@2.0.0", "hello-udp_echo@1.1.0", "hello-udp_echo@1.0.0"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}


def answer(**variables: str) -> str:
    """What `ocad` prints when a completion script asks."""
    done = subprocess.run(
        [sys.executable, "-m", "ocad"], env=environment(**variables), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def bash(line: str) -> list[str]:
    found = [entry.partition(",") for entry in answer(_OCAD_COMPLETE="bash_complete", COMP_LINE=line).splitlines()]
    return [word for kind, _, word in found if kind == "plain"]


def zsh(line: str) -> list[str]:
    position = str(len(line.split(" ")) - 1)
    fields = answer(_OCAD_COMPLETE="zsh_complete", COMP_WORDS=line, COMP_CWORD=position).splitlines()
    return [word for kind, word in zip(fields[::3], fields[1::3], strict=False) if kind == "plain"]


def fish(line: str) -> list[str]:
    last = line.rsplit(" ", maxsplit=1)[-1]
    found = answer(_OCAD_COMPLETE="fish_complete", COMP_WORDS=line, COMP_CWORD=last).splitlines()
    return [entry.partition(",")[2].partition("\t")[0] for entry in found if entry.startswith("plain,")]


@pytest.mark.parametrize("ask", [bash, zsh, fish])
def test_each_shell_is_offered_the_references(ask: Ask, work: Path) -> None:
    assert ask("ocad verify hello-udp_echo@") == TARGETS
    assert ask("ocad verify hello-udp_echo@1") == TARGETS[2:]
    assert ask("ocad verify hel") == ["hello-udp_echo", *TARGETS], "the only model that fits brings its targets"
    assert ask("ocad verify other@") == []


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ocad tr", ["train"]),
        ("ocad registry promote hello-udp_echo@1.1.0 ", ["staging", "production"]),
        ("ocad registry history ", ["hello-udp_echo"]),
        ("ocad registry rollback hello-udp_echo st", ["staging"]),
        ("ocad train --plugin hel", ["hello"]),
        ("ocad train --plugin=hel", ["hello"]),
        ("ocad plugins check ch", ["changepoint"]),
        ("ocad plugins new ch", []),
        ("ocad train --data li", ["link"]),
        ("ocad train --data link --metric ", ["udp_echo"]),
        ("ocad data show l", ["link"]),
        ("ocad train --lay", ["--layout"]),
        ("ocad completion z", ["zsh"]),
        ('ocad verify "hello-udp_echo@2', TARGETS[1:2]),
    ],
)
def test_it_offers_what_fits_the_place(line: str, offered: list[str], work: Path) -> None:
    assert bash(line) == offered


def test_it_offers_every_command_and_every_plugin(work: Path) -> None:
    assert bash("ocad ") == [*COMMANDS]
    assert bash("ocad plugins show ") == [*Host().entries]


def test_it_asks_the_registry_that_the_line_names(work: Path) -> None:
    (work / "models").rename(work / "others")
    assert bash("ocad verify ") == []
    assert bash("ocad verify --registry others hello-udp_echo@st") == ["hello-udp_echo@staging"]


@pytest.mark.parametrize("line", ["ocad verify h", "ocad train --data l", "ocad verify h@"])
def test_where_anything_is_wrong_it_offers_nothing_and_says_nothing(line: str, work: Path) -> None:
    shutil.rmtree(work / "models")
    (work / "models").write_text("no registry")
    (work / "configs" / "data" / "link.yaml").write_text("columns: [")
    assert bash(line) == (["link"] if "--data" in line else [])


@pytest.mark.parametrize("line", ["verify hel", "train --plugin h", "train --data l", "train --metric u", ""])
def test_it_imports_nothing_heavy(line: str, work: Path) -> None:
    """So that it answers within 150 ms: what is typed is not worth a second's wait."""
    code = (
        "import atexit, sys; sys.argv[0] = 'ocad'\n"
        "atexit.register(lambda: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr))\n"
        "from ocad.__main__ import main; main()"
    )
    variables = environment(_OCAD_COMPLETE="bash_complete", COMP_LINE=f"ocad {line}")
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("plain,")
    assert {*done.stderr.split()} & (HEAVY | FOREIGN | {"pydantic"}) == set()


def test_the_scripts_are_printed_for_each_shell(ocad: CommandLine) -> None:
    for shell, word in (("bash", "complete -o nosort -F"), ("zsh", "#compdef ocad"), ("fish", "complete --no-files")):
        printed = ocad("completion", shell)
        assert printed.code == 0
        assert word in printed.out
        assert ocad("completion", shell, "--json").value == {"shell": shell, "script": printed.out}
    refused = ocad("completion", "tcsh")
    assert (refused.code, refused.out) == (2, "")


TYPED = {
    "ocad verify hello-udp_echo@st\t": "verify hello-udp_echo@staging",
    "ocad verify hello-udp_echo@2\t": "verify hello-udp_echo@2.0.0",
    "ocad regis\tverify hello-udp_echo@1.1\t": "registry verify hello-udp_echo@1.1.0",
    "ocad train --plugin=changep\t": "train --plugin=changepoint",
    "ocad train --data lin\t--metric udp_\t": "train --data link --metric udp_echo",
    "ocad predict hello-udp_echo@sta\t--data garbage.np\t": "predict hello-udp_echo@staging --data garbage.npz",
    "true; ocad verify hello-udp_echo@st\t": "verify hello-udp_echo@staging",
}


@pytest.mark.parametrize("keys", TYPED)
def test_a_person_at_the_keys_of_bash_gets_whole_words(keys: str, work: Path) -> None:
    """A bash on a terminal of its own, whose `ocad` completes for real and else prints what it was called with."""
    tool = work / "bin" / "ocad"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\n[ -n "$_OCAD_COMPLETE" ] || {{ echo "called<$*>"; exit; }}\nexec "{sys.executable}" -m ocad\n'
    )
    tool.chmod(0o755)
    (work / "rc").write_text(f"PS1='ready> '\n{completion_script()}")
    path = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
    shell = Terminal(["bash", "--noprofile", "--rcfile", "rc", "-i"], environment(PATH=path, TERM="dumb"))
    try:
        shell.read_until("ready> ")
        shell.type(keys + "\n")
        called = shell.read_until("called<", ">")
    finally:
        shell.close()
    assert called.rpartition("called<")[2].partition(">")[0] == TYPED[keys]


def completion_script() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ocad", "completion", "bash"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, command: list[str], variables: dict[str, str]) -> None:
        self._near, far = pty.openpty()
        self._process = subprocess.Popen(
            command, env=variables, stdin=far, stdout=far, stderr=far, start_new_session=True
        )
        os.close(far)

    def type(self, keys: str) -> None:
        os.write(self._near, keys.encode())

    def read_until(self, *marks: str, seconds: float = 30.0) -> str:
        """Everything printed until each of `marks` came, one after the other."""
        printed = ""
        while not _has(printed, marks):
            ready, _, _ = select.select([self._near], [], [], seconds)
            assert ready, f"nothing more came after {printed!r}"
            printed += os.read(self._near, 4096).decode(errors="replace")
        return printed

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._near)


def _has(printed: str, marks: tuple[str, ...]) -> bool:
    place = 0
    for mark in marks:
        place = printed.find(mark, place) + len(mark)
        if place < len(mark):
            return False
    return True
