"""Runs `writers.py fill` where the disk is small or read-only: `python small_disk.py tmpfs|limit|read-only FOLDER`.

Started in a mount namespace of its own, so that what it mounts is gone when it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def mount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], check=True)


def main(mode: str, folder: Path) -> None:
    root = folder / "models"
    command = [sys.executable, str(Path(__file__).with_name("writers.py"))]
    environment = {**os.environ, "WRITERS_TEMPORARY": str(folder.parent)}
    if mode == "tmpfs":
        mount(folder, "-o", "size=3m")
    elif mode == "read-only":
        mount(folder)
        subprocess.run([*command, "publish", str(root), "1"], check=True, env=environment)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    limit = ["100000"] if mode == "limit" else []
    subprocess.run([*command, "fill", str(root), *limit], check=True, env=environment)
    sys.stdout.flush()
    listing = "import sys, ocad_registry as o; r = o.Registry(sys.argv[1]); print(len(r.list()), len(r.verify()))"
    subprocess.run([sys.executable, "-c", listing, str(root)], check=True)
    staging = root / ".staging"
    print(sum(len(files) for _, _, files in os.walk(staging)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
