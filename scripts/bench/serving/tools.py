"""Load generators that are not packaged: built on first use with Go and kept under the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from serving.measure import Bench


def built(bench: Bench, name: str) -> Path:
    """The bench's own Go program `name`, built again when its source is newer."""
    source = Path(__file__).with_name(name) / "main.go"
    target = bench.cache / "bin" / name
    if not target.is_file() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([_go(), "build", "-o", str(target), str(source)], check=True)
    return target


def ghz(bench: Bench) -> Path | None:
    """ghz, from the PATH or installed under the cache; `None`, with a note, where that fails."""
    found = shutil.which("ghz") or shutil.which("ghz", path=bench.cache / "bin")
    if found:
        return Path(found)
    env = {**os.environ, "GOBIN": str(bench.cache / "bin")}
    done = subprocess.run([_go(), "install", "github.com/bojand/ghz/cmd/ghz@latest"], env=env, check=False)
    if done.returncode:
        bench.notes.append("ghz: left out, it could not be installed.")
        return None
    return bench.cache / "bin" / "ghz"


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("the load generators need Go: install `go`")
    return go
