"""Quality of DeepFM beside logistic regression and LightGBM on real logs, by `docs/results/ctr_protocol.md`: five seeds each."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from report import machine, write_section

from ocad.host import Host
from ocad.pipeline import train
from ocad.progress import console_progress
from ocad.project import project_root
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad_registry import Registry

SETS = {"bank_full": "bank_full", "adult": "adult", "movielens_small": "ml_latest_small"}
"""The configuration of each set and its name in the catalogue."""
PLUGINS = ("deepfm", "logistic", "gbdt")
SHOWN = ("auc", "average_precision", "logloss", "ece")
WITHIN = 0.005
Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""For each plugin and metric the test figures by seed."""


def main() -> None:
    """Trains every plugin on every set with every seed through the whole pipeline and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    lines = [
        f"{machine()}. Test part, {options.seeds} seeds, mean ± standard deviation; one configuration for each set and model",
        "(`configs/MODEL/SET.yaml`), chosen on validation and committed before a test row was scored: see",
        "`docs/results/ctr_protocol.md`.",
        "",
        "| set | model | AUC | average precision | log loss | ECE |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    verdicts = []
    for name in options.sets:
        scores = {plugin: run(plugin, name, range(1, options.seeds + 1)) for plugin in PLUGINS}
        lines += [table_row(name, plugin, scores) for plugin in PLUGINS]
        verdicts.append(verdict(name, scores))
    body = "\n".join([*lines, "", *verdicts])
    print(body)
    if not options.no_write:
        write_section("ctr-quality", "Click models: quality on real logs", body)


def run(plugin: str, name: str, seeds: Sequence[int]) -> dict[str, list[float]]:
    """The test figures of `plugin` on the set `name`, one for each seed."""
    config = project_root() / "configs" / plugin / f"{name}.yaml"
    found: dict[str, list[float]] = {metric: [] for metric in SHOWN}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Host(), Registry(Path(folder) / "models"), console_progress())
        for seed in seeds:
            overrides = (f"seed={seed}", "export.raw=false")
            request = TrainRequest(
                plugin, data=SETS[name], config=str(config), overrides=overrides, name="bench", runs=f"{folder}/runs"
            )
            metrics = train(request, session).version.manifest.metrics
            for metric, values in found.items():
                values.append(metrics[metric])
    return found


def table_row(name: str, plugin: str, scores: Scores) -> str:
    """One row of the table."""
    cells = (f"{np.mean(scores[plugin][metric]):.4f} ± {spread(scores[plugin][metric]):.4f}" for metric in SHOWN)
    return f"| `{name}` | {plugin} | {' | '.join(cells)} |"


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation; 0 of one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def verdict(name: str, scores: Scores) -> str:
    """Whether DeepFM is at least logistic regression, and how it stands to LightGBM."""
    mean = {plugin: float(np.mean(scores[plugin]["auc"])) for plugin in PLUGINS}
    against, trees = mean["deepfm"] - mean["logistic"], mean["deepfm"] - mean["gbdt"]
    words = [
        f"{against:+.4f} to logistic ({'met' if against >= 0 else 'missed'}: at least 0)",
        f"{trees:+.4f} to LightGBM ({'met' if trees >= -WITHIN else 'missed'}: at least -{WITHIN})",
    ]
    return f"- `{name}`: AUC of DeepFM {', '.join(words)}."


if __name__ == "__main__":
    main()
