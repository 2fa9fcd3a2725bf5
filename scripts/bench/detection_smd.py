"""SMD: average precision of `subspace` on three machines, by the protocol in `docs/results/detection_protocol.md`."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from detection_results import write_section
from numpy.typing import NDArray
from report import machine as hardware
from sklearn.neighbors import NearestNeighbors

from ocad.catalogue import find_data
from ocad.config import load_config
from ocad.metrics.ranking import average_precision
from ocad.timeseries.frame import read_frame
from ocad_subspace.build import build_detector
from ocad_subspace.config import SubspaceConfig

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "subspace" / "smd.yaml"
BAR = 0.40
GRID = list(itertools.product([0.5, 0.7, 0.9], [5.0, 10.0, 20.0], [10, 30, 60, 100]))
NEIGHBOURS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine's training and test rows."""

    name: str
    train: pd.DataFrame
    test: pd.DataFrame

    def precision(self, scores: Floats) -> float:
        """Average precision of `scores` `(n,)` for the test rows."""
        return average_precision(self.test["label"].to_numpy(), scores)


def main() -> None:
    """Fits, scores, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-write", action="store_true", help="print the section, leave docs/results alone")
    options = parser.parse_args()
    config = load_config(SubspaceConfig, CONFIG)
    body = describe(read_machines(config.metrics), config)
    print(body)
    if not options.no_write:
        write_section("smd", body)


def read_machines(metrics: tuple[str, ...]) -> list[Machine]:
    """The machines; their training rows come first in the table."""
    source = find_data("smd")
    table = read_frame(source, metrics, varying=False).data
    split = pd.read_parquet(source.path, columns=["machine", "split"])
    train_rows = split[split["split"] == "train"].groupby("machine").size()
    machines = []
    for name, rows in table.groupby("endpoint", sort=False):
        first = int(train_rows[str(name)])
        train, test = rows.iloc[:first].drop(columns="label"), rows.iloc[first:]
        machines.append(Machine(str(name), train.reset_index(drop=True), test.reset_index(drop=True)))
    return machines


def score(machine: Machine, config: SubspaceConfig) -> Floats:
    """The raw scores of the test rows."""
    detector = build_detector(config, config.metrics)
    detector.fit(machine.train)
    return detector.raw(machine.test)


def peers(machine: Machine, metrics: tuple[str, ...]) -> dict[str, Floats]:
    """Scores of the test rows by simpler means, each row by itself."""
    train, test = (rows[list(metrics)].to_numpy(np.float64) for rows in (machine.train, machine.test))
    deviation = train.std(axis=0)
    train, test = ((rows - train.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0) for rows in (train, test))
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute", n_jobs=1).fit(train)
    return {
        "random scores": np.random.default_rng(7).random(len(test)),
        "largest deviation of a row": np.abs(test).max(axis=1),
        f"distance to the {NEIGHBOURS}th nearest training row": nearest.kneighbors(test)[0][:, -1],
    }


def held_out(machines: list[Machine], config: SubspaceConfig) -> tuple[list[float], int]:
    """For each machine its average precision by the settings that the others choose; how many settings meet the bar."""
    precision = np.array([[one.precision(score(one, varied(config, *values))) for one in machines] for values in GRID])
    others = (precision.sum(axis=1, keepdims=True) - precision) / (len(machines) - 1)
    chosen = others.argmax(axis=0)
    return precision[chosen, np.arange(len(machines))].tolist(), int((precision.mean(axis=1) >= BAR).sum())


def varied(config: SubspaceConfig, variance: float, clip: float, smoothing: int) -> SubspaceConfig:
    """`config` with other settings of T² and Q."""
    update = {"variance": variance, "clip": clip, "spans": (smoothing,)}
    return config.model_copy(update={"pca": config.pca.model_copy(update=update)})


def describe(machines: list[Machine], config: SubspaceConfig) -> str:
    """The section."""
    configured = [machine.precision(score(machine, config)) for machine in machines]
    chosen, meeting = held_out(machines, config)
    by_peer = [{name: one.precision(scores) for name, scores in peers(one, config.metrics).items()} for one in machines]
    rows = [
        _row("**`subspace`, one configuration**", configured),
        _row("the same, settings from the other two machines", chosen),
        *(_row(name, [found[name] for found in by_peer]) for name in by_peer[0]),
    ]
    mean = float(np.mean(configured))
    return "\n".join(
        [
            "## SMD",
            "",
            f"{hardware()}. Average precision over the test rows; "
            + ", ".join(
                f"{one.name}: {len(one.test):,} rows, {one.test['label'].mean():.1%} anomalous" for one in machines
            )
            + ".",
            "",
            f"| scores | {' | '.join(one.name for one in machines)} | mean |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"Bar: a mean of at least {BAR:.2f}: {'met' if mean >= BAR else 'not met'}; the lowest of the machines is "
            f"{min(configured):.3f}, and {min(chosen):.3f} with settings that it had no part in. "
            f"Of the {len(GRID)} settings of the grid {meeting} meet the bar.",
        ]
    )


def _row(name: str, values: list[float]) -> str:
    return f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} | {np.mean(values):.3f} |"


if __name__ == "__main__":
    main()
