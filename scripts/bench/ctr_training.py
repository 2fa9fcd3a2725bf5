"""Training speed of DeepFM against its peers: samples per CPU second on one thread, in turn, medians over rounds."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import ctr_peers
import torch
from report import machine, write_section
from torch import Tensor, nn

from ocad.clicks.model import InputShape
from ocad.clicks.torch_config import ClickTraining
from ocad.clicks.torch_learner import LABEL, as_tensors, watch
from ocad.metrics.ranking import auc
from ocad.tabular.dataset import Clicks
from ocad.training.batches import Batch
from ocad.training.loop import Objective, fit
from ocad.training.losses import ClickLoss
from ocad.training.options import LossSettings
from ocad_deepfm.config import NetworkSettings
from ocad_deepfm.network import DeepFmNetwork

LARGE_SIZES = (1_000_000, 990_000, 7, 7, 2, 3, 2, 9, 80, 9_890)
"""Ten columns with two million values in all."""
NETWORK = NetworkSettings(
    embedding=ctr_peers.DIMENSION, hidden=ctr_peers.HIDDEN, dropout=ctr_peers.DROPOUT, batch_norm=True
)
SMALL = ("ocad float32", "ocad bf16")
LARGE = ("ocad dense Adam", "ocad lazy Adam", "ocad lazy Adam, bf16")
Train = Callable[[Clicks], float | None]
"""Trains for one epoch; returns the CPU seconds of its steps where the call does more than that."""


def main() -> None:
    """Measures both settings and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5, help="epochs before the AUC is compared")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = ctr_peers.install()
    peers = ", ".join(f"{name} {versions[name]}" for name in ctr_peers.PEERS)
    small = ctr_peers.make_log(options.rows)
    frappe = {name: ours(small.shape, bf16="bf16" in name) for name in SMALL}
    large = ctr_peers.make_log(options.rows, LARGE_SIZES)
    tables = {name: ours(large.shape, lazy="lazy" in name, bf16="bf16" in name) for name in LARGE}
    body = [
        f"{machine()}, torch {torch.__version__}, one thread; {peers}. {options.rows:,} rows an epoch, {options.rounds} rounds",
        "in turn; samples per CPU second, each trained by its own loop with batches of 4,096, dimension 10, 400-400-400,",
        "batch normalisation, dropout 0.2, Adam 1e-3. Synthetic rows of a latent factorisation model.",
        "",
        "Frappe's shape: 10 columns, 5,382 values.",
        "",
        *describe(measure(frappe, small, options.rounds), aucs(small, options.epochs, SMALL)),
        "",
        "Two million values.",
        "",
        *describe(measure(tables, large, options.rounds), aucs(large, options.epochs, LARGE)),
    ]
    print("\n".join(body))
    if not options.no_write:
        write_section("ctr-training", "DeepFM: training speed", "\n".join(body))


def ours(shape: InputShape, *, bf16: bool = False, lazy: bool = False) -> Train:
    """What trains our network for one epoch, as the plugin does."""
    torch.manual_seed(1)
    network = DeepFmNetwork(shape, NETWORK)

    def train(clicks: Clicks) -> float:
        return fit_network(network, shape, clicks, clicks_head(clicks), epochs=1, bf16=bf16, lazy=lazy)

    return train


def fit_network(
    network: DeepFmNetwork, shape: InputShape, train: Clicks, watched: Clicks, *, epochs: int, bf16: bool, lazy: bool
) -> float:
    """The plugin's own training, in a folder that is thrown away; CPU seconds from the first batch to the last epoch's end."""
    options = ClickTraining(
        epochs=epochs,
        batch_size=ctr_peers.BATCH,
        learning_rate=ctr_peers.RATE,
        optimizer="lazy_adam" if lazy else "adam",
        schedule="constant",
        clip_norm=0.0,
        patience=0,
        bf16=bf16,
    )
    data = as_tensors(train, shape)
    loss = ClickLoss(LossSettings(), data[LABEL])
    measure_watched = watch(watched, shape)
    times: list[float] = []

    def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
        times.append(time.process_time())
        return loss(model(batch["ids"], None), batch[LABEL])

    def validate(model: nn.Module) -> Mapping[str, float]:
        times.append(time.process_time())
        return measure_watched(model)

    with tempfile.TemporaryDirectory() as folder:
        fit(network, data, Objective(batch_loss, validate, rows=loss.rows), options, Path(folder), seed=1)
    # the first entry is of the validation before training, the second of the first batch, the last of the validation after
    return times[-1] - times[1]


def clicks_head(clicks: Clicks) -> Clicks:
    """A few rows to watch: validation is not what is measured."""
    return Clicks(clicks.ids[:2000], clicks.numerics[:2000], clicks.label[:2000])


def measure(candidates: dict[str, Train], log: ctr_peers.Log, rounds: int) -> dict[str, float]:
    """Samples per CPU second of each candidate and of the peers: the median over rounds, after one that is not counted."""
    everyone = {**candidates, **{name: make(log.shape)[1] for name, make in ctr_peers.PEERS.items()}}
    speeds: dict[str, list[float]] = {name: [] for name in everyone}
    for number in range(rounds + 1):
        for name, train in everyone.items():
            started = time.process_time()
            steps = train(log.train if number else clicks_head(log.train))
            if number:
                speeds[name].append(len(log.train) / (steps or time.process_time() - started))
    return {name: median(values) for name, values in speeds.items()}


def aucs(log: ctr_peers.Log, epochs: int, names: Sequence[str]) -> dict[str, float]:
    """The test AUC of each of our ways to train, after `epochs`."""
    found = {}
    for name in names:
        torch.manual_seed(1)
        network = DeepFmNetwork(log.shape, NETWORK)
        ways = {"bf16": "bf16" in name, "lazy": "lazy" in name}
        fit_network(network, log.shape, log.train, clicks_head(log.test), epochs=epochs, **ways)
        with torch.inference_mode():
            found[name] = auc(log.test.label, network(torch.from_numpy(log.test.ids), None).numpy())
    return found


def describe(speeds: dict[str, float], quality: dict[str, float]) -> list[str]:
    """A table of speeds and what each of ours is to each other one."""
    own = [name for name in speeds if name.startswith("ocad")]
    lines = ["| | samples per CPU second | test AUC | " + " | ".join(f"{name} is" for name in own) + " |"]
    lines.append("| --- | --- | --- |" + " --- |" * len(own))
    for name, speed in speeds.items():
        ratios = " | ".join(f"{speeds[mine] / speed:.2f} ×" for mine in own)
        lines.append(f"| {name} | {speed:,.0f} | {f'{quality[name]:.4f}' if name in quality else ''} | {ratios} |")
    return lines


if __name__ == "__main__":
    main()
