"""Runs a schedule on the testbed while `ocad probe udp-echo` measures it, and labels the rows with what was done."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocad.errors import OcadError
from ocad.probe.schedule import Incident, Schedule
from ocad.probe.testbed import ADDRESS, Testbed

if TYPE_CHECKING:
    import pandas as pd

ECHO_PORT = 7
SINK_PORT = 9
"""Discard (RFC 863): nothing listens, which is all that cross traffic needs."""
LEAD_SECONDS = 3.0
"""Time for the processes to start before the schedule's clock does."""

Action = Callable[[], None]


@dataclass(slots=True)
class Recorder:
    """One recording of `schedule_file` (read as `schedule`); `folder` takes the probe's own file while it runs."""

    schedule: Schedule
    schedule_file: Path
    folder: Path
    say: Callable[[str], None] = print
    executed: list[dict[str, Any]] = field(default_factory=list)
    _start: int = 0

    def record(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Runs the schedule in real time; returns the labelled rows and what is to be known about them.

        Rows: `timestamp`, `udp_echo` (µs, NaN = lost), `label` (1 inside an incident), `kind` ("" outside).
        Raises `OcadError` when the testbed cannot be made or a part of it ends early.
        """
        import pandas as pd

        rows_file = self.folder / "rows.parquet"
        load_before = os.getloadavg()
        with Testbed(self.schedule.link) as testbed:
            self._start = time.monotonic_ns() + round(LEAD_SECONDS * 1e9)
            epoch = time.time_ns() - time.monotonic_ns() + self._start
            testbed.start("far", [*_ocad("probe", "udp-echo"), "--respond", str(ECHO_PORT), "--bind", ADDRESS["far"]])
            traffic = testbed.start("near", self._traffic_command())
            probe = testbed.start("near", self._probe_command(rows_file))
            self._follow(testbed)
            summary = json.loads(_finish(probe, "the probe"))
            del summary["output"]  # a temporary file
            packets = int(_finish(traffic, "the cross traffic"))
        rows = label_rows(pd.read_parquet(rows_file), self.executed, epoch)
        seconds = (rows["timestamp"] - pd.Timestamp(epoch, unit="ns", tz="UTC")).dt.total_seconds()
        rows = rows[(seconds >= 0) & (seconds < self.schedule.duration_s)].reset_index(drop=True)
        about = {
            "started_at": pd.Timestamp(epoch, unit="ns", tz="UTC").isoformat(),
            "probe": summary,
            "cross_traffic_packets": packets,
            "load_average_before": load_before,
        }
        return rows, {**about, **_machine(), "incidents": self.executed}

    def _traffic_command(self) -> list[str]:
        arguments = [str(self.schedule_file), str(self._start), ADDRESS["far"], str(SINK_PORT)]
        return [sys.executable, "-m", "ocad.probe.load", "traffic", *arguments]

    def _probe_command(self, rows_file: Path) -> list[str]:
        probing = self.schedule.probing
        options = {
            "--target": f"{ADDRESS['far']}:{ECHO_PORT}",
            "--rate": probing.rate_hz,
            "--duration": LEAD_SECONDS + self.schedule.duration_s,  # it starts before second 0 and ends after the last
            "--timeout": probing.timeout_s,
            "--out": rows_file,
        }
        flat = [str(part) for option in options.items() for part in option]
        return [*_ocad("probe", "udp-echo"), *flat, "--json"]

    def _follow(self, testbed: Testbed) -> None:
        """Carries out the schedule, each step at its time."""
        for seconds, action in sorted(self._plan(testbed), key=lambda step: step[0]):
            self._wait_until(seconds)
            action()
        self._wait_until(self.schedule.duration_s)

    def _plan(self, testbed: Testbed) -> list[tuple[float, Action]]:
        steps: list[tuple[float, Action]] = []
        for period in self.schedule.contention:
            end = self._start + round(period.end_s * 1e9)
            steps.append((period.start_s, partial(_busy, testbed, end, period.workers)))
        for incident in self.schedule.incidents:
            steps.append((incident.start_s, partial(self._begin, testbed, incident)))
            steps.append((incident.end_s, partial(self._end, testbed, incident)))
        return steps

    def _begin(self, testbed: Testbed, incident: Incident) -> None:
        self.say(f"{incident.start_s:8.1f} s  {incident.kind} for {incident.end_s - incident.start_s:.1f} s")
        began = self._now()
        if incident.kind == "congestion":
            testbed.shape(incident.size)
        elif incident.kind == "flap":
            testbed.set_link("down")
        self.executed.append({"kind": incident.kind, "start_s": began, "end_s": None, "size": incident.size})

    def _end(self, testbed: Testbed, incident: Incident) -> None:
        if incident.kind == "congestion":
            testbed.shape()
        elif incident.kind == "flap":
            testbed.set_link("up")
        self.executed[-1]["end_s"] = self._now()

    def _now(self) -> float:
        return round((time.monotonic_ns() - self._start) / 1e9, 4)

    def _wait_until(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds - (time.monotonic_ns() - self._start) / 1e9))


def label_rows(rows: pd.DataFrame, incidents: list[dict[str, Any]], epoch: int) -> pd.DataFrame:
    """The probe's `rows` with `label` and `kind`, by the incident they were sent in; `epoch` is second 0 in Unix ns."""
    import numpy as np

    seconds = (rows["timestamp"].to_numpy("datetime64[ns]").astype(np.int64) - epoch) / 1e9
    kind = np.full(len(rows), "", dtype=object)
    for incident in incidents:
        kind[(seconds >= incident["start_s"]) & (seconds <= incident["end_s"])] = incident["kind"]
    labelled = rows[["timestamp"]].copy()
    labelled["udp_echo"] = rows["udp_echo"].astype(np.float32)
    labelled["label"] = (kind != "").astype(np.int8)
    labelled["kind"] = kind
    return labelled


def _ocad(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ocad", *arguments]


def _busy(testbed: Testbed, end: int, workers: int) -> None:
    for _ in range(workers):
        testbed.start("near", [sys.executable, "-m", "ocad.probe.load", "busy", str(end)])


def _finish(process: subprocess.Popen[str], name: str) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise OcadError(f"{name} ended with exit code {process.returncode}", "see its message above")
    return output


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "load_average_after": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
