"""Publishing, listing and resolving beside MLflow with sqlite, in turn: `python scripts/bench/registry.py`.

Ours runs in this process, MLflow in a process of its own environment (`.cache/bench/mlflow`, made on the first run), on
the same disk with fsync on. Takes some minutes; `--quick` is a trial that writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from report import file_system, machine, write_section

from ocad_registry import (
    Artifact,
    DataReference,
    Draft,
    GateResult,
    Parity,
    PluginReference,
    Registry,
    Signature,
    Tensor,
)

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"
NAME = "tcn-udp_echo"
NOTE = """\
Medians over rounds in turn, wall time (CPU time beside it); fsync on. A version of ours holds metadata with gates, parity
and signature; MLflow's a run with metrics and parameters, and a model version with six tags, so that both lists show the
same. "First time" reads and verifies every metadata file, "again" is the same object, which looks whether they changed;
MLflow's client is warm in both. "A new process" starts an interpreter, lists and ends. "Versions there" is ours; MLflow's
store holds only the few that it published in its own turns, which favours it.
"""


@dataclass(frozen=True)
class Timing:
    """Medians of one side, in seconds."""

    wall: float
    cpu: float

    @classmethod
    def of(cls, blocks: list[dict[str, list[float]]]) -> Timing:
        """The median over all calls of all blocks."""
        return cls(*(median(value for block in blocks for value in block[key]) for key in ("wall", "cpu")))


class Peer:
    """MLflow in its own process."""

    def __init__(self, folder: Path, artifact: Path) -> None:
        folder.mkdir()
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
        self.process = subprocess.Popen(
            [str(peer_python()), str(Path(__file__).with_name("registry_mlflow.py")), str(folder), str(artifact)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.version = self._answer()["version"]

    def run(self, operation: str, count: int = 1) -> dict[str, list[float]]:
        """Runs `operation` so often; seconds of each."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([operation, count]) + "\n")
        self.process.stdin.flush()
        answer: dict[str, list[float]] = self._answer()
        return answer

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the MLflow process ended; run `scripts/bench/registry_mlflow.py` by hand to see why")
        return json.loads(line)


def peer_python() -> Path:
    """The interpreter of MLflow's environment, which is made if it is missing."""
    python = CACHE / "mlflow" / "bin" / "python"
    if (
        not python.exists()
        or subprocess.run([python, "-c", "import mlflow"], capture_output=True, check=False).returncode
    ):
        uv = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".cache" / "uv" / "bin" / "uv")
        subprocess.run(
            [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(CACHE / "mlflow")], check=True
        )
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), "mlflow"], check=True)
    return python


def draft() -> Draft:
    """A draft with the evidence that a trained TCN leaves."""
    window = Tensor(name="window", dtype="FP32", shape=[-1, 10, 1], unit="us")
    forecast = Tensor(name="forecast", dtype="FP32", shape=[-1, 1], unit="us", scale=101.5)
    return Draft(
        name=NAME,
        plugin=PluginReference(name="tcn", version="0.1.0", package="ocad"),
        task="forecast",
        metric="udp_echo",
        signature=Signature(inputs=[window], outputs=[forecast]),
        params={"epochs": 30, "channels": [32, 32, 32]},
        metrics={"val_loss": 0.03, "mae_us": 12.25},
        gates=[GateResult(name="loss", metric="val_loss", op="<", threshold=0.1, observed=0.03, passed=True)],
        parity=Parity(reference="torch", samples=512, max_scaled_diff=1e-7, tolerance=1e-5, passed=True),
        data=DataReference(name="udp_echo", fingerprint="f" * 64, rows=36000, splits={"train": 23000}),
        tags={"team": "radio"},
    )


def measure(call: Callable[[], object], count: int) -> dict[str, list[float]]:
    """Seconds of each call, wall and CPU."""
    wall, cpu = [], []
    for _ in range(count):
        started, used = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return {"wall": wall, "cpu": cpu}


def in_turn(
    ours: Callable[[], object], peer: Peer, operation: str, rounds: int, count: int, peer_count: int
) -> tuple[Timing, Timing]:
    """A B A B …: `count` calls of ours, `peer_count` of the peer's, `rounds` times."""
    blocks = [(measure(ours, count), peer.run(operation, peer_count)) for _ in range(rounds)]
    return Timing.of([block[0] for block in blocks]), Timing.of([block[1] for block in blocks])


def fill(registry: Registry, count: int) -> None:
    """Publishes `count` versions without files, and without waiting for the disk: they are only to be there."""
    with patch("os.fsync"):
        for _ in range(count):
            registry.publish(draft(), [])
    os.sync()


def bench_publish(folder: Path, sizes: list[int]) -> tuple[list[str], str]:
    """Publishing 1 MB at each number of versions already there; the peer's store holds only what it published itself."""
    artifact = folder / "model.bin"
    artifact.write_bytes(os.urandom(1 << 20))
    registry, peer = Registry(folder / "models"), Peer(folder / "mlflow", artifact)
    files = [Artifact(artifact, "weights")]
    lines, done = [], 0
    for size in sizes:
        fill(registry, size - done)
        ours, theirs = in_turn(lambda: registry.publish(draft(), files), peer, "publish", 5, 10, 4)
        done = size + 50
        lines.append(row(f"publish 1 MB, {size} versions there", ours, theirs, 1e3, "ms"))
    peer.close()
    return lines, peer.version


def bench_read(folder: Path, versions: int) -> list[str]:
    """Listing `versions` versions and resolving an alias."""
    registry, peer = Registry(folder / "many"), Peer(folder / "mlflow-many", folder / "model.bin")
    fill(registry, versions)
    registry.promote(f"{NAME}@1.0.0", "production")
    peer.run("add", versions)
    peer.run("alias")
    lines = []
    registry.list()
    first = in_turn(lambda: Registry(registry.root).list(), peer, "list", 5, 2, 2)
    lines.append(row(f"list {versions} versions, first time", *first, 1e3, "ms"))
    lines.append(row(f"list {versions} versions, again", *in_turn(registry.list, peer, "list", 5, 2, 2), 1e3, "ms"))
    lines.append(bench_command(registry.root, folder / "mlflow-many", versions))
    ours, theirs = in_turn(lambda: registry.resolve(f"{NAME}@production").path, peer, "resolve", 5, 2000, 40)
    lines.append(row(f"alias → path, {versions} versions there", ours, theirs, 1e6, "µs"))
    peer.close()
    return lines


def bench_command(root: str, mlflow: Path, versions: int) -> str:
    """The same list by a process that starts, lists and ends, interpreter included."""
    ours = f"from ocad_registry import Registry; assert len(Registry({root!r}).list()) == {versions}"
    store = f"sqlite:///{mlflow / 'mlflow.db'}"
    listing = f"MlflowClient({store!r}, {store!r}).search_model_versions(\"name='{NAME}'\", max_results=200000)"
    theirs = f"from mlflow import MlflowClient; assert len({listing}) == {versions}"
    commands = [[sys.executable, "-c", ours], [str(peer_python()), "-c", theirs]]
    blocks = [[process(command) for command in commands] for _ in range(3)]
    first, second = (Timing.of([block[side] for block in blocks]) for side in (0, 1))
    return row(f"list {versions} versions, a new process", first, second, 1e3, "ms")


def process(command: list[str]) -> dict[str, list[float]]:
    """Seconds that a process takes, and the CPU seconds it uses."""
    started, used = time.perf_counter(), children()
    subprocess.run(command, check=True, capture_output=True)
    return {"wall": [time.perf_counter() - started], "cpu": [children() - used]}


def children() -> float:
    """CPU seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def row(label: str, ours: Timing, theirs: Timing, factor: float, unit: str) -> str:
    """A line of the table."""
    sides = [f"{digits(side.wall * factor)} {unit} ({digits(side.cpu * factor)})" for side in (ours, theirs)]
    line = f"| {label} | {sides[0]} | {sides[1]} | {theirs.wall / ours.wall:.1f} × ({theirs.cpu / ours.cpu:.1f} ×) |"
    print(line, file=sys.stderr)
    return line


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers; writes nothing")
    quick = parser.parse_args().quick
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="registry-", dir=CACHE) as place:
        folder = Path(place)
        os.environ["OCAD_CACHE"] = str(folder / "cache")
        system = file_system(folder)
        lines, version = bench_publish(folder, [0, 100] if quick else [0, 1000, 2000, 5000, 10000])
        lines += bench_read(folder, 200 if quick else 5000)
    table = "| what | ocad_registry | MLflow, sqlite | MLflow ÷ ours |\n| --- | --- | --- | --- |\n" + "\n".join(lines)
    body = f"{NOTE}\n{table}\n\nMLflow {version}; file system {system}; {machine()}."
    if not quick:
        write_section("registry", "Registry", body)
    print(body)


if __name__ == "__main__":
    main()
