"""Runs a schedule on the testbed while `ocad probe` measures every link, and labels the rows with what was done."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocad.errors import DataError, OcadError
from ocad.probe.schedule import Incident, Link, Schedule
from ocad.probe.steps import METRICS, last_seconds, step_rows
from ocad.probe.testbed import ADDRESS, DEVICE, HARDWARE_ADDRESS, End, Testbed

if TYPE_CHECKING:
    import pandas as pd

ECHO_PORT = 7
SINK_PORT = 9
"""Discard (RFC 863): nothing listens, which is all that cross traffic needs."""
LEAD_SECONDS = 25.0
"""Time for the processes to start before the schedule's clock does."""
CCM_REPORTS_A_STEP = 4
INCIDENTS_FILE = "incidents.json"
"""Beside the probes' files: the incidents carried out so far."""
START_FILE = "start.json"
"""Beside the probes' files: what was known when the schedule's clock was set."""

MOST_LATE = 0.01
"""Share of the cross traffic that may be left out: with more the labels would say what did not happen."""
COURSE_STEP_S = 3.0
"""How often a drift or a flapping loss takes its next step."""

Action = Callable[[], None]


@dataclass(slots=True)
class Recorder:
    """One recording of `schedule_file` (read as `schedule`); `folder` takes the probes' own files while it runs."""

    schedule: Schedule
    schedule_file: Path
    folder: Path
    say: Callable[[str], None] = print
    executed: list[dict[str, Any]] = field(default_factory=list)
    _start: int = 0

    def record(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Runs the schedule in real time; returns the labelled rows (see `steps`) and what is to be known about them.

        Raises `OcadError` when the testbed cannot be made or a part of it ends early.
        """
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        started: dict[str, Any] = {"nice": nice, "load_average_before": os.getloadavg()}
        with ExitStack() as stack:
            testbeds = {link.endpoint: stack.enter_context(Testbed(link)) for link in self.schedule.links}
            self._start = time.monotonic_ns() + round(LEAD_SECONDS * 1e9)
            started["epoch_ns"] = time.time_ns() - time.monotonic_ns() + self._start
            (self.folder / START_FILE).write_text(json.dumps(started), encoding="utf-8")
            probes, traffic = self._start_all(testbeds)
            self._follow(testbeds)
            for name, probe in probes.items():
                _finish(probe, f"the probe `{name}`")
            packets = {name: _packets(process, name) for name, process in traffic.items()}
        rows = step_rows(self.schedule, self.folder, self.executed, started["epoch_ns"])
        done = {
            "cross_traffic_packets": {name: sent for name, (sent, _) in packets.items()},
            "cross_traffic_left_out": {name: late for name, (_, late) in packets.items()},
            "load_average_after": os.getloadavg(),
            **_machine(),
        }
        return rows, {**_opening(started), **done, "incidents": self.executed}

    def _start_all(
        self, testbeds: dict[str, Testbed]
    ) -> tuple[dict[str, subprocess.Popen[str]], dict[str, subprocess.Popen[str]]]:
        """The probes by the name of their file, and the cross traffic by its endpoint."""
        probes, traffic = {}, {}
        for link in self.schedule.links:
            testbed = testbeds[link.endpoint]
            for arguments in self._responders():
                testbed.start("far", _ocad("probe", *arguments))
            for metric, (end, arguments) in self._probes(link).items():
                probes[f"{link.endpoint}.{metric}"] = testbed.start(end, _ocad("probe", *arguments))
            traffic[link.endpoint] = testbed.start("near", self._traffic_command(link))
        return probes, traffic

    def _responders(self) -> list[list[str]]:
        raw = ["--respond", "--interface", DEVICE]
        return [["udp-echo", "--respond", str(ECHO_PORT), "--bind", ADDRESS["far"]], ["ecpri", *raw], ["lbm", *raw]]

    def _probes(self, link: Link) -> dict[str, tuple[End, list[str]]]:
        """For each metric where its probe runs and how; the sender of continuity checks is at the near end."""
        probing = self.schedule.probing
        seconds = LEAD_SECONDS + self.schedule.duration_s  # they start before second 0 and end after the last
        paced = ["--rate", probing.rate_hz, "--duration", seconds, "--timeout", probing.timeout_s]
        raw = ["--interface", DEVICE, "--target", HARDWARE_ADDRESS["far"]]
        ccm = ["--interface", DEVICE, "--interval", probing.ccm_interval, "--duration", seconds]
        report = ["--report", probing.step_s / CCM_REPORTS_A_STEP]
        plans: dict[str, tuple[End, list[Any]]] = {
            "udp_echo": ("near", ["udp-echo", "--target", f"{ADDRESS['far']}:{ECHO_PORT}", *paced]),
            "ecpri": ("near", ["ecpri", *raw, *paced]),
            "lbm": ("near", ["lbm", *raw, *paced]),
            "ccm": ("far", ["ccm", *ccm, *report]),
            "ccm_sender": ("near", ["ccm", "--send", *ccm]),
        }
        measured = {metric: self._output(link, metric) for metric in METRICS}
        return {
            metric: (end, [*map(str, arguments), *measured.get(metric, [])])
            for metric, (end, arguments) in plans.items()
        }

    def _output(self, link: Link, metric: str) -> list[str]:
        return ["--out", str(self.folder / f"{link.endpoint}.{metric}.jsonl"), "--json"]

    def _traffic_command(self, link: Link) -> list[str]:
        arguments = [str(self.schedule_file), link.endpoint, str(self._start), ADDRESS["far"], str(SINK_PORT)]
        return [sys.executable, "-m", "ocad.probe.load", *arguments]

    def _follow(self, testbeds: dict[str, Testbed]) -> None:
        """Carries out the schedule, each step at its time."""
        steps: list[tuple[float, Action]] = []
        for link in self.schedule.links:
            for incident in link.incidents:
                row = {"endpoint": link.endpoint, "kind": incident.kind, "size": incident.size}
                testbed = testbeds[link.endpoint]
                steps.append((incident.start_s, partial(self._begin, testbed, incident, row)))
                steps += course(testbed, incident)
                steps.append((incident.end_s, partial(self._end, testbed, incident, row)))
        for seconds, action in sorted(steps, key=lambda step: step[0]):
            self._wait_until(seconds)
            action()
        self._wait_until(self.schedule.duration_s)

    def _begin(self, testbed: Testbed, incident: Incident, row: dict[str, Any]) -> None:
        length = incident.end_s - incident.start_s
        self.say(f"{incident.start_s:8.1f} s  {row['endpoint']}  {incident.kind} {incident.size:g} for {length:.1f} s")
        row["start_s"] = self._now()
        if incident.kind == "congestion":
            testbed.shape(testbed.link.traffic.base_share / incident.size)
        elif incident.kind in ("loss", "flapping_loss"):
            testbed.lose(incident.size)
        elif incident.kind == "busy":
            testbed.keep_busy([sys.executable, "-S", "-c", "while True: pass"], incident.size)
        elif incident.kind == "flap":
            testbed.set_link("down")
        self.executed.append(row)

    def _end(self, testbed: Testbed, incident: Incident, row: dict[str, Any]) -> None:
        if incident.kind in ("congestion", "drift"):
            testbed.shape()
        elif incident.kind in ("loss", "flapping_loss"):
            testbed.lose(0.0)
        elif incident.kind == "busy":
            testbed.leave_idle()
        elif incident.kind == "flap":
            testbed.set_link("up")
            testbed.await_carrier()
        row["end_s"] = self._now()
        (self.folder / INCIDENTS_FILE).write_text(json.dumps(self.executed), encoding="utf-8")

    def _now(self) -> float:
        return round((time.monotonic_ns() - self._start) / 1e9, 4)

    def _wait_until(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds - (time.monotonic_ns() - self._start) / 1e9))


def course(testbed: Testbed, incident: Incident) -> list[tuple[float, Action]]:
    """What happens inside an incident that does not stay as it began: seconds from the recording's start, and the action.

    A drift lowers the rate in equal steps of utilisation; a flapping loss ends and comes back in turns.
    """
    times = np.arange(incident.start_s + COURSE_STEP_S, incident.end_s - COURSE_STEP_S / 2, COURSE_STEP_S)
    if incident.kind == "drift":
        usual = testbed.link.traffic.base_share
        shares = usual + (incident.size - usual) * np.arange(1, len(times) + 1) / max(1, len(times))
        return [
            (when, partial(testbed.shape, usual / share))
            for when, share in zip(times.tolist(), shares.tolist(), strict=True)
        ]
    if incident.kind == "flapping_loss":
        return [
            (when, partial(testbed.lose, incident.size if turn % 2 else 0.0))
            for turn, when in enumerate(times.tolist())
        ]
    return []


def assemble(schedule: Schedule, folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of a recording that was cut short, from what its probes had written to `folder`, and what is known of it.

    Only whole steps that every probe reached are kept. Raises `DataError` when `folder` holds no begun recording.
    """
    try:
        started = json.loads((folder / START_FILE).read_text(encoding="utf-8"))
        incidents = [one for one in json.loads((folder / INCIDENTS_FILE).read_text(encoding="utf-8")) if "end_s" in one]
    except FileNotFoundError as missing:
        raise DataError(f"no begun recording in `{folder}`", "name its folder with `--raw`") from missing
    files = [folder / f"{link.endpoint}.{metric}.jsonl" for link in schedule.links for metric in METRICS]
    ended = min(last_seconds(file, started["epoch_ns"]) for file in files)
    cut = schedule.model_copy(update={"duration_s": min(ended // 1.0, schedule.duration_s)})
    rows = step_rows(cut, folder, incidents, started["epoch_ns"])
    return rows, {**_opening(started), "cut_short_at_s": ended, **_machine(), "incidents": incidents}


def _opening(started: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    known = {name: value for name, value in started.items() if name != "epoch_ns"}
    return {"started_at": pd.Timestamp(started["epoch_ns"], unit="ns", tz="UTC").isoformat(), **known}


def _ocad(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ocad", *arguments]


def _packets(process: subprocess.Popen[str], endpoint: str) -> tuple[int, int]:
    """The packets that a link's traffic sent and left out; raises `OcadError` for a machine that was too busy to send them."""
    sent, late = map(int, _finish(process, f"the traffic of `{endpoint}`").split())
    if late > MOST_LATE * (sent + late):
        message = f"the traffic of `{endpoint}` fell behind: {late} of {sent + late} packets were too late to be sent"
        raise OcadError(message, "record on a machine that does nothing else")
    return sent, late


def _finish(process: subprocess.Popen[str], name: str) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise OcadError(f"{name} ended with exit code {process.returncode}", "see its message above")
    return output


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
