"""Two network namespaces joined by a veth pair: a link of one's own to load, shape, break and measure."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal

from ocad.errors import OcadError
from ocad.probe.schedule import Link

End = Literal["near", "far"]
DEVICE = "link0"
ADDRESS: dict[End, str] = {"near": "198.18.0.1", "far": "198.18.0.2"}
"""From the block that RFC 2544 sets aside for measuring network devices."""
STOP_SECONDS = 5.0


class Testbed:
    """A context manager that makes both ends, shapes near → far by `link`, and removes on leaving what it made.

    Raises `OcadError` naming what the machine lacks: the programs `ip` and `tc`, the right to make network namespaces
    (CAP_SYS_ADMIN and CAP_NET_ADMIN), or the kernel's veth and tbf modules.
    """

    __test__ = False

    def __init__(self, link: Link) -> None:
        self.link = link
        self._names: dict[End, str] = {"near": f"ocad-{os.getpid()}-near", "far": f"ocad-{os.getpid()}-far"}
        self._cleanup = ExitStack()

    def __enter__(self) -> Testbed:
        require_capabilities()
        try:
            self._build()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def start(self, end: End, command: Sequence[str]) -> subprocess.Popen[str]:
        """Runs `command` inside `end`; it is stopped when the testbed is left, if it still runs then."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._names[end], *command],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._cleanup.callback(_stop, process)
        return process

    def shape(self, share: float = 1.0) -> None:
        """Sets the near end's token bucket to `share` of the link's rate; the queue keeps its length in bytes."""
        self._qdisc("change", share)

    def set_link(self, state: Literal["up", "down"]) -> None:
        """Takes the far end of the link up or down: the near end sees its carrier go, as with a pulled cable."""
        self._inside("far", "ip", "link", "set", DEVICE, state)

    def _build(self) -> None:
        for name in self._names.values():
            _call("ip", "netns", "add", name)
            self._cleanup.callback(_call, "ip", "netns", "del", name)
        near, far = self._names["near"], self._names["far"]
        _call("ip", "link", "add", DEVICE, "netns", near, "type", "veth", "peer", "name", DEVICE, "netns", far)
        for end, address in ADDRESS.items():
            self._inside(end, "ip", "address", "add", f"{address}/30", "dev", DEVICE)
            self._inside(end, "ip", "link", "set", DEVICE, "up")
        self._qdisc("add", 1.0)

    def _qdisc(self, verb: str, share: float) -> None:
        link = self.link
        queue = round(link.rate_mbit * 1e6 / 8 * link.queue_ms / 1e3)
        rate = f"{round(link.rate_mbit * share * 1e6)}bit"
        bucket = ["burst", str(link.bucket_bytes), "limit", str(queue)]
        self._inside("near", "tc", "qdisc", verb, "dev", DEVICE, "root", "tbf", "rate", rate, *bucket)

    def _inside(self, end: End, *command: str) -> None:
        _call("ip", "netns", "exec", self._names[end], *command)


def require_capabilities() -> None:
    """Raises `OcadError` naming the first thing that this machine lacks for a testbed."""
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            raise OcadError(f"the testbed needs the program `{program}`", "install the package `iproute2`")
    held = effective_capabilities()
    for name, bit in {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}.items():
        if not held >> bit & 1:
            raise OcadError(
                f"the testbed needs the capability `{name}`", "run it as root, or in a privileged container"
            )


def effective_capabilities() -> int:
    """The effective capabilities of this process as a bit mask (capabilities(7))."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    line = next(line for line in status if line.startswith("CapEff:"))
    return int(line.split()[1], 16)


def _call(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = " ".join(result.stderr.split()).rstrip(".")
        raise OcadError(f"`{' '.join(command)}` failed ({reason})", "check that the kernel has veth and sch_tbf")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
