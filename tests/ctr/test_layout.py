"""`ocad train --layout poc`: the outputs once more under the known names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.ctr.conftest import SHORT, Bench

from ocad.cli.main import cli
from ocad_registry import Registry


@pytest.mark.parametrize(("plugin", "trains_by_epochs"), [("deepfm", True), ("gbdt", False)])
def test_the_known_names(
    plugin: str, trains_by_epochs: bool, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [part for override in SHORT[plugin] for part in ("--set", override)]
    command = ["train", "--plugin", plugin, "--data", str(bench.log), "--layout", "poc", "--prepare-data", *settings]
    done = CliRunner().invoke(cli, command, standalone_mode=False)
    assert done.exception is None
    assert (tmp_path / "models" / "checkpoints" / f"{plugin}_best.pth").is_file() is trains_by_epochs
    assert (tmp_path / "logs" / "training_log.csv").is_file() is trains_by_epochs
    results = tmp_path / "results"
    evaluation = json.loads((results / "offline_evaluation.json").read_text(encoding="utf-8"))
    verification = json.loads((results / "onnx_verification.json").read_text(encoding="utf-8"))
    assert evaluation["metrics"]["auc"] > 0.6
    assert evaluation["ref"] == verification["ref"] == f"{plugin}@1.0.0"
    assert verification["max_scaled_diff"] <= verification["tolerance"]
    # the checkpoints lie inside the default registry's folder, and are no model there
    assert [version.ref for version in Registry(tmp_path / "models").list()] == [f"{plugin}@1.0.0"]
    assert {"roc.png", "reliability.png"} <= {path.name for path in (results / "plots").iterdir()}
    processed = {path.name for path in (tmp_path / "data" / "processed").iterdir()}
    assert {"train_data.parquet", "val_data.parquet", "test_data.parquet"} <= processed
    assert {"preprocess.json", "vocab.json", "stats.json", "fingerprint.txt"} <= processed
