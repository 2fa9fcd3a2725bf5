"""The server's start on a registry of many versions: `python scripts/bench/registry_server.py [--versions N] [--rounds N]`.

In turn, in each round: the server on one version, on N versions of one model and on N versions of a hundred models, and
the registry listed by Python without its query index. `--quick` is a trial that writes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from report import file_system, machine, write_section
from serving.ours import Ours

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
    __version__,
)

LIMIT_MS = 300.0
MODELS = 100
LIST = "import sys; from ocad_registry import Registry; print(len(list(Registry(sys.argv[1]).list())))"


class Start(NamedTuple):
    """A start: process start to readiness, reading the registry within it, and CPU time of all, in ms; resident MB."""

    ready: float
    read: float
    cpu: float
    resident: float


def main() -> int:
    """Measures and writes the section `registry-server` of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="500 versions, two rounds, no section")
    options = parser.parse_args()
    versions, rounds = (500, 2) if options.quick else (options.versions, options.rounds)
    with tempfile.TemporaryDirectory(prefix="ocad-bench-") as name:
        folder = Path(name)
        template = published(folder)
        cases = {
            "one": spread(template, folder / "one", 1, 1),
            "deep": spread(template, folder / "deep", 1, versions),
            "wide": spread(template, folder / "wide", MODELS, versions),
        }
        starts: dict[str, list[Start]] = {case: [] for case in cases}
        listed: list[float] = []
        for turn in range(rounds + 1):  # the first warms the page cache and is not counted
            for case, root in cases.items():
                starts[case].append(start(root, folder))
            listed.append(listed_ms(cases["deep"], folder, versions))
            print(f"round {turn}: {starts['deep'][-1]} {listed[-1]:.0f} ms", file=sys.stderr)
        size = len((template / "metadata.json").read_bytes())
        where = file_system(folder)
    medians = {case: medians_of(found[1:]) for case, found in starts.items()}
    body = report(medians, statistics.median(listed[1:]), versions, rounds, f"{where}, metadata of {size:,} bytes")
    if not options.quick:
        write_section("registry-server", "Registry: read by the server", body)
    print(body)
    return 0


def published(folder: Path) -> Path:
    """The folder of a version as a run registers it, published by the registry itself."""
    weights = folder / "weights.bin"
    weights.write_bytes(os.urandom(4096))
    draft = Draft(
        name="template",
        plugin=PluginReference(name="tcn", version="0.1.0", package="ocad"),
        task="forecast",
        metric="udp_echo",
        signature=Signature(
            inputs=[Tensor(name="window", dtype="FP32", shape=[-1, 60, 8], unit="us")],
            outputs=[Tensor(name="forecast", dtype="FP32", shape=[-1, 12], unit="us", scale=12.5)],
        ),
        params={"epochs": 30, "channels": [32, 32, 32], "lr": 1e-3, "seed": 7},
        metrics=dict.fromkeys(("val_loss", "val_mae", "test_loss", "test_mae", "skill", "coverage"), 0.125),
        gates=[GateResult(name="skill", metric="skill", op=">", threshold=0.0, observed=0.125, passed=True)],
        parity=Parity(reference="torch", samples=512, max_scaled_diff=1e-7, tolerance=1e-5, passed=True),
        data=DataReference(name="udp_echo", fingerprint="f" * 64, rows=36_000, splits={"train": 23_000, "test": 6_000}),
        environment={"python": "3.11", "torch": "2.9.0", "numpy": "2.3.0"},
    )
    version = Registry(folder / "template").publish(draft, [Artifact(weights, "weights")])
    return Path(version.path)


def spread(template: Path, root: Path, models: int, versions: int) -> Path:
    """A registry of `versions` copies of `template`, each under its own name and number, in `models` models."""
    document: dict[str, Any] = json.loads((template / "metadata.json").read_bytes())
    root.mkdir()
    (root / "registry.json").write_text('{"format": 1}\n', encoding="utf-8")
    for number in range(versions):
        name, version = f"model-{number % models:03}", f"1.{number // models}.0"
        target = root / name / version
        target.mkdir(parents=True)
        data = json.dumps(document | {"name": name, "version": version}, indent=1).encode()
        (target / "metadata.json").write_bytes(data)
        line = f"{hashlib.sha256(data).hexdigest()}  metadata.json\n"
        (target / "metadata.sha256").write_text(line, encoding="ascii")
        shutil.copyfile(template / "weights.bin", target / "weights.bin")
    return root


def start(root: Path, folder: Path) -> Start:
    """Starts the server on `root`, waits until it is ready, and ends it."""
    with Ours(root, folder, log="info") as ours:
        server = ours.server
        read = next(json.loads(line) for line in server.log.read_text().splitlines() if '"registry read"' in line)
        return Start(ours.ready_ms, read["seconds"] * 1e3, server.cpu_seconds() * 1e3, server.resident_mb())


def listed_ms(root: Path, folder: Path, versions: int) -> float:
    """Wall time of a new Python process that lists `root` with nothing remembered, in ms."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    begun = time.perf_counter()
    environment = {**os.environ, "OCAD_CACHE": str(cache), "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", LIST, str(root)], capture_output=True, text=True, check=True, env=environment
    )
    assert int(done.stdout) == versions, done.stdout
    return (time.perf_counter() - begun) * 1e3


def medians_of(starts: list[Start]) -> Start:
    """Field by field."""
    return Start(*(statistics.median(values) for values in zip(*starts, strict=True)))


def report(medians: dict[str, Start], listed: float, versions: int, rounds: int, place: str) -> str:
    """The section's text."""
    deep, one = medians["deep"], medians["one"]
    verdict = "reached" if max(deep.read, medians["wide"].read) <= LIMIT_MS else "missed"
    lines = [
        f"{machine()}, load average {os.getloadavg()[0]:.1f}; {place}, in the page cache; ocad-registry {__version__};",
        f"medians over {rounds} rounds in turn, after one that is not counted. Every `metadata.json` is read, its digest",
        "compared and all its fields checked before the server is ready; the versions hold no graph, so that loading sessions",
        "does not count. CPU time is that of the whole start, over all threads.",
        "",
        "| registry | read | start to ready | CPU | resident |",
        "| --- | --- | --- | --- | --- |",
    ]
    titles = {
        "one": "1 version",
        "deep": f"{versions:,} versions of one model",
        "wide": f"{versions:,} versions of {MODELS} models",
    }
    for case, title in titles.items():
        found = medians[case]
        lines.append(
            f"| {title} | {found.read:.1f} ms | {found.ready:.0f} ms | {found.cpu:.0f} ms | {found.resident:.1f} MB |"
        )
    lines += [
        "",
        f"Bar: {versions:,} versions listed and verified at start in at most {LIMIT_MS:.0f} ms: {verdict}. "
        f"They add {deep.ready - one.ready:.0f} ms to a start, and {deep.cpu - one.cpu:.0f} ms of CPU time.",
        f"A new Python process that lists the same registry without its index takes {listed:,.0f} ms, "
        f"{listed / deep.ready:.1f} × as long as the server to ready.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
