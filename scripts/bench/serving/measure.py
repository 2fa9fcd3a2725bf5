"""Measuring in turn: rounds of A B A B …, the bare session as the yardstick, and the rows of the table."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ocad_registry import Registry
from serving.fixture import ids, session
from serving.load import Bodies, Load, write_bodies
from serving.processes import Server


class Row(NamedTuple):
    """A line of the table; `met` is `None` where there is no bar."""

    what: str
    bar: str
    measured: str
    met: bool | None = None

    def markdown(self) -> str:
        """As a line of the table."""
        verdict = {True: "met", False: "missed", None: ""}[self.met]
        return f"| {self.what} | {self.bar} | {self.measured} | {verdict} |"


@dataclass
class Bench:
    """What every row needs: where things are kept, the registries, and how long to measure."""

    cache: Path
    registries: Mapping[str, Path]
    rounds: int = 5
    seconds: float = 2.0
    notes: list[str] = field(default_factory=list)

    @property
    def work(self) -> Path:
        """Where this bench keeps its files."""
        return self.cache / "serving"

    def graph(self, model: str) -> Path:
        """The ONNX file of `model`."""
        return Registry(self.registries["models"]).resolve(model).file("onnx")

    def bodies(self, rows: int, binary: bool = False) -> Bodies:
        """Request bodies of `rows` rows."""
        return write_bodies(self.work / "bodies" / f"{'binary' if binary else 'json'}-{rows}", rows, binary)

    def in_turn(self, subjects: Mapping[str, Callable[[], Load]]) -> dict[str, list[Load]]:
        """Each subject once a round, after one round that is not counted."""
        found: dict[str, list[Load]] = {name: [] for name in subjects}
        for number in range(self.rounds + 1):
            for name, measure in subjects.items():
                load = measure()
                if number:
                    found[name].append(load)
        return found

    def count_failures(self, found: Mapping[str, Sequence[Load]], what: str) -> None:
        """A note when requests failed, which voids a comparison."""
        for name, loads in found.items():
            if failed := sum(load.failed for load in loads):
                self.notes.append(f"{failed} requests of {name} failed ({what}).")


def bare(graph: Path, rows: int, seconds: float, threads: int = 1) -> Load:
    """The bare session: onnxruntime from Python, `rows` rows a call, `threads` threads with a session of one thread."""
    sessions = [session(graph) for _ in range(threads)]
    inputs = [{"ids": ids(rows, seed)} for seed in range(64)]
    times: list[list[float]] = [[] for _ in sessions]

    def run(number: int) -> None:
        asked, end = sessions[number], time.perf_counter() + seconds
        call, before = 0, time.perf_counter()
        while before < end:
            asked.run(None, inputs[call % 64])
            call, after = call + 1, time.perf_counter()
            times[number].append(after - before)
            before = after

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    every = sorted(value * 1e6 for one in times for value in one)
    return Load(len(every), seconds, every[len(every) // 2], every[len(every) * 99 // 100], 0)


def costed(server: Server, run: Callable[[], Load]) -> Load:
    """`run` with the CPU time that `server` took for it."""
    before = server.cpu_seconds()
    load = run()
    return load._replace(cpu=server.cpu_seconds() - before)


def middle(loads: Sequence[Load], of: Callable[[Load], float]) -> float:
    """The median of a figure over rounds."""
    return statistics.median(map(of, loads))


def ratio(ours: Sequence[Load], theirs: Sequence[Load], of: Callable[[Load], float] = lambda load: load.rate) -> float:
    """The median over rounds of ours / theirs of the same round."""
    return statistics.median(of(a) / of(b) for a, b in zip(ours, theirs, strict=True))


def at_least(what: str, bar: float, value: float, unit: str = " ×", detail: str = "") -> Row:
    """A row whose figure must not be below `bar`."""
    return Row(what, f"≥ {bar:g}{unit}", f"{value:.2f}{unit}{_more(detail)}", value >= bar)


def at_most(what: str, bar: float, value: float, unit: str, detail: str = "", digits: int = 0) -> Row:
    """A row whose figure must not be above `bar`."""
    return Row(what, f"≤ {bar:g} {unit}", f"{value:.{digits}f} {unit}{_more(detail)}", value <= bar)


def _more(detail: str) -> str:
    return f" ({detail})" if detail else ""
