"""The serving benchmark: `python scripts/bench/serving [--only ROW …] [--rounds N] [--quick]`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # the modules are `serving.…` and `report`, whatever the current folder is
ROOT = HERE.parents[2]
CACHE = ROOT / ".cache" / "bench"


def main() -> int:
    """Measures the rows asked for and writes their section of docs/benchmarks.md."""
    from report import machine, write_section

    from serving.answers import answers
    from serving.fixture import registries
    from serving.measure import Bench, Row
    from serving.operation import alias, cold, memory, overload
    from serving.throughput import grpc, hundred, latency, single

    groups = {
        group.__name__: group for group in (single, latency, hundred, grpc, overload, cold, memory, alias, answers)
    }
    parser = argparse.ArgumentParser(prog="scripts/bench/serving", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=list(groups), help="measure only these rows; writes no section"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="two short rounds, to see that all works; writes no section"
    )
    options = parser.parse_args()
    bench = Bench(CACHE, registries(CACHE / "serving"), options.rounds)
    if options.quick:
        bench.rounds, bench.seconds = 2, 1.0
    rows: list[Row] = []
    for name in options.only or groups:
        started = time.monotonic()
        rows += groups[name](bench)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    body = "\n".join(
        [
            f"{machine()}; onnxruntime {version('onnxruntime')}, {_first_line('wrk', '--version')}; the load and the servers "
            "share the cores; medians over "
            f"{bench.rounds} rounds of ratios within a round, {bench.seconds:g} s each, after one that is not counted.",
            "The model is DeepFM-shaped with random weights: 26 fields, dimension 16, layers of 256, 128 and 64, a table for each "
            "field of 10,000 ids unless a row says fused. The bare session is onnxruntime from Python with one thread.",
            "Triton is the one of PyPI's `nvidia-pytriton`, which carries the python backend only.",
            *bench.notes,
            "",
            "| what | bar | measured | |",
            "| --- | --- | --- | --- |",
            *(row.markdown() for row in rows),
        ]
    )
    if not (options.only or options.quick):
        write_section("serving", "Serving", body)
    print(body)
    return 0


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return " ".join((done.stdout or done.stderr).splitlines()[0].split()[:2])


if __name__ == "__main__":
    sys.exit(main())
