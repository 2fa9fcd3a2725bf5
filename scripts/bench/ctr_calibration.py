"""Calibration on the click world, whose true probabilities are known: losses that bend the odds, before and after."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

from report import machine, write_section

from ocad.host import Host
from ocad.pipeline import train
from ocad.progress import console_progress
from ocad.project import project_root
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad.tabular.simulate import simulate_clicks
from ocad_registry import Registry

LOSSES = {
    "log loss": (),
    "pos_weight auto": ("loss.kind=weighted",),
    "pos_weight 3": ("loss.kind=weighted", "loss.pos_weight=3"),
    "focal, γ 2": ("loss.kind=focal",),
    "class-balanced": ("loss.kind=class_balanced",),
}
BENT = ("pos_weight auto", "pos_weight 3", "focal, γ 2")
"""The losses that the bar is for."""


def main() -> None:
    """Trains DeepFM under each loss on one simulated log and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "clicks.parquet"
        simulate_clicks(options.rows, log, 1, console_progress())
        found = {name: run(log, Path(folder), overrides, options.epochs) for name, overrides in LOSSES.items()}
    body = describe(found, options.rows, options.epochs)
    print(body)
    if not options.no_write:
        write_section("ctr-calibration", "DeepFM: calibration against the truth", body)


def run(log: Path, folder: Path, overrides: tuple[str, ...], epochs: int) -> Mapping[str, float]:
    """The metrics of a model trained under `overrides`."""
    session = Session(Host(), Registry(folder / "models"), console_progress())
    config = project_root() / "configs" / "deepfm" / "simulated.yaml"
    common = (f"train.epochs={epochs}", "export.raw=false", "features.label.column=click", "train.batch_size=1024")
    request = TrainRequest(
        "deepfm",
        data=str(log),
        config=str(config),
        overrides=(*common, *overrides),
        name="bench",
        runs=f"{folder}/runs",
    )
    return train(request, session).version.manifest.metrics


def describe(found: Mapping[str, Mapping[str, float]], rows: int, epochs: int) -> str:
    """The table, and whether the bars are met."""
    names = ("ece", "ece_mass", "logloss", "wll", "truth_error")
    lines = [
        f"{machine()}. {rows:,} rows of `ocad data simulate ctr`, DeepFM, {epochs} epochs at most, one seed; the test part,",
        "before → after the calibrator that validation chose. `ece` has bins of equal width, `ece_mass` of equal mass;",
        "`truth_error` is the mean |p - p_true|.",
        "",
        f"| loss | AUC | {' | '.join(names)} |",
        f"| --- | --- |{' --- |' * len(names)}",
    ]
    for loss, metrics in found.items():
        cells = (f"{metrics[f'raw_{name}']:.4f} → {metrics[name]:.4f}" for name in names)
        lines.append(f"| {loss} | {metrics['auc']:.4f} | {' | '.join(cells)} |")
    halved = all(found[loss]["ece"] <= found[loss]["raw_ece"] / 2 for loss in BENT)
    worse = [loss for loss, metrics in found.items() if metrics["logloss"] > metrics["raw_logloss"]]
    lines += ["", f"ECE at least halved under {', '.join(BENT)}: {'yes' if halved else 'no'}."]
    lines.append(f"Log loss worse after calibration: {', '.join(worse) or 'never'}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
