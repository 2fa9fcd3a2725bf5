"""Two network namespaces joined by a veth pair: a link of one's own to load, shape, break and measure."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
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
HARDWARE_ADDRESS: dict[End, str] = {"near": "02:00:5e:00:00:01", "far": "02:00:5e:00:00:02"}
"""Locally administered (IEEE 802: bit 1 of the first octet)."""
STOP_SECONDS = 5.0
CARRIER_SECONDS = 2.0
CPU_GROUPS = Path("/sys/fs/cgroup/cpu")
CPU_PERIOD_US = 13_000
"""No divisor of usual probing intervals, so that probes meet every phase of it."""
USUAL_CPU_SHARES, CPU_SHARES = 1_024, 65_536
"""Outside of incidents the far end's processes come before the rest of the machine."""
DROPPED = "1:20"
"""The class that random loss sends packets to: its queue is shorter than any packet."""


class Testbed:
    """A context manager that makes both ends, shapes near → far by `link`, and removes on leaving what it made.

    Raises `OcadError` naming what the machine lacks: the programs `ip` and `tc`, the right to make network namespaces
    (CAP_SYS_ADMIN and CAP_NET_ADMIN), or the kernel's veth, tbf and htb modules.
    """

    __test__ = False

    def __init__(self, link: Link) -> None:
        self.link = link
        name = f"ocad-{os.getpid()}-{link.endpoint}"
        self._names: dict[End, str] = {"near": f"{name}-near", "far": f"{name}-far"}
        self._group = CPU_GROUPS / name
        self._hog: subprocess.Popen[str] | None = None
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
        joining = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._group / "cgroup.procs")]
        process = subprocess.Popen(
            [*(joining if end == "far" else []), "ip", "netns", "exec", self._names[end], *command],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._cleanup.callback(_stop, process)
        return process

    def shape(self, share: float = 1.0) -> None:
        """Sets the near end's token bucket to `share` of the link's rate; the queue keeps its length in bytes."""
        self._shape("change", share)

    def set_link(self, state: Literal["up", "down"]) -> None:
        """Takes the far end of the link up or down: the near end sees its carrier go, as with a pulled cable."""
        self._inside("far", "ip", "link", "set", DEVICE, state)

    def await_carrier(self) -> None:
        """Waits until the near end's kernel passes packets again, which takes it up to a second after the link came up."""
        deadline = time.monotonic() + CARRIER_SECONDS
        state = ["ip", "netns", "exec", self._names["near"], "cat", f"/sys/class/net/{DEVICE}/operstate"]
        while time.monotonic() < deadline:
            if subprocess.run(state, capture_output=True, text=True, check=False).stdout.strip() == "up":
                return
            time.sleep(0.02)

    def lose(self, share: float) -> None:
        """Drops `share` of the packets near → far at random, each by itself; 0 ends it."""
        self._tc("filter", "del", "dev", DEVICE, "parent", "1:", "prio", "1", check=False)
        if share > 0:
            self._tc("filter", "add", "dev", DEVICE, "parent", "1:", "protocol", "all", "prio", "1", "bpf",
                     "bytecode", _random_match(share), "flowid", DROPPED)  # fmt: skip

    def keep_busy(self, command: Sequence[str], share: float) -> None:
        """Runs `command`, which uses all CPU it gets, beside the far end: both together get `share` of one CPU.

        The command yields to the far end's own processes, and both to other links: what is left is the want of CPU.
        """
        self._hog = self.start("far", ["nice", "-n", "39", *command])
        self._write("cpu.shares", USUAL_CPU_SHARES)
        self._write("cpu.cfs_quota_us", round(share * CPU_PERIOD_US))

    def leave_idle(self) -> None:
        """Ends what `keep_busy` began."""
        self._write("cpu.cfs_quota_us", -1)
        self._write("cpu.shares", CPU_SHARES)
        if self._hog is not None:
            self._hog.kill()
            self._hog.wait()
            self._hog = None

    def _build(self) -> None:
        self._make_cpu_group()
        for name in self._names.values():
            _call("ip", "netns", "add", name)
            self._cleanup.callback(_call, "ip", "netns", "del", name)
        near, far = self._names["near"], self._names["far"]
        _call("ip", "link", "add", DEVICE, "netns", near, "type", "veth", "peer", "name", DEVICE, "netns", far)
        for end, address in ADDRESS.items():
            self._inside(end, "ip", "address", "add", f"{address}/30", "dev", DEVICE)
            self._inside(end, "ip", "link", "set", DEVICE, "address", HARDWARE_ADDRESS[end], "up")
        self._tc("qdisc", "add", "dev", DEVICE, "root", "handle", "1:", "htb", "default", "10", "r2q", "100000")
        for name in ("1:10", DROPPED):
            self._tc("class", "add", "dev", DEVICE, "parent", "1:", "classid", name, "htb", "rate", "10gbit")
        self._tc("qdisc", "add", "dev", DEVICE, "parent", DROPPED, "bfifo", "limit", "1")
        self._shape("add", 1.0)

    def _make_cpu_group(self) -> None:
        try:
            self._group.mkdir()
            self._cleanup.callback(self._group.rmdir)
            self._write("cpu.cfs_period_us", CPU_PERIOD_US)
            self._write("cpu.shares", CPU_SHARES)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            hint = "mount the cpu controller of cgroup v1 there"
            raise OcadError(f"cannot make the CPU group `{self._group}` ({reason})", hint) from None

    def _write(self, name: str, value: int) -> None:
        (self._group / name).write_text(str(value), encoding="ascii")

    def _shape(self, verb: str, share: float) -> None:
        link = self.link
        queue = round(link.rate_mbit * 1e6 / 8 * link.queue_ms / 1e3)
        rate = f"{round(link.rate_mbit * share * 1e6)}bit"
        bucket = ["burst", str(link.bucket_bytes), "limit", str(queue)]
        self._tc("qdisc", verb, "dev", DEVICE, "parent", "1:10", "handle", "10:", "tbf", "rate", rate, *bucket)

    def _tc(self, *arguments: str, check: bool = True) -> None:
        self._inside("near", "tc", *arguments, check=check)

    def _inside(self, end: End, *command: str, check: bool = True) -> None:
        _call("ip", "netns", "exec", self._names[end], *command, check=check)


def _random_match(share: float) -> str:
    """A classic BPF program for `tc … bpf bytecode` that matches `share` of all packets at random.

    `ld rand` (linux/filter.h: SKF_AD_OFF + SKF_AD_RANDOM) gives 32 random bits; below the threshold it returns -1, a match.
    """
    threshold = round(share * 2**32)
    return f"4,32 0 0 {2**32 - 0x1000 + 56},53 0 1 {threshold},6 0 0 0,6 0 0 {2**32 - 1}"


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


def _call(*command: str, check: bool = True) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode and check:
        reason = " ".join(result.stderr.split()).rstrip(".")
        raise OcadError(
            f"`{' '.join(command)}` failed ({reason})", "check that the kernel has veth, sch_tbf and sch_htb"
        )


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
