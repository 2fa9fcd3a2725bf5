"""Ten thousand versions: cold commands beside MLflow's client, the query index, eight writers.

Run as `python scripts/bench/registry_many.py`. Commands are whole processes, the interpreter included, in turn with MLflow's
in its own environment (see `registry.py`).
Takes some five minutes; `--quick` is a trial of small numbers that writes nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from report import file_system, machine, write_section

from ocad_registry import Registry
from registry import CACHE, NAME, Peer, Timing, digits, draft, fill, measure, peer_python, process, row

QUERY = "task = 'forecast' and metrics.val_loss < 0.1"
ROUNDS = 3
WRITERS = 8
NOTE = """\
Medians over rounds in turn, wall time (CPU time beside it). Commands are new processes, interpreter included; the newest 50
entries are shown. "Warm": the query index is there and nothing has changed since; "absent": its file was removed before, so
that every metadata file is read, verified and remembered. MLflow's client does the same with its sqlite store of half as
many versions: `search_model_versions` with the name, and with the name and a tag, 50 results, newest first; the version of
an alias. In process, a query lists the model's folder each time and looks at the files of its answer; after a publish it
looks at every metadata file, as it does for two seconds after any change.
"""
WRITER = """\
import sys
sys.path.insert(0, sys.argv[4])
from registry import draft
from ocad_registry import Artifact, Registry
registry, files = Registry(sys.argv[1]), [Artifact(sys.argv[2], "weights")]
made = draft()
print("ready", flush=True)
sys.stdin.readline()
print(len({registry.publish(made, files).ref for _ in range(int(sys.argv[3]))}), flush=True)
"""


def bench_commands(root: Path, mlflow: Path, cache: Path) -> list[str]:
    """Cold `list`, `query` and `show`, with the index and without, each in turn with MLflow's."""
    store = f"sqlite:///{mlflow / 'mlflow.db'}"
    client = f"from mlflow import MlflowClient; c = MlflowClient({store!r}, {store!r})"
    search = "c.search_model_versions({filter!r}, max_results=50, order_by=['creation_timestamp DESC'])"
    peers = {
        "list": search.format(filter=f"name='{NAME}'"),
        "query": search.format(filter=f"name='{NAME}' and tags.task = 'forecast'"),
        "show": f"c.get_model_version_by_alias({NAME!r}, 'production')",
    }
    ours = {"list": ["list"], "query": ["query", QUERY], "show": ["show", f"{NAME}@production"]}
    lines = []
    for name, arguments in ours.items():
        command = [sys.executable, "-m", "ocad", "registry", *arguments, "--registry", str(root)]
        theirs = [str(peer_python()), "-c", f"{client}; assert {peers[name]}"]
        process(command)
        blocks: dict[str, list[dict[str, list[float]]]] = {"warm": [], "absent": [], "MLflow": []}
        for _ in range(ROUNDS):
            blocks["warm"].append(process(command))
            blocks["MLflow"].append(process(theirs))
            shutil.rmtree(cache / "index")
            blocks["absent"].append(process(command))
            process([*command[:4], "list", *command[-2:]])  # whatever it asked, the index is whole again
        timings = {state: Timing.of(found) for state, found in blocks.items()}
        for state in ("warm", "absent"):
            label = f"`ocad registry {name}`, index {state}"
            lines.append(row(label, timings[state], timings["MLflow"], 1e3, "ms"))
    return lines


def bench_process(root: Path) -> list[str]:
    """Queries in this process, each as fresh as a listing."""
    registry = Registry(root)
    lines = []

    def line(label: str, call: Callable[[], object], count: int) -> None:
        call()
        timing = Timing.of([measure(call, count)])
        lines.append(f"| {label} | {digits(timing.wall * 1e3)} ms ({digits(timing.cpu * 1e3)}) |")

    registry.list(limit=1)
    time.sleep(2.5)  # until the folder's times can be trusted
    line("query that all fulfil, newest 50", lambda: registry.query(QUERY, limit=50), 20)
    line("query that none fulfils", lambda: registry.query("metrics.val_loss < 0.01"), 20)
    line("newest 50", lambda: registry.list(limit=50), 20)
    line("all", registry.list, 5)
    line("references that begin so", lambda: registry.completions(f"{NAME}@1.99"), 20)
    after = measure_after_publish(registry)
    lines.append(f"| the first query after a publish | {digits(after.wall * 1e3)} ms ({digits(after.cpu * 1e3)}) |")
    return lines


def measure_after_publish(registry: Registry) -> Timing:
    """A query right after each of a few publishes."""
    blocks = []
    for _ in range(10):
        registry.publish(draft(), [])
        blocks.append(measure(lambda: registry.query(QUERY, limit=50), 1))
    return Timing.of(blocks)


def bench_writers(folder: Path, count: int) -> str:
    """Eight processes publish 1 MB each time into one model; publishes a second, and how many failed."""
    artifact = folder / "payload.bin"
    artifact.write_bytes(os.urandom(1 << 20))
    rates, failed = [], 0
    for turn in range(3):
        root = folder / f"writers-{turn}"
        command = [sys.executable, "-c", WRITER, str(root), str(artifact), str(count), str(Path(__file__).parent)]
        writers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(WRITERS)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        started = time.perf_counter()
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        done = [int(writer.communicate()[0] or 0) for writer in writers]
        rates.append(sum(done) / (time.perf_counter() - started))
        failed += WRITERS * count - len(Registry(root).list())
    return f"| {WRITERS} writers, 1 MB each, fsync on | {median(rates):.0f} publishes a second, {failed} failed |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers; writes nothing")
    quick = parser.parse_args().quick
    versions, peers, count = (1000, 100, 5) if quick else (10_000, 5_000, 40)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="registry-many-", dir=CACHE) as place:
        folder = Path(place)
        os.environ["OCAD_CACHE"] = str(folder / "cache")
        system = file_system(folder)
        registry, peer = Registry(folder / "models"), Peer(folder / "mlflow", folder / "nothing")
        fill(registry, versions)
        registry.promote(f"{NAME}@1.0.0", "production")
        peer.run("add", peers)
        peer.run("alias")
        peer.close()
        commands = bench_commands(folder / "models", folder / "mlflow", folder / "cache")
        inside = [*bench_process(folder / "models"), bench_writers(folder, count)]
    first = f"| {versions} versions | ocad | MLflow, sqlite, {peers} versions | MLflow ÷ ours |\n| --- | --- | --- | --- |\n"
    second = f"| in process, {versions} versions | time |\n| --- | --- |\n"
    tables = first + "\n".join(commands) + "\n\n" + second + "\n".join(inside)
    body = f"{NOTE}\n{tables}\n\nMLflow {peer.version}; file system {system}; {machine()}."
    if not quick:
        write_section("registry-many", "Many versions", body)
    print(body)


if __name__ == "__main__":
    main()
