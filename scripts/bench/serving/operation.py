"""Rows about running it: overload, cold start, memory, and a moved alias."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import threading
import time
from contextlib import closing
from typing import Any

from ocad_registry import Registry
from serving import tools
from serving.fixture import MODELS
from serving.load import Bodies, Load, json_body, wrk
from serving.measure import Bench, Row, at_most
from serving.ours import Ours

PLAIN, WIDE = MODELS[0], "deepfm-wide"
OVERLOAD = 4
SMALL = ("--max-batch", "4", "--model-threads", "1")
MOVES = 20
REQUESTS = 100_000


def overload(bench: Bench) -> list[Row]:
    """Requests due at 4 times the capacity, whether or not earlier ones were answered.

    Of a wider model, one row each, with one thread for it: else the generator, which shares the cores, could not bring
    such a load.
    """
    bodies, program = bench.bodies(1), tools.built(bench, "openloop")
    with Ours(bench.registries["wide"], bench.work, *SMALL) as ours:
        wrk(ours.http, WIDE, bodies, 16, 1)
        capacity = wrk(ours.http, WIDE, bodies, 16, bench.seconds).rate
        seen, resident, recovery = [], [], []
        for _ in range(3):
            seen.append(_open_loop(str(program), ours.http, bodies, OVERLOAD * capacity, 2 * bench.seconds))
            recovery.append(_recovery_ms(ours))
            resident.append(ours.server.resident_mb())
    accepted, rejected, failed = (sum(run[key] for run in seen) for key in ("accepted", "rejected", "failed"))
    p99 = statistics.median(run["accepted_p99"] for run in seen) / 1e3
    asked = f"tower 2048-2048-1024, one row, `{' '.join(SMALL)}`, {capacity:,.0f}/s"
    what = f"open-loop overload at {OVERLOAD} × capacity ({asked}): "
    told = sum(run["retry_after"] for run in seen)
    quick = statistics.median(run["rejected_p99"] for run in seen) / 1e3
    shares = f"{accepted:,} accepted, {rejected:,} answered 429 (p99 {quick:.1f} ms), {told:,} with Retry-After, {failed} failed"
    grown = " → ".join(f"{mb:.0f} MB" for mb in resident)
    return [
        at_most(f"{what}p99 of the accepted", 50, p99, "ms", digits=1),
        Row(f"{what}the rest", "429 with Retry-After", shares, failed == 0 and told == rejected > 0),
        Row(f"{what}memory after three bursts", "no growth", grown, resident[-1] <= resident[0] * 1.1),
        at_most(f"{what}recovery", 1000, max(recovery), "ms"),
    ]


def _open_loop(program: str, address: str, bodies: Bodies, rate: float, seconds: float) -> dict[str, Any]:
    command = [program, "-address", address, "-path", f"/v2/models/{WIDE}/infer", "-bodies", str(bodies.folder)]
    command += ["-count", str(bodies.total), "-rate", f"{rate:.0f}", "-seconds", f"{seconds}", "-connections", "1024"]
    done = subprocess.run([*command, *bodies.headers], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _recovery_ms(ours: Ours, calm: int = 20, limit_ms: float = 10.0) -> float:
    """The time until 20 answers in a row are good and quick again."""
    body = json_body(_row())
    started, good = time.perf_counter(), 0
    with closing(ours.connection()) as connection:
        while good < calm and time.perf_counter() - started < 10:
            sent = time.perf_counter()
            connection.request("POST", f"/v2/models/{WIDE}/infer", body)
            response = connection.getresponse()
            response.read()
            quick = (time.perf_counter() - sent) * 1e3 < limit_ms
            good = good + 1 if response.status == 200 and quick else 0
    return (time.perf_counter() - started) * 1e3


def cold(bench: Bench) -> list[Row]:
    """From the start of the process to readiness; the first start, which digests every file, apart."""
    rows = []
    cases = (
        ("one", "one model", 150.0),
        ("large", "one model with a table of 354 MB", 150.0),
        ("twenty", "20 models", 1000.0),
    )
    for name, title, bar in cases:
        registry, verdicts = bench.registries[name], f"verdicts-{name}"
        shutil.rmtree(bench.work / verdicts, ignore_errors=True)
        with Ours(registry, bench.work, verdicts=verdicts) as first:
            first_ms = first.ready_ms
        times = []
        for _ in range(bench.rounds + 2):
            with Ours(registry, bench.work, verdicts=verdicts) as again:
                times.append(again.ready_ms)
        what = f"cold start to ready, {title}, cached digest verdicts, files in the page cache"
        rows.append(at_most(what, bar, statistics.median(times), "ms", f"first start {first_ms:.0f} ms"))
    return rows


def memory(bench: Bench) -> list[Row]:
    """Resident memory of a ready server with one session, what more sessions add, and both after a second of load."""
    samples: dict[int, list[tuple[float, float]]] = {1: [], 5: []}
    for _ in range(bench.rounds):
        for sessions, found in samples.items():
            with Ours(bench.registries["one"], bench.work, "--model-threads", str(sessions)) as ours:
                before = ours.server.resident_mb()
                wrk(ours.http, PLAIN, bench.bodies(1), 64, 1)
                found.append((before, ours.server.resident_mb()))
    ready, loaded = ({n: statistics.median(pair[i] for pair in found) for n, found in samples.items()} for i in (0, 1))
    more, more_loaded = ((part[5] - part[1]) / 4 for part in (ready, loaded))
    first = f"{loaded[1]:.1f} MB after a second of load, when the table is mapped in"
    further = f"{more_loaded:.1f} MB after a second of load, as each session maps the same pages of the table"
    return [
        at_most("resident memory, one model, ready", 55, ready[1], "MB", first, 1),
        at_most("resident memory, each further session", 2, more, "MB", further, 1),
    ]


def alias(bench: Bench) -> list[Row]:
    """Moves `production` to and fro under load: the time to the first answer by the new version, and failures."""
    store, bodies = Registry(bench.registries["models"]), bench.bodies(1)
    store.promote(f"{PLAIN}@1.0.0", "production")
    moves: list[float] = []
    loads: list[Load] = []
    done = threading.Event()
    try:
        with Ours(bench.registries["models"], bench.work) as ours:

            def run() -> None:
                while not done.is_set() or sum(load.requests for load in loads) < REQUESTS:
                    loads.append(wrk(ours.http, PLAIN, bodies, 64, 2))

            asking = threading.Thread(target=run)
            asking.start()
            for number in range(MOVES):
                time.sleep(0.1)
                moves.append(_move_ms(store, ours, f"1.{1 - number % 2}.0"))
            done.set()
            asking.join()
    finally:
        store.unset(PLAIN, "production")
    what = "alias move to first answer by the new version, under load"
    total, failed = sum(load.requests for load in loads), sum(load.failed for load in loads)
    detail = f"median {statistics.median(moves):.0f} ms of {MOVES} moves"
    return [
        at_most(f"{what}, slowest", 100, max(moves), "ms", detail),
        Row(
            f"{what}: failed requests",
            f"0 of {REQUESTS:,}",
            f"{failed} of {total:,}",
            failed == 0 and total >= REQUESTS,
        ),
    ]


def _move_ms(store: Registry, ours: Ours, version: str) -> float:
    body = json_body(_row())
    with closing(ours.connection()) as connection:
        store.promote(f"{PLAIN}@{version}", "production")
        moved = time.perf_counter()
        while time.perf_counter() - moved < 10:
            connection.request("POST", f"/v2/models/{PLAIN}/infer", body)
            if json.loads(connection.getresponse().read())["model_version"] == version:
                break
    return (time.perf_counter() - moved) * 1e3


def _row() -> Any:
    from serving.fixture import ids

    return ids(1)
