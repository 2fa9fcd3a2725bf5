"""What some tests need of the machine: programs by name, and rights; marked as `@pytest.mark.needs("tshark", "root")`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import NoReturn

import pytest

from ocad.probe.testbed import effective_capabilities

_NETWORK_ADMINISTRATION = 1 << 12 | 1 << 13 | 1 << 21  # CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN
_OTHER_NAMES = {"chromium": ("chromium-browser",)}
_HINTS = {
    "root": "run as root, or in a privileged container",
    "another user": "run as root, who alone can act as two users",
    "mounts": "run as root, or where user namespaces are allowed",
    "user namespaces": "run where the kernel allows them",
}
_PREFIX = "needs `"


def lacking(message: str, required: str = "OCAD_REQUIRE_SHARED") -> NoReturn:
    """Skips what needs something that is not here; fails it where the variable `required` is 1."""
    if os.environ.get(required) == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def require(tool: str) -> None:
    """Skips the test that is running when `tool` is not here; fails it under OCAD_REQUIRE_TOOLS=1."""
    if not is_here(tool):
        hint = _HINTS.get(tool, "install it, on Debian by `scripts/system_tools.sh`")
        lacking(f"{_PREFIX}{tool}`: {hint}", "OCAD_REQUIRE_TOOLS")


@cache
def is_here(tool: str) -> bool:
    """Whether this machine has the program or the right that `tool` names."""
    match tool:
        case "root":
            return effective_capabilities() & _NETWORK_ADMINISTRATION == _NETWORK_ADMINISTRATION
        case "another user":
            return os.geteuid() == 0
        case "mounts":
            return _runs([*mount_namespace(), "true"])
        case "user namespaces":
            return _runs(["unshare", "--user", "--map-root-user", "true"])
        case _:
            return program(tool) is not None


def program(name: str) -> str | None:
    """The path of a program under any of its names; None when it is not installed."""
    return next(filter(None, map(shutil.which, (name, *_OTHER_NAMES.get(name, ())))), None)


def mount_namespace() -> list[str]:
    """A command that runs its arguments where they may mount: what they mount is gone when they end."""
    return ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]


def skipped_for(reasons: Iterable[str]) -> Counter[str]:
    """How many of the skipped tests needed each tool, by the `reasons` that `require` gave."""
    return Counter(reason.partition(_PREFIX)[2].partition("`")[0] for reason in reasons if _PREFIX in reason)


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
