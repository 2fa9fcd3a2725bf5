"""What the training loop costs beside a hand-written one, and lazy Adam beside Adam: samples per CPU second, in turn."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median

import torch
from report import machine, write_section
from torch import Tensor, nn
from torch.nn import functional

from ocad.training.batches import Batch
from ocad.training.layers import ReluDropout
from ocad.training.loop import Objective, fit
from ocad.training.losses import ClickLoss
from ocad.training.options import LossSettings, OptimizerName, TrainOptions

BATCH, FIELDS, DIMENSION, HIDDEN, DROPOUT = 4096, 10, 10, (400, 400, 400), 0.2
SMALL, LARGE = 5_382, 2_000_000
"""Rows of the embedding table: the data set Frappe's, and a large one."""


def main() -> None:
    """Measures every way to train `--rounds` times in turn and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=16, help="steps of each measurement")
    parser.add_argument("--no-write", action="store_true", help="print the section, leave docs/benchmarks.md alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, Callable[[], float]] = {
        "hand-written loop, torch layers": lambda: by_hand(options.steps),
        "`fit`, torch layers": lambda: by_fit(SMALL, options.steps, "adam", torch_layers=True),
        "`fit`, `ReluDropout`": lambda: by_fit(SMALL, options.steps, "adam"),
        "`fit`, `adam`": lambda: by_fit(LARGE, options.steps, "adam"),
        "`fit`, `lazy_adam`": lambda: by_fit(LARGE, options.steps, "lazy_adam"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, measure in ways.items():
            speeds[name].append(measure())
    body = describe({name: median(values) for name, values in speeds.items()}, options.rounds)
    print(body)
    if not options.no_write:
        write_section("training-loop", "Training loop", body)


class Network(nn.Module):
    """DeepFM in Frappe's setting."""

    def __init__(self, rows: int, torch_layers: bool) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(rows, DIMENSION), nn.Embedding(rows, 1)
        nn.init.normal_(self.table.weight, std=0.01)
        self.deep = nn.Sequential(*layers(torch_layers))

    def forward(self, ids: Tensor) -> Tensor:
        """Log-odds `(n,)` of `(n, fields)` ids."""
        vectors = self.table(ids)
        total = vectors.sum(dim=1)
        pairs = 0.5 * (total.square().sum(dim=1) - vectors.square().sum(dim=(1, 2)))
        output: Tensor = pairs + self.linear(ids).sum(dim=(1, 2)) + self.deep(vectors.flatten(1)).squeeze(1)
        return output


def layers(torch_layers: bool) -> Iterator[nn.Module]:
    """The deep part."""
    inputs = FIELDS * DIMENSION
    for width in HIDDEN:
        yield nn.Linear(inputs, width)
        yield nn.BatchNorm1d(width)
        yield nn.Sequential(nn.ReLU(), nn.Dropout(DROPOUT)) if torch_layers else ReluDropout(DROPOUT)
        inputs = width
    yield nn.Linear(inputs, 1)


def make_rows(table: int, steps: int) -> Batch:
    """Random ids and clicks for `steps` batches."""
    ids = torch.randint(table, (BATCH * steps, FIELDS))
    return {"ids": ids, "label": (torch.rand(BATCH * steps) < 0.3).float()}


def by_hand(steps: int) -> float:
    """Samples per CPU second of the loop that one writes without a library; the first step is not counted."""
    data, network = make_rows(SMALL, steps), Network(SMALL, torch_layers=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    order, started = torch.randperm(BATCH * steps), 0.0
    for step in range(steps):
        if step == 1:
            started = time.process_time()
        chosen = order[step * BATCH : (step + 1) * BATCH]
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(network(data["ids"][chosen]), data["label"][chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return BATCH * (steps - 1) / (time.process_time() - started)


def by_fit(table: int, steps: int, optimizer: OptimizerName, torch_layers: bool = False) -> float:
    """The same by `ocad.training.loop.fit`, from its second step to the end of the epoch."""
    data, network = make_rows(table, steps), Network(table, torch_layers)
    click_loss = ClickLoss(LossSettings(), data["label"])
    times: list[float] = []

    def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
        times.append(time.process_time())
        return click_loss(model(batch["ids"]), batch["label"])

    def validate(_model: nn.Module) -> Mapping[str, float]:
        times.append(time.process_time())
        return {"val_loss": 1.0}

    options = TrainOptions(
        epochs=1, batch_size=BATCH, optimizer=optimizer, schedule="constant", warmup_epochs=0, clip_norm=0
    )
    with tempfile.TemporaryDirectory() as folder:
        fit(network, data, Objective(batch_loss, validate), options, Path(folder), seed=1)
    # validation before training, the steps, validation after the epoch
    return BATCH * (steps - 1) / (times[-1] - times[2])


def describe(speeds: dict[str, float], rounds: int) -> str:
    """The table, the second and third row against the first, the fifth against the fourth."""
    small, large = list(speeds)[:3], list(speeds)[3:]
    lines = [
        f"{machine()}, torch {torch.__version__}, one thread, float32; medians of {rounds} rounds in turn, samples per CPU",
        f"second. DeepFM with {FIELDS} fields, dimension {DIMENSION}, 400-400-400, batch normalisation, dropout {DROPOUT},",
        f"batches of {BATCH:,}; random rows.",
        "",
        "| table rows | | samples per CPU second | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for rows, names in ((SMALL, small), (LARGE, large)):
        lines += [
            f"| {rows:,} | {name} | {speeds[name]:,.0f} | {speeds[name] / speeds[names[0]]:.2f} × |" for name in names
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
