"""Ten thousand versions in a bucket: cold commands and queries in process, against a real S3 server (s3proxy) on loopback.

Run as `python scripts/bench/registry_objects.py [--versions N]`; `--quick` is a trial that writes nothing. The server is
started by the script in `../shared/infra`, or by the one that `OCAD_SHARED_INFRA` leads to.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from report import machine, write_section

from ocad_registry import Registry
from ocad_registry.remotes import connect
from registry import CACHE, NAME, Timing, digits, draft, measure, process

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.registry.objects.servers import KEY, SECRET, s3proxy

QUERY = "task = 'forecast' and metrics.val_loss < 0.1"
BUCKET, ROUNDS, FILLERS = "bench", 2, 8
NOTE = """\
{versions} versions of one model in a bucket of s3proxy on loopback, a file system below it; medians over {rounds} rounds, wall
time (CPU time of the client beside it). Commands are new processes, interpreter included. "Warm": the query index of this machine
is there; "absent": it and the read cache were removed before, so that all metadata is fetched. A listing asks the server for the
names of all versions each time.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="200 versions; writes nothing")
    options = parser.parse_args()
    versions = 200 if options.quick else options.versions
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="registry-objects-", dir=CACHE) as place, server(Path(place)):
        cache = Path(place) / "cache"
        os.environ["OCAD_CACHE"] = str(cache)
        connect("s3://").call_s3("create_bucket", Bucket=BUCKET)
        url = f"s3://{BUCKET}/models"
        seconds = fill(url, versions)
        commands, inside = bench_commands(url, cache), bench_process(url)
    head = "| {} | wall (CPU) |\n| --- | --- |\n"
    tables = head.format("command") + "\n".join(commands) + "\n\n" + head.format("in process") + "\n".join(inside)
    filled = (
        f"Filled by {FILLERS} threads in {seconds:.0f} s, {versions / seconds:.0f} publishes a second without payload."
    )
    body = "\n".join([NOTE.format(versions=f"{versions:,}", rounds=ROUNDS), tables, "", f"{filled} {machine()}."])
    print(body)
    if not options.quick:
        write_section("registry-objects", "Many versions in a bucket", body)


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """An s3proxy that the environment leads to, as the tests start it."""
    os.environ["S3_HEAP"] = "1024m"
    with s3proxy(folder) as address:
        os.environ |= {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }
        yield


def fill(url: str, count: int) -> float:
    """Publishes `count` numbered versions and an alias; the seconds it took."""
    registry = Registry(url)
    started = time.perf_counter()
    registry.publish(draft(), [], "1.0.0")
    with ThreadPoolExecutor(FILLERS) as pool:
        list(pool.map(lambda number: registry.publish(draft(), [], f"1.{number}.0"), range(1, count)))
    registry.promote(f"{NAME}@1.0.0", "production")
    return time.perf_counter() - started


def bench_commands(url: str, cache: Path) -> list[str]:
    """`list`, `query` and `show` as new processes, with the index and without."""
    lines = []
    for name, arguments in {"list": [], "query": [QUERY], "show": [f"{NAME}@production"]}.items():
        command = [sys.executable, "-m", "ocad", "registry", name, *arguments, "--registry", url]
        process(command)
        blocks: dict[str, list[dict[str, list[float]]]] = {"warm": [], "absent": []}
        for _ in range(ROUNDS):
            blocks["warm"].append(process(command))
            shutil.rmtree(cache)
            blocks["absent"].append(process(command))
            process([*command[:4], "list", "--registry", url])
        for state, found in blocks.items():
            timing = Timing.of(found)
            lines.append(f"| `ocad registry {name}`, index {state} | {shown(timing)} |")
    return lines


def bench_process(url: str) -> list[str]:
    """Queries in this process, each as fresh as a listing."""
    registry = Registry(url)
    calls: dict[str, Callable[[], object]] = {
        "query that all fulfil, newest 50": lambda: registry.query(QUERY, limit=50),
        "newest 50": lambda: registry.list(limit=50),
        "references that begin so": lambda: registry.completions(f"{NAME}@1.99"),
        "alias → version": lambda: registry.resolve(f"{NAME}@production"),
        "publish the next number, no payload": lambda: registry.publish(draft(), []),
    }
    lines = []
    for label, call in calls.items():
        call()
        lines.append(f"| {label} | {shown(Timing.of([measure(call, 5)]))} |")
    return lines


def shown(timing: Timing) -> str:
    return f"{digits(timing.wall * 1e3)} ms ({digits(timing.cpu * 1e3)})"


if __name__ == "__main__":
    main()
