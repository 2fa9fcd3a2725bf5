"""Writes `docs/results/deepfm.md` from real runs: data statistics, curves, and the AUC beside the published benchmark.

uv run scripts/write_deepfm_results.py [--ipinyou FOLDER] — FOLDER holds the campaigns 2259 and 3386 of make-ipinyou-data.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocad.catalogue import find_data
from ocad.host import Host
from ocad.pipeline import TrainResult, train
from ocad.progress import console_progress
from ocad.project import project_root
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad_registry import Registry

PAGE = Path("docs") / "results" / "deepfm.md"
SETS = {
    "simulated": "clicks_simulated",
    "bank_full": "bank_full",
    "adult": "adult",
    "movielens_small": "ml_latest_small",
}
"""Configurations and their data."""
BENCHMARKS = {"ipinyou_2259": 0.6865, "ipinyou_3386": 0.7908}
"""AUC to compare with, on the test part of the campaign."""
PLOTS = {
    "loss": "Log loss by epoch",
    "auc": "AUC by epoch",
    "roc": "ROC",
    "reliability": "Reliability",
    "distribution": "Predictions",
}
METRICS = ("auc", "average_precision", "logloss", "raw_logloss", "wll", "raw_wll", "brier", "ece", "raw_ece", "mce")


@dataclass(frozen=True)
class Finished:
    """A run and what its data was."""

    result: TrainResult
    statistics: Mapping[str, Any]

    @property
    def metrics(self) -> Mapping[str, float]:
        """The registered metrics."""
        return self.result.version.manifest.metrics


def main() -> None:
    """Trains DeepFM on every set that is here and writes the page and its plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ipinyou", type=Path, help="the folder with the campaign folders 2259 and 3386")
    parser.add_argument("--plots-of", default="simulated", help="the set whose curves are shown")
    options = parser.parse_args()
    sources = dict(SETS)
    for name in BENCHMARKS:
        campaign = options.ipinyou / name.rpartition("_")[2] if options.ipinyou else None
        if campaign and campaign.is_dir():
            sources[name] = str(campaign)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Host(), Registry(Path(folder) / "models"), console_progress())
        finished = {
            name: run(session, name, data, Path(folder))
            for name, data in sources.items()
            if find_data(data).missing() is None
        }
        plots = copy_plots(finished[options.plots_of].result.run)
        page = project_root() / PAGE
        page.write_text(describe(finished, options.plots_of, plots), encoding="utf-8")
    print(f"wrote {page}")


def run(session: Session, name: str, data: str, folder: Path) -> Finished:
    """Trains with the committed configuration `name`."""
    config = project_root() / "configs" / "deepfm" / f"{name}.yaml"
    request = TrainRequest("deepfm", data=data, config=str(config), name=f"deepfm-{name}", runs=str(folder / "runs"))
    result = train(request, session)
    return Finished(result, json.loads((result.run / "data" / "stats.json").read_text(encoding="utf-8")))


def copy_plots(run_folder: Path) -> list[Path]:
    """The plots of a run beside the page."""
    target = project_root() / PAGE.with_suffix("")
    target.mkdir(parents=True, exist_ok=True)
    found = [run_folder / "plots" / f"{name}.png" for name in PLOTS]
    return [Path(shutil.copyfile(plot, target / plot.name)) for plot in found if plot.is_file()]


def describe(finished: Mapping[str, Finished], shown: str, plots: list[Path]) -> str:
    """The page."""
    lines = [
        "# DeepFM: results",
        "",
        "Written by `scripts/write_deepfm_results.py` from runs of `configs/deepfm/*.yaml`, one seed; five seeds beside logistic",
        "regression and LightGBM stand in [benchmarks](../benchmarks.md), the protocol in [ctr_protocol.md](ctr_protocol.md).",
        "",
        "## Data",
        "",
        "| set | training, validation, test rows | clicks in training | fields | rows of the embedding table | numbers |",
        "| --- | --- | --- | --- | --- | --- |",
        *(data_row(name, run.statistics) for name, run in finished.items()),
        "",
        "## Test part",
        "",
        f"| set | {' | '.join(METRICS)} | parity | passed |",
        f"| --- |{' --- |' * (len(METRICS) + 2)}",
        *(metric_row(name, run) for name, run in finished.items()),
        "",
        "`raw_` is before calibration. Failed gates: " + (failures(finished) or "none") + ".",
        "",
        "## Against the benchmark",
        "",
        *(benchmark_line(name, auc, finished) for name, auc in BENCHMARKS.items()),
        "",
        f"## Curves: `{shown}`",
        "",
        *(f"![{PLOTS[plot.stem]}]({PAGE.stem}/{plot.name})" for plot in plots),
        "",
    ]
    truth = finished[shown].metrics.get("truth_error")
    if truth is not None:
        raw = finished[shown].metrics["raw_truth_error"]
        lines += [
            f"Mean |p - p_true| is {truth:.4f} ({raw:.4f} before calibration): the simulator knows each probability.",
            "",
        ]
    return "\n".join(lines)


def data_row(name: str, statistics: Mapping[str, Any]) -> str:
    """One row of the table of data."""
    rows = ", ".join(f"{statistics['rows'][part]:,}" for part in ("train", "validation", "test"))
    return (
        f"| `{name}` | {rows} | {statistics['click_rate']['train']:.2%} | {len(statistics['fields'])} "
        f"| {statistics['table_rows']:,} | {len(statistics['numerics'])} |"
    )


def metric_row(name: str, run: Finished) -> str:
    """One row of the table of metrics."""
    manifest = run.result.version.manifest
    parity = f"{manifest.parity.max_scaled_diff:.1e}" if manifest.parity else ""
    figures = " | ".join(f"{run.metrics[metric]:.4f}" for metric in METRICS)
    return f"| `{name}` | {figures} | {parity} | {'yes' if manifest.passed else 'no'} |"


def failures(finished: Mapping[str, Finished]) -> str:
    """The gates that said no."""
    causes = {name: run.result.version.manifest.failures() for name, run in finished.items()}
    return "; ".join(f"`{name}`: {', '.join(cause)}" for name, cause in causes.items() if cause)


def benchmark_line(name: str, benchmark: float, finished: Mapping[str, Finished]) -> str:
    """The AUC beside the published one, or that the data is not here."""
    if name not in finished:
        return (
            f"- `{name}`: published {benchmark:.4f}; the campaign is not here (`scripts/download_data.sh` fetches it)."
        )
    auc = finished[name].metrics["auc"]
    return f"- `{name}`: {auc:.4f}, published {benchmark:.4f} ({auc - benchmark:+.4f})."


if __name__ == "__main__":
    main()
