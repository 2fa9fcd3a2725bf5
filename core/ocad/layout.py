"""A run's outputs once more under the names that earlier projects know: `ocad train --layout poc`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ocad.runs import write_json

if TYPE_CHECKING:
    from ocad_registry import Version

LAYOUTS = ("run", "poc")
PROCESSED = "data/processed"
"""Where `ocad train --prepare-data` keeps prepared splits, relative to the current folder."""


def keep_prepared(run: Path, folder: Path) -> list[Path]:
    """Copies the prepared splits and statistics of `run` to `folder` and returns the files; earlier ones are replaced."""
    return [_copy(source, folder / source.name) for source in sorted((run / "data").iterdir()) if source.is_file()]


def write_poc_layout(version: Version, run: Path, folder: Path) -> list[Path]:
    """Copies what `run` and `version` have to `folder` and returns the files, those that a plugin does not make left out.

    `models/checkpoints/PLUGIN_best.pth`, `logs/training_log.csv`, `results/offline_evaluation.json` (metrics and gates),
    `results/onnx_verification.json` (parity) and `results/plots/*.png`; files of an earlier run are replaced.
    """
    manifest = version.manifest
    # a model that was trained again on all rows is the one that is served
    refitted = run / "refit" / "checkpoints" / "best.pth"
    copies = {
        refitted if refitted.is_file() else run / "checkpoints" / "best.pth": folder
        / "models"
        / "checkpoints"
        / f"{manifest.plugin.name}_best.pth",
        run / "log.csv": folder / "logs" / "training_log.csv",
        **{plot: folder / "results" / "plots" / plot.name for plot in sorted((run / "plots").glob("*.png"))},
    }
    written = [_copy(source, target) for source, target in copies.items() if source.is_file()]
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    gates = [gate.model_dump() for gate in manifest.gates]
    evaluation = {"ref": version.ref, "metrics": dict(manifest.metrics), "gates": gates, "passed": manifest.passed}
    write_json(results / "offline_evaluation.json", evaluation)
    written.append(results / "offline_evaluation.json")
    if manifest.parity:
        parity = json.loads(manifest.parity.model_dump_json())
        write_json(results / "onnx_verification.json", {"ref": version.ref, **parity})
        written.append(results / "onnx_verification.json")
    return written


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))
