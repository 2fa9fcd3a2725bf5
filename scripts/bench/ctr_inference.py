"""Inference of DeepFM: the registered graph in onnxruntime against the peers and torch eager, in turn, one thread."""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import ctr_peers
import onnxruntime
import torch
from report import machine, write_section

from ocad.calibration.calibrators import IDENTITY
from ocad.clicks.torch_learner import TorchScorer
from ocad.export.runtime import OnnxPredictor
from ocad_deepfm.config import NetworkSettings
from ocad_deepfm.network import DeepFmNetwork

BATCHES = (4096, 1)
NETWORKS = {
    "Frappe's": NetworkSettings(embedding=ctr_peers.DIMENSION, hidden=ctr_peers.HIDDEN, batch_norm=True),
    "default": NetworkSettings(),
}
Call = Callable[[], Any]


def main() -> None:
    """Measures both batch sizes and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = ctr_peers.install()
    peers = ", ".join(f"{name} {versions[name]}" for name in ctr_peers.PEERS)
    lines = [
        f"{machine()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, one thread; {peers} (torch eager,",
        "inference mode). 10 columns, 5,382 values; Frappe's network has dimension 10 and 400-400-400 with batch normalisation,",
        f"the default one 16 and 256-128-64. Median time of a call over {options.rounds} rounds in turn.",
        "",
        f"| network | rows | {' | '.join(('ocad graph', 'ocad torch eager', *ctr_peers.PEERS))} |",
        "| --- | --- |" + " --- |" * (2 + len(ctr_peers.PEERS)),
    ]
    log = ctr_peers.make_log(10, test_rows=max(BATCHES))
    with tempfile.TemporaryDirectory() as folder:
        for network, rows in itertools.product(NETWORKS, BATCHES):
            candidates = calls(log, rows, NETWORKS[network], Path(folder))
            times = measure(candidates, options.rounds, repeat=1 if rows > 1 else 300)
            ours = times["ocad graph"]
            cells = (f"{seconds * 1e6:,.0f} µs ({seconds / ours:.2f} ×)" for seconds in times.values())
            lines.append(f"| {network} | {rows:,} | {' | '.join(cells)} |")
    body = "\n".join(lines)
    print(body)
    if not options.no_write:
        write_section("ctr-inference", "DeepFM: inference", body)


def calls(log: ctr_peers.Log, rows: int, settings: NetworkSettings, folder: Path) -> dict[str, Call]:
    """What answers `rows` rows, by name."""
    ids = log.test.ids[:rows]
    network = DeepFmNetwork(log.shape, settings).eval()
    scorer = TorchScorer(network, log.shape)
    scorer.export(IDENTITY, folder)
    graph = OnnxPredictor(folder / "model.onnx", log.shape.signature())
    tensor = torch.from_numpy(ids)
    found: dict[str, Call] = {
        "ocad graph": lambda: graph.predict({"ids": ids}),
        "ocad torch eager": lambda: torch.sigmoid(network(tensor, None)),
    }
    for name, make in ctr_peers.PEERS.items():
        model = make(log.shape, settings.embedding, settings.hidden)[0].eval()
        inputs = ctr_peers.peer_inputs(name, ids, log.shape)
        found[name] = functools.partial(model, inputs)
    return found


def measure(candidates: dict[str, Call], rounds: int, repeat: int) -> dict[str, float]:
    """Seconds of one call of each, the median over rounds in turn; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name, call in candidates.items():
                started = time.perf_counter()
                for _ in range(repeat):
                    call()
                if number:
                    times[name].append((time.perf_counter() - started) / repeat)
    return {name: median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
