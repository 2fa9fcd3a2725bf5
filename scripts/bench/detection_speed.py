"""Speed of detection: the forest beside its peers on one row, detectors on a frame, and one arriving row through all of them.

Everything runs in one process on one core. The peers are installed under `.cache/bench/detection-peers`, so that all use
the same numpy and scikit-learn.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import sklearn
from report import machine, write_section
from tcn_training import find_uv

from ocad.detection.ensemble import Ensemble
from ocad.detection.inject import Injection, inject
from ocad.export.runtime import open_session
from ocad.host import Host
from ocad.pipeline import train
from ocad.progress import SilentProgress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad_isolation_forest.detector import Growth, IsolationForestDetector
from ocad_isolation_forest.graph import FEATURES, SCORE, make_graph
from ocad_registry import Registry

PEERS = Path(__file__).resolve().parents[2] / ".cache" / "bench" / "detection-peers"
METRICS = ("udp_echo", "ecpri", "lbm", "ccm")
DELAYS = METRICS[:3]
FAST = ("rule_based", "changepoint", "isolation_forest")
"""The detectors of the batch bar."""
MEMBERS = ("rule_based", "changepoint", "residual", "isolation_forest")
LINKS, TRAINING_ROWS, BATCH_ROWS, POINTS = 4, 4_000, 400_000, 10_000
ONE_ROW_BAR, BATCH_BAR, POINT_BAR_US = 0.5, 200_000, 1_000
PASSED = 'gates=[{metric: %s, op: ">=", threshold: -1}]'
"""A gate that any version passes: what is measured here is speed."""

Call = Callable[[], Any]


def main() -> None:
    """Measures all three and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-write", action="store_true", help="print the section, leave docs/benchmarks.md alone")
    options = parser.parse_args()
    versions = install()
    with tempfile.TemporaryDirectory() as folder:
        composite = train_composite(Path(folder))
        parts = [
            *one_row(versions, options.rounds),
            *batch(composite, options.rounds),
            *arriving_points(composite),
        ]
    body = "\n".join([f"{machine()}, one thread, onnxruntime {onnxruntime.__version__}.", "", *parts])
    print(body)
    if not options.no_write:
        write_section("detection-speed", "Detection: speed", body)


def install() -> dict[str, str]:
    """Puts River and skl2onnx where they can be imported, and returns the versions of all peers."""
    if not (PEERS / "river").is_dir():
        packages = ("river", "skl2onnx")
        subprocess.run([find_uv(), "pip", "install", "-q", "--no-deps", "--target", str(PEERS), *packages], check=True)
    sys.path.append(str(PEERS))
    found = {one.metadata["Name"]: one.version for one in distributions(path=[str(PEERS)])}
    return found | {"scikit-learn": sklearn.__version__}


def make_rows(rows: int, seed: int = 5) -> pd.DataFrame:
    """Four links, a row each second: skewed delays (µs) that follow a slow rhythm, and missed continuity checks."""
    generator, parts = np.random.default_rng(seed), []
    for number in range(LINKS):
        rhythm = 0.1 * np.sin(2 * np.pi * np.arange(rows) / 900 + number)
        delays = np.exp(rhythm[:, None] + generator.normal([5.0, 3.5, 5.3], 0.15, (rows, 3)))
        delays[generator.random((rows, 3)) < 0.001] = np.nan
        missed = np.where(generator.random(rows) < 0.005, 0.01, 0.0)
        part = pd.DataFrame(np.column_stack([delays, missed]), columns=list(METRICS))
        part["endpoint"] = f"link-{number}"
        part["timestamp"] = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s")
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def train_composite(folder: Path) -> Ensemble:
    """The composite of the four detectors, trained and registered as a user would; the residual's forecasters are TCNs."""
    session = Session(Host(), Registry(folder / "models"), SilentProgress())
    rows, _ = inject(make_rows(TRAINING_ROWS), DELAYS, Injection(correlated=True, magnitude=10.0))
    rows.to_parquet(folder / "rows.parquet", index=False)

    def register(plugin: str, metric: str, *overrides: str, name: str | None = None) -> str:
        data, runs = str(folder / "rows.parquet"), str(folder / "runs")
        request = TrainRequest(plugin, metric, data=data, overrides=overrides, name=name, runs=runs)
        return train(request, session).version.ref

    for metric in DELAYS:
        short = ("train.epochs=1", "network.trial_epochs=1", "network.scaling=log", "network.view=relative")
        name = "tcn-udp_echo-oran" if metric == "udp_echo" else None  # as the residual's configuration names it
        register("tcn", metric, *short, PASSED % "mse", name=name)
    for plugin in MEMBERS:
        register(plugin, "oran", PASSED % "endpoints")
    small = ("search.candidates=20", "search.steps=5", PASSED % "endpoints")
    composite = session.load(register("composite", "oran", *small))
    assert isinstance(composite, Ensemble)
    return composite


def one_row(versions: dict[str, str], rounds: int) -> list[str]:
    """Our graph, the whole detector and the peers on the same rows, one at a time."""
    detector = IsolationForestDetector(METRICS, Growth())
    training = make_rows(TRAINING_ROWS)
    detector.fit(training)
    detector.calibrate(make_rows(TRAINING_ROWS, seed=6))
    part = next(iter(detector.series(training)))
    features = detector.feature_rows(part.endpoint, part.times, part.values)
    detector.forget()
    times = measure(row_calls(detector, features, part), rounds, repeat=200)
    ours, river = times["graph"][0], times["river"][0]
    width, trees = features.shape[1], detector.growth.n_estimators
    names = {
        "graph": "our graph in onnxruntime",
        "detector": "our whole detector: checks, features, graph, calibration",
        "river": "River `HalfSpaceTrees`, `score_one` and `learn_one`",
        "river_score": "River `HalfSpaceTrees`, `score_one` alone",
        "skl2onnx": f"skl2onnx {versions['skl2onnx']} in onnxruntime",
        "sklearn": f"scikit-learn {versions['scikit-learn']} `score_samples`",
    }
    return [
        f"**One row.** {width} features of four metrics; {trees} trees of at most 256 rows, except River {versions['river']}'s",
        "`HalfSpaceTrees`: its default 10 trees of height 8. On a stream it scores and learns every point, as it has no other",
        f"way to be fitted; ours is fitted beforehand. Medians over {rounds} rounds in turn.",
        f"Bar: at most {ONE_ROW_BAR:g} of River's CPU time for a point, read as score and learn; it is {ours / river:.2f}."
        f" Read as its score alone it is {ours / times['river_score'][0]:.2f}.",
        "",
        "| what | CPU µs a row | wall µs | CPU ÷ ours |",
        "| --- | --- | --- | --- |",
        *(
            f"| {label} | {times[name][0]:,.1f} | {times[name][1]:,.1f} | {times[name][0] / ours:,.1f} |"
            for name, label in names.items()
        ),
        "",
    ]


def row_calls(detector: IsolationForestDetector, features: Any, part: Any) -> dict[str, Call]:
    """What scores the next row, by name."""
    forest, width = detector.forest, features.shape[1]
    graph = open_session(make_graph(forest).SerializeToString())
    skl2onnx = importlib.import_module("skl2onnx")
    kind = importlib.import_module("skl2onnx.common.data_types").FloatTensorType([None, width])
    converted = skl2onnx.to_onnx(
        forest, initial_types=[("x", kind)], target_opset={"": 20, "ai.onnx.ml": 3}
    ).SerializeToString()
    peer = open_session(converted)
    trees = importlib.import_module("river.anomaly").HalfSpaceTrees(seed=1)
    span = np.ptp(features, axis=0) + 1e-9
    scaled = (features - features.min(axis=0)) / span  # it wants features in [0, 1]
    dictionaries = [dict(enumerate(row)) for row in scaled.tolist()]
    for row in dictionaries[:1_000]:
        trees.learn_one(row)
    single = [features[place : place + 1] for place in range(len(features))]
    values, clock = part.values.tolist(), itertools.count(int(part.times[0]), 1_000_000)

    def each(score: Callable[[Any], Any], rows: list[Any]) -> Call:
        source = itertools.cycle(rows)
        return lambda: score(next(source))

    return {
        "graph": each(lambda row: graph.run([SCORE], {FEATURES: row}), single),
        "detector": each(lambda row: detector.score_point(part.endpoint, next(clock), row), values),
        "river": each(lambda row: (trees.score_one(row), trees.learn_one(row)), dictionaries),
        "river_score": each(trees.score_one, dictionaries),
        "skl2onnx": each(lambda row: peer.run(None, {"x": row}), single),
        "sklearn": each(forest.score_samples, single),
    }


def measure(candidates: dict[str, Call], rounds: int, repeat: int) -> dict[str, tuple[float, float]]:
    """CPU and wall microseconds of one call of each, medians over rounds in turn; the first round is not counted."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, call in candidates.items():
            used, started = time.process_time(), time.perf_counter()
            for _ in range(repeat):
                call()
            if number:
                spent[name].append((time.process_time() - used, time.perf_counter() - started))
    medians = {name: np.median(np.array(pairs), axis=0) / repeat * 1e6 for name, pairs in spent.items()}
    return {name: (float(cpu), float(wall)) for name, (cpu, wall) in medians.items()}


def batch(composite: Ensemble, rounds: int) -> list[str]:
    """Rows a CPU second of each detector's `score` on a frame, and of the three of the bar together."""
    frame = make_rows(BATCH_ROWS // LINKS, seed=9)
    seconds: dict[str, list[float]] = {name: [] for name in MEMBERS}
    detectors = dict(zip(MEMBERS, composite.members.values(), strict=True))
    for number in range(rounds + 1):
        for name, detector in detectors.items():
            detector.restore({})
            started = time.process_time()
            detector.score(frame)
            if number:
                seconds[name].append(time.process_time() - started)
    composite.restore({})
    spent = {name: median(values) for name, values in seconds.items()}
    together = len(frame) / sum(spent[name] for name in FAST)
    rows = [f"| `{name}` | {len(frame) / used:,.0f} |" for name, used in spent.items()]
    return [
        f"**A frame.** {len(frame):,} rows of four metrics and {LINKS} links through `score`, from rows to noise units.",
        f"Medians over {rounds} rounds in turn. Bar: rules, CUSUM and forest together {BATCH_BAR:,} rows a second on one core;",
        f"it is {together:,.0f} rows, {len(METRICS) * together:,.0f} measurements.",
        "",
        "| detector | rows a CPU second |",
        "| --- | --- |",
        *rows,
        f"| {', '.join(f'`{name}`' for name in FAST)} together | {together:,.0f} |",
        "",
    ]


def arriving_points(composite: Ensemble) -> list[str]:
    """One arriving row at a time: each detector's `score_point`, and the composite's `detect_point` with all four."""
    frame = make_rows(POINTS // LINKS, seed=10).sort_values("timestamp", kind="stable")
    endpoints = frame["endpoint"].tolist()
    stamps = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    columns = {metric: frame[metric].tolist() for metric in METRICS}
    lines = []
    for name, detector in zip(MEMBERS, composite.members.values(), strict=True):
        detector.restore({})
        rows = zip(*(columns[metric] for metric in detector.metrics), strict=True)
        lines.append((f"`{name}`", latencies(detector.score_point, endpoints, stamps, rows)))
    composite.restore({})
    rows = zip(*(columns[metric] for metric in composite.metrics), strict=True)
    lines.append(
        ("composite of the four, incidents included", latencies(composite.detect_point, endpoints, stamps, rows))
    )
    worst, needed = lines[-1][1][1], lines[-1][1][3]
    return [
        f"**One arriving row.** {len(frame):,} rows, one after the other; the residual's forecasters are three TCNs, so that a row",
        f"asks four graphs. Bar: p99 of the composite at most {POINT_BAR_US:,} µs; it is {worst:,.0f} ({needed:,.0f} of CPU time).",
        "",
        "| what | p50 µs | p99 µs | CPU p50 µs | CPU p99 µs |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {name} | {' | '.join(f'{figure:,.1f}' for figure in figures)} |" for name, figures in lines),
    ]


def latencies(score: Callable[..., Any], endpoints: list[str], stamps: list[int], rows: Any) -> tuple[float, ...]:
    """p50 and p99 of a call in wall µs, then in CPU µs, the first hundred calls not counted."""
    spent = []
    for endpoint, stamp, values in zip(endpoints, stamps, rows, strict=True):
        call = functools.partial(score, endpoint, stamp, list(values))
        used, started = time.thread_time(), time.perf_counter()
        call()
        spent.append((time.perf_counter() - started, time.thread_time() - used))
    wall, cpu = np.percentile(np.array(spent[100:]) * 1e6, [50, 99], axis=0).T.tolist()
    return (*wall, *cpu)


if __name__ == "__main__":
    main()
