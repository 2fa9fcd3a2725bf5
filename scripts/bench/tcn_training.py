"""TCN training speed beside `pytorch-tcn` (PyPI) in a plain loop: samples per CPU second, in turn, in one process."""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from report import machine, write_section
from torch import Tensor, nn
from torch.nn import functional

from ocad.catalogue import find_data
from ocad.timeseries.frame import read_frame
from ocad.timeseries.windows import Windows, split_windows
from ocad.training.batches import Batch
from ocad_tcn.config import NetworkSettings, TcnConfig, WindowSettings
from ocad_tcn.fitting import Material, View, as_tensors, fit_forecaster

PEER = Path(__file__).resolve().parents[2] / ".cache" / "bench" / "pytorch-tcn"
ROWS, BATCH, KERNEL, CHANNELS, RATE = 23_000, 512, 3, (32, 32, 32), 2e-3
BAR = 2.5


def main() -> None:
    """Trains both `--rounds` times in turn and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--no-write", action="store_true", help="print the section, leave docs/benchmarks.md alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    material = make_material(options.epochs)
    peer, version = load_peer()
    ours, theirs = [], []
    for _ in range(options.rounds + 1):
        ours.append(run_ours(material))
        theirs.append(run_peer(peer, material, options.epochs))
    body = describe(ours[1:], theirs[1:], version, options)
    print(body)
    if not options.no_write:
        write_section("tcn-training", "TCN: training speed", body)


def make_material(epochs: int) -> Material:
    """The newest 23,000 training windows of the recorded trace, and its validation part."""
    settings = WindowSettings()
    frame = read_frame(find_data("udp_echo"), ["udp_echo"]).data
    windows = split_windows(frame, "udp_echo", settings.length, settings.shares, settings.gap)
    whole = windows["train"]
    train = Windows(whole.sequence[-ROWS:], whole.target[-ROWS:], whole.timestamp[-ROWS:], whole.endpoint[-ROWS:])
    base = TcnConfig()
    train_options = base.train.model_copy(
        update={"epochs": epochs, "patience": 0, "batch_size": BATCH, "learning_rate": RATE}
    )
    network = NetworkSettings(channels=CHANNELS, kernel=KERNEL)
    config = base.model_copy(update={"train": train_options, "network": network})
    return Material(config, train, windows["validation"])


def load_peer() -> tuple[Any, str]:
    """The class `pytorch_tcn.TCN` and its version, installed into a folder of its own (pure Python over our torch)."""
    if not PEER.is_dir():
        subprocess.run([find_uv(), "pip", "install", "--no-deps", "--target", str(PEER), "pytorch-tcn"], check=True)
    sys.path.append(str(PEER))
    version = next(one.version for one in distributions(path=[str(PEER)]) if one.name == "pytorch-tcn")
    return importlib.import_module("pytorch_tcn").TCN, version


def find_uv() -> str:
    """uv beside this interpreter, else on PATH."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else "uv"


def run_ours(material: Material) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and validation MSE of the whole `fit`: logs, checkpoints and validation included."""
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        _, result = fit_forecaster(material, View("standard", True), material.config.train, Path(folder), seed=7)
        return time.process_time() - cpu, time.perf_counter() - wall, result.best_value


class Peer(nn.Module):
    """`pytorch-tcn` of the same width, depth and kernel, with a linear head on its last output."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network(1, list(CHANNELS), kernel_size=KERNEL, dropout=0.0, causal=True)
        self.head = nn.Linear(CHANNELS[-1], 1)

    def forward(self, window: Tensor) -> Tensor:
        """`(batch, 10, 1)` standardised to `(batch, 1)`."""
        output: Tensor = self.head(self.network(window.transpose(1, 2))[:, :, -1])
        return output


def run_peer(network: Any, material: Material, epochs: int) -> tuple[float, float, float]:
    """The same for the peer in a plain loop: AdamW, clipping, shuffled batches by indexing, the best epoch's MSE."""
    train, validation = (standardised(part, material) for part in (material.train, material.validation))
    torch.manual_seed(7)
    model = Peer(network)
    cpu, wall = time.process_time(), time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    best = float("inf")
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(train["target"]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            optimizer.zero_grad()
            loss = functional.mse_loss(model(train["window"][rows]), train["target"][rows])
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            best = min(best, functional.mse_loss(model(validation["window"]), validation["target"]).item())
    return time.process_time() - cpu, time.perf_counter() - wall, best


def standardised(windows: Windows, material: Material) -> Batch:
    """Windows and targets, both standardised by the training part."""
    from ocad_tcn.forecaster import Forecaster

    forecaster = Forecaster(material.architecture(View("standard", True)))
    tensors, architecture = as_tensors(windows, forecaster), forecaster.architecture
    return {**tensors, "window": (tensors["window"] - architecture.mean) / architecture.deviation}


def describe(
    ours: list[tuple[float, float, float]],
    theirs: list[tuple[float, float, float]],
    version: str,
    options: argparse.Namespace,
) -> str:
    """The table: medians over rounds."""
    samples = ROWS * options.epochs
    ratio = statistics.median(their[0] / our[0] for our, their in zip(ours, theirs, strict=True))
    lines = [
        f"{machine()}, torch {torch.__version__}, one thread.",
        f"{ROWS:,} windows of the recorded trace, batch {BATCH}, blocks of {CHANNELS}, kernel {KERNEL}, {options.epochs} epochs;",
        f"medians of {options.rounds} rounds in turn, after one that is not counted. Ours is the whole `fit`: validation, log,",
        "events and checkpoints included; the peer's is a plain loop with validation.",
        "",
        "| | samples per CPU second | CPU s | wall s | best validation MSE |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, runs in (("plugin `tcn`", ours), (f"pytorch-tcn {version}, plain loop", theirs)):
        cpu, wall, loss = (statistics.median(column) for column in zip(*runs, strict=True))
        lines.append(f"| {name} | {samples / cpu:,.0f} | {cpu:.2f} | {wall:.2f} | {loss:.5f} |")
    return "\n".join([*lines, "", f"Ratio of CPU time {ratio:.2f}; bar {BAR} at equal or better validation MSE."])


if __name__ == "__main__":
    main()
