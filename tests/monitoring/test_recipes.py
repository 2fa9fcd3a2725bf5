"""The scripts of well-known names, run as they are written, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ocad import recipes
from ocad.errors import ConfigError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
LINES = 25


def run(folder: Path, script: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OCAD_HOME": str(SCRIPTS.parent)}
    environment.pop("OCAD_REGISTRY", None)
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=600
    )
    assert done.returncode == 0, f"{script}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "prepare_multivariate_data.py",
        "train_isolation_forest.py",
        "test_isolation_forest.py",
        "inference_with_report.py",
        "compare_detection_performance.py",
        "optimize_ensemble_weights.py",
        "make_detection_scenarios.py",
    ],
)
def test_a_known_script_is_a_thin_call(name: str) -> None:
    assert len((SCRIPTS / name).read_text(encoding="utf-8").splitlines()) <= LINES


def test_the_recording_is_divided_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = recipes.write_multivariate() | recipes.write_scenarios()
    assert set(written) == {recipes.TRAIN_ROWS, recipes.TEST_ROWS, recipes.SCENARIOS, recipes.ANOMALIES}
    train, test = (pd.read_parquet(path) for path in (recipes.TRAIN_ROWS, recipes.TEST_ROWS))
    assert train["timestamp"].max() < test["timestamp"].min()
    assert len(test) == pytest.approx(0.4 * (len(train) + len(test)), rel=0.01)
    scenarios, near = (pd.read_csv(path, parse_dates=["timestamp"]) for path in (recipes.SCENARIOS, recipes.ANOMALIES))
    assert scenarios["timestamp"].max() < test["timestamp"].min()
    assert near["timestamp"].min() >= test["timestamp"].min()
    assert near["label"].sum() == test["label"].sum()
    assert near["label"].mean() > test["label"].mean()


def test_a_detection_config_survives_its_file_and_a_bad_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "detection_config.yaml"
    config = recipes.DetectionConfig(members=("a", "b"), weights={"a": 0.25, "b": 0.75})
    recipes.write_detection_config(config, path)
    assert recipes.read_detection_config(path) == config
    for text in ("members: 5", "thresholds: {a: 2.0}"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="cannot read"):
            recipes.read_detection_config(path)
    assert recipes.read_detection_config(tmp_path / "none.yaml") == recipes.DetectionConfig()
    assert recipes.read_detection_config(SCRIPTS.parent / recipes.DETECTION_CONFIG) == recipes.DetectionConfig()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_scripts_run_as_written(tmp_path: Path) -> None:
    """Members first, then the six scripts in the order of the documentation."""
    config = tmp_path / recipes.DETECTION_CONFIG
    recipes.write_detection_config(
        recipes.DetectionConfig(
            baseline="rule_based-oran@1.0.0",
            members=("rule_based-oran@1.0.0", "changepoint-oran@1.0.0", "isolation_forest-oran@2.0.0"),
        ),
        config,
    )
    for plugin in ("rule_based", "changepoint"):
        train = [sys.executable, "-m", "ocad", "train", "--plugin", plugin, "--metric", "oran"]
        done = subprocess.run(train, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode in (0, 3), done.stderr
    run(tmp_path, "make_detection_scenarios.py")
    assert "multivariate_train.parquet" in run(tmp_path, "prepare_multivariate_data.py")
    parts = ("--train-data", str(recipes.TRAIN_ROWS), "--test-data", str(recipes.TEST_ROWS))
    settings = ("--n-estimators", "100", "--contamination", "0.1", "--version", "v2.0.0")
    assert "isolation_forest-oran@2.0.0" in run(tmp_path, "train_isolation_forest.py", *parts, *settings)
    assert "event_f1" in run(tmp_path, "test_isolation_forest.py")
    found = run(tmp_path, "optimize_ensemble_weights.py", "--validation-data", str(recipes.SCENARIOS))
    assert "isolation_forest-oran@2.0.0" in found
    assert sum(recipes.read_detection_config(config).weights.values()) == pytest.approx(1, abs=1e-3)
    source = ("--data-source", str(recipes.ANOMALIES), "--model-path", "models", "--use-trained-models")
    assert "incidents" in run(tmp_path, "inference_with_report.py", *source)
    assert (tmp_path / "reports" / "inference_report.html").stat().st_size > 20_000
    compared = run(tmp_path, "compare_detection_performance.py", "--baseline", "rule_based", "--new", "trained_models")
    assert "event_recall" in compared
