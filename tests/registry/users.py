"""Acts as another user, whose interpreter may lie where only the super user can read: loaded first, then given up."""

from __future__ import annotations

import os
import subprocess
import sys

NOBODY = 65_534

RUN = """
import contextlib, os, sys, tempfile
from pathlib import Path
from ocad_registry import Artifact, Draft, GateResult, PluginReference, Registry, RegistryError
import ocad_registry.modes

def write(root, weights, umask="022"):
    os.umask(int(umask, 8))
    store = Registry(root)
    gate = GateResult(name="g", metric="m", op=">", threshold=0, observed=1, passed=True)
    plugin = PluginReference(name="p", version="1", package="p")
    draft = Draft(name="m", plugin=plugin, task="forecast", metrics={{"m": 1.0}}, gates=[gate])
    one = store.publish(draft, [Artifact(Path(weights), "weights")])
    two = store.publish(draft, [Artifact(Path(weights), "weights")])
    store.promote(two.ref, "production")
    store.delete(one.ref)
    store.collect_garbage(grace=0)
    return two.ref

{script}

with tempfile.TemporaryDirectory() as folder, contextlib.suppress(RegistryError, AssertionError):
    Path(folder, "weights").write_text("x")
    write(folder + "/models", folder + "/weights")
    Registry(folder + "/models").verify()
    Registry(folder + "/models").query("task = 'forecast'")
    work(folder + "/models", *sys.argv[2:])
os.umask(0o022)
if os.getuid() == 0:
    os.setgroups({groups})
    os.setresgid({user}, {user}, {user})
    os.setresuid({user}, {user}, {user})
print(work(*sys.argv[1:]))
"""


def act(user: int, groups: list[int], script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Prints what `work(root, …)`, which `script` defines, answers to this user of these groups."""
    return subprocess.run(
        [sys.executable, "-c", RUN.format(script=script, groups=groups, user=user), *map(str, arguments)],
        env={"OCAD_CACHE": "/nonexistent", "PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )


def answered(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed, if nothing went wrong."""
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
