"""The Ethernet probes over a real veth link between two network namespaces: measuring, a flapping link, errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest

NEAR_MAC, FAR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
NUMBERS = count()

pytestmark = pytest.mark.needs("root", "ip")
End = Literal["near", "far"]


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@dataclass
class Link:
    """Two namespaces joined by the interfaces `link0`; processes started in them end with the test."""

    name: str
    cleanup: ExitStack

    def set(self, end: End, state: Literal["up", "down"]) -> None:
        call("ip", "-n", f"{self.name}-{end}", "link", "set", "link0", state)

    def run(self, end: End, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(end, *arguments), capture_output=True, text=True, check=False)

    def start(self, end: End, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(end, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.cleanup.callback(process.communicate)
        self.cleanup.callback(process.kill)
        return process

    def respond(self, kind: str, *arguments: str) -> subprocess.Popen[str]:
        """Starts a responder at the far end, and waits until it says that it answers."""
        process = self.start("far", kind, "--respond", *arguments)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("answering ")
        return process

    def command(self, end: End, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.name}-{end}", sys.executable, "-m", "ocad", "probe", *arguments]


@pytest.fixture
def link() -> Iterator[Link]:
    with ExitStack() as cleanup:
        name = f"probe-{os.getpid()}-{next(NUMBERS)}"
        for end in ("near", "far"):
            call("ip", "netns", "add", f"{name}-{end}")
            cleanup.callback(call, "ip", "netns", "del", f"{name}-{end}")
        near = ("link0", "address", NEAR_MAC, "netns", f"{name}-near")
        far = ("name", "link0", "address", FAR_MAC, "netns", f"{name}-far")
        call("ip", "link", "add", *near, "type", "veth", "peer", *far)
        made = Link(name, cleanup)
        for end, address in (("near", "198.18.0.1/30"), ("far", "198.18.0.2/30")):
            call("ip", "-n", f"{name}-{end}", "address", "add", address, "dev", "link0")
        made.set("near", "up")
        made.set("far", "up")
        yield made


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("kind", "place", "target"),
    [
        pytest.param("ecpri", ["--interface", "link0"], ["--interface", "link0", "--target", FAR_MAC], id="ecpri"),
        pytest.param("ecpri", ["--bind", "198.18.0.2:5005"], ["--target", "198.18.0.2:5005"], id="ecpri over udp"),
        pytest.param("lbm", ["--interface", "link0"], ["--interface", "link0", "--target", FAR_MAC], id="lbm"),
    ],
)
def test_each_request_over_a_real_link_has_a_row(
    link: Link, tmp_path: Path, kind: str, place: list[str], target: list[str]
) -> None:
    link.respond(kind, *place)
    out = tmp_path / "rows.jsonl"
    options = ["--rate", "50", "--duration", "0.4", "--timeout", "3", "--endpoint", "du1-ru1", "--out", str(out)]
    result = link.run("near", kind, *target, *options, "--json")
    summary, rows = json.loads(result.stdout), read_lines(out)
    assert (summary["sent"], summary["received"], summary["foreign"]) == (20, 20, 0)
    assert [list(row) for row in rows] == [["timestamp", "endpoint", kind]] * 20
    assert {row["endpoint"] for row in rows} == {"du1-ru1"}
    assert all(0 < row[kind] < 3e6 for row in rows)
    assert summary[f"{kind}_us"]["p0"] == pytest.approx(min(row[kind] for row in rows), abs=1e-3)


def test_a_busy_responder_adds_nothing_to_the_one_way_delay(link: Link) -> None:
    """The responder is stopped while requests come in; it answers them all later, with the times at which they came."""
    responder = link.respond("ecpri", "--interface", "link0")
    responder.send_signal(signal.SIGSTOP)
    options = ["--rate", "20", "--duration", "0.3", "--timeout", "10", "--out", "-"]
    probe = link.start("near", "ecpri", "--interface", "link0", "--target", FAR_MAC, *options)
    with pytest.raises(subprocess.TimeoutExpired):
        probe.wait(timeout=1.5)
    responder.send_signal(signal.SIGCONT)
    delays = [json.loads(line)["ecpri"] for line in probe.communicate()[0].splitlines()]
    assert len(delays) == 6
    assert max(delays) < 0.5e6


def test_a_monitor_misses_what_is_not_sent(link: Link) -> None:
    """The sender begins when the monitor is seen to watch, and the monitor ends when it has told of the silence after it."""
    watch = ["--interface", "link0", "--interval", "100ms", "--report", "0.5", "--out", "-"]
    monitor = link.start("near", "ccm", *watch)
    wait_for({"ccm": monitor}, lambda _, missed: missed == 1)
    sender = link.run(
        "far", "ccm", "--send", "--interface", "link0", "--interval", "100ms", "--duration", "1", "--json"
    )
    assert json.loads(sender.stdout) == {"sent": 10, "send_errors": 0}
    wait_for({"ccm": monitor}, lambda _, missed: missed < 1)
    wait_for({"ccm": monitor}, lambda _, missed: missed == 1)
    monitor.send_signal(signal.SIGINT)
    _, report = monitor.communicate()
    received, missed = map(int, re.findall(r"(?:received|missed) (\d+)", report))
    assert received == 10
    assert missed > 0


@pytest.mark.parametrize("end", ["near", "far"])
def test_a_link_that_goes_down_is_lost_rows_and_comes_back(link: Link, tmp_path: Path, end: End) -> None:
    """Both ends survive it: rows are null while the link is down and have values again after it."""
    for kind in ("ecpri", "lbm"):
        link.respond(kind, "--interface", "link0")
    link.start("far", "ccm", "--send", "--interface", "link0", "--interval", "10ms", "--duration", "60")
    probes = {
        kind: link.start(
            "near", kind, "--interface", "link0", "--target", FAR_MAC, "--rate", "20", "--timeout", "0.4", "--out", "-"
        )
        for kind in ("ecpri", "lbm")
    }
    probes["ccm"] = link.start("near", "ccm", "--interface", "link0", "--report", "0.1", "--out", "-")
    wait_for(probes, is_good)
    link.set(end, "down")
    wait_for(probes, lambda kind, value: not is_good(kind, value))
    link.set(end, "up")
    wait_for(probes, is_good)


def is_good(kind: str, value: float | None) -> bool:
    return value == 0 if kind == "ccm" else value is not None


def wait_for(probes: dict[str, subprocess.Popen[str]], wanted: Any) -> None:
    """Reads each probe's rows until one is as `wanted`; a probe that ended has none and fails."""
    for kind, probe in probes.items():
        assert probe.stdout is not None
        for line in probe.stdout:
            if wanted(kind, json.loads(line)[kind]):
                break
        else:
            pytest.fail(f"the {kind} probe ended")


@pytest.mark.parametrize("command", [["ecpri", "--respond"], ["lbm", "--respond"], ["ccm"], ["ccm", "--send"]])
def test_an_unknown_interface_is_named(link: Link, command: list[str]) -> None:
    result = link.run("near", *command, "--interface", "eth9")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: there is no interface `eth9`: known: `lo`, `link0`\n"


def test_a_duration_that_cannot_be_is_refused(link: Link) -> None:
    for command in (["ccm"], ["ccm", "--send"]):
        result = link.run("near", *command, "--interface", "link0", "--duration", "0")
        assert (result.returncode, result.stderr) == (2, "error: `duration` is 0.0: give a number above 0\n")


@pytest.mark.needs("setpriv")
@pytest.mark.parametrize("command", [["ecpri", "--respond"], ["lbm", "--target", FAR_MAC], ["ccm"]])
def test_a_missing_capability_is_named(link: Link, command: list[str]) -> None:
    inside = link.command("near", *command, "--interface", "link0")
    position = inside.index(sys.executable)
    without = [*inside[:position], "setpriv", "--bounding-set", "-net_raw", *inside[position:]]
    result = subprocess.run(without, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    expected = "Ethernet frames need the capability `CAP_NET_RAW`: run it as root, or with that capability"
    assert result.stderr == f"error: {expected}\n"
