"""The plugin through its hooks: from a file to forecasts, and everything that can be wrong with the input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ocad.catalogue import find_data
from ocad.errors import ConfigError, DataError, OcadError, UsageError, VerificationError
from ocad.host import Host
from ocad.pipeline import TrainResult, train
from ocad.progress import SilentProgress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad.timeseries.windows import read_windows
from ocad_registry import Registry
from ocad_tcn.files import convert, train_files, typical_windows, verify
from ocad_tcn.fitting import Material, View
from ocad_tcn.forecaster import build, load_forecaster, save_forecaster
from ocad_tcn.train import prefer_relative

SHORT = ("train.epochs=3", "network.trial_epochs=1", "network.channels=[8,8]")


def write_series(path: Path, rows: int = 2_600, metric: str = "udp_echo", **columns: Any) -> Path:
    generator = np.random.default_rng(3)
    value = np.zeros(rows)
    shock = generator.exponential(30.0, size=rows)
    for index in range(1, rows):
        value[index] = 0.7 * value[index - 1] + shock[index]
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s")
    pd.DataFrame({"timestamp": time, metric: value + 500, **columns}).to_parquet(path)
    return path


def session_in(folder: Path) -> Session:
    return Session(Host(), Registry(folder / "models"), SilentProgress())


def request_for(folder: Path, data: Path, metric: str = "udp_echo", *extra: str) -> TrainRequest:
    return TrainRequest("tcn", metric, data=str(data), overrides=(*SHORT, *extra), runs=str(folder / "runs"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    folder = tmp_path_factory.mktemp("tcn")
    return folder, train(request_for(folder, write_series(folder / "series.parquet")), session_in(folder))


def test_a_version_carries_its_evidence(trained: tuple[Path, TrainResult]) -> None:
    _, result = trained
    metrics = result.version.manifest.metrics
    names = {f"{who}{what}" for who in ("", "naive_", "ewma_", "ar10_") for what in ("mse", "mae_us")}
    names |= {"val_loss", "val_loss_below_0_1", "typical_share"}
    skills = [f"{rows}skill_vs_{rival}" for rows in ("", "typical_") for rival in ("best_baseline", "naive")]
    names |= {f"{skill}{end}" for skill in skills for end in ("", "_low", "_high")}
    assert set(metrics) == names
    best = min(metrics[f"{name}_mse"] for name in ("naive", "ewma", "ar10"))
    assert metrics["skill_vs_best_baseline"] == pytest.approx(1 - metrics["mse"] / best)
    parity = result.version.manifest.parity
    assert parity is not None
    assert parity.passed
    assert [gate.metric for gate in result.version.manifest.gates] == [
        "skill_vs_best_baseline_high",
        "typical_skill_vs_best_baseline_high",
        "typical_skill_vs_naive",
    ]
    assert {path.name for path in (result.run / "plots").iterdir()} == {"forecast.png", "loss.png", "residuals.png"}
    facts = json.loads(result.version.file("preprocess").read_text(encoding="utf-8"))
    signature = result.version.manifest.signature
    assert signature is not None
    assert (facts["unit"], facts["deviation"]) == ("µs", signature.outputs[0].scale)


def test_a_version_forecasts_windows_and_rows(trained: tuple[Path, TrainResult]) -> None:
    folder, result = trained
    model: Any = session_in(folder).load(result.version.ref)
    table = model.predict_source(find_data(str(folder / "series.parquet")))
    assert list(table.columns) == ["timestamp", "endpoint", "forecast", "actual"]
    values = pd.read_parquet(folder / "series.parquet")["udp_echo"].to_numpy()
    window: NDArray[np.float32] = values[:10].reshape(1, 10, 1).astype(np.float32)
    assert model.predict(window)["forecast"][0, 0] == pytest.approx(table["forecast"].iloc[0], rel=1e-5)
    assert table["actual"].tolist() == values[10:].tolist()
    naive = np.abs(values[10:] - values[9:-1]).mean()
    assert (table["forecast"] - table["actual"]).abs().mean() < naive


def test_training_never_ends_worse_than_it_started_on_validation(trained: tuple[Path, TrainResult]) -> None:
    _, result = trained
    rows = pd.read_csv(result.run / "log.csv")
    assert result.version.manifest.metrics["val_loss"] <= rows["val_loss"].min() + 1e-6


def test_ecpri_and_any_other_column_train_the_same(tmp_path: Path) -> None:
    data = write_series(tmp_path / "ecpri.parquet", metric="ecpri", temperature=np.sin(np.arange(2_600) / 20.0))
    for metric, suffix in (("ecpri", "mae_us"), ("temperature", "mae")):
        result = train(
            request_for(tmp_path, data, metric, "network.scaling=log", "network.view=absolute"), session_in(tmp_path)
        )
        assert suffix in result.version.manifest.metrics
        assert not (result.run / "trials").exists()


def test_windows_without_incidents_hold_no_labelled_row(tmp_path: Path) -> None:
    label = (np.arange(2_600) % 100 < 5).astype(np.int8)
    data = write_series(tmp_path / "labelled.parquet", label=label)
    labelled = set(pd.read_parquet(data).loc[label == 1, "udp_echo"])
    for incidents in (True, False):
        request = request_for(
            tmp_path, data, "udp_echo", f"windows.incidents={str(incidents).lower()}", "train.epochs=1"
        )
        result = train(request, session_in(tmp_path))
        windows = read_windows(result.run / "data" / "train.parquet")
        seen = labelled & set(np.append(windows.sequence.ravel(), windows.target))
        assert bool(seen) == incidents


def test_the_relative_view_follows_a_shift_and_the_absolute_one_does_not() -> None:
    from ocad.timeseries.windows import Windows
    from ocad_tcn.config import TcnConfig

    generator = np.random.default_rng(1)
    sequence = generator.normal(100, 10, size=(500, 10))
    part = Windows(sequence, sequence.mean(axis=1), np.zeros(500, "datetime64[us]"), np.full(500, ""))
    material = Material(TcnConfig(), part, part)
    for relative in (True, False):
        import torch

        model = build(material.architecture(View("log", relative)), material.start(relative), seed=1).double().eval()
        torch.nn.init.normal_(model.head.weight)
        window = torch.from_numpy(sequence[:5, :, None])
        with torch.no_grad():
            moved = bool(torch.allclose(model(window + 50), model(window) + 50, atol=1e-6))
        assert moved is relative


def test_one_standard_error_decides_between_views() -> None:
    generator = np.random.default_rng(2)
    errors = generator.exponential(size=4_000)
    absolute, relative = View("standard", False), View("log", True)
    assert prefer_relative({absolute: errors, relative: errors[::-1] + 0.001}) == relative
    assert prefer_relative({absolute: errors, relative: errors + 0.2}) == absolute
    assert prefer_relative({absolute: errors + 0.2, relative: errors}) == relative


@pytest.mark.parametrize(
    ("rows", "override", "message"),
    [
        (12, "seed=1", "too few rows of `udp_echo`: 12 rows leave no window of 10 + 1 in the train part: "),
        (90, "seed=1", "too few rows of `udp_echo`: 90 rows leave no window of 10 + 1 in the validation part: "),
        (2_600, "windows.validation=0.4", "bad value for `windows` in `--set`: `train` and `validation` leave no rows"),
        (
            2_600,
            "network.chanels=[8]",
            "unknown configuration key `network.chanels` in `--set`: did you mean `channels`?",
        ),
    ],
)
def test_bad_input_is_named(tmp_path: Path, rows: int, override: str, message: str) -> None:
    data = write_series(tmp_path / "series.parquet", rows)
    with pytest.raises(OcadError) as caught:
        train(request_for(tmp_path, data, "udp_echo", override), session_in(tmp_path))
    assert isinstance(caught.value, DataError | ConfigError)
    assert str(caught.value).startswith(message)


def test_ctrl_c_leaves_a_resumable_run_and_no_version(tmp_path: Path) -> None:
    data = write_series(tmp_path / "series.parquet")
    command = [sys.executable, "-m", "ocad", "train", "--plugin", "tcn", "--metric", "udp_echo", "--data", str(data)]
    command += ["--set", "train.epochs=400", "--set", "train.patience=0", "--set", "network.scaling=log"]
    command += ["--set", "network.view=absolute", "--set", "network.channels=[8]"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob("runs/*/*/checkpoints/last.pth")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    run = next(tmp_path.glob("runs/*/*"))
    assert f"ocad train --resume {run.relative_to(tmp_path)}" in errors
    assert not list(tmp_path.glob("models/tcn-udp_echo/*"))
    assert (run / "checkpoints" / "last.pth").is_file()


def test_files_convert_and_verify(trained: tuple[Path, TrainResult], tmp_path: Path) -> None:
    _, result = trained
    weights, graph = str(result.version.file("weights")), tmp_path / "model.onnx"
    assert convert(weights, graph, (1, 10, 1)) == [graph]
    assert verify(str(graph), weights)["passed"]
    with pytest.raises(UsageError) as caught:
        convert(weights, graph, (1, 12, 1))
    assert str(caught.value) == f"`{weights}` takes windows of 10, not `1,12,1`: give `1,10,1`"
    forecaster, metric = load_forecaster(Path(weights))
    assert (metric, typical_windows(forecaster, 5).shape) == ("udp_echo", (5, 10, 1))
    forecaster.linear.bias.data += 1e-3
    save_forecaster(tmp_path / "other.pth", forecaster, metric)
    with pytest.raises(VerificationError, match="of the output's scale: at most 1e-05 is allowed"):
        verify(str(graph), str(tmp_path / "other.pth"))


def test_training_for_files_writes_weights_and_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs" / "data").mkdir(parents=True)
    write_series(tmp_path / "series.parquet", 1_200)
    (tmp_path / "configs" / "data" / "udp_echo.yaml").write_text("path: series.parquet\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCAD_HOME", str(tmp_path))
    monkeypatch.delenv("OCAD_REGISTRY", raising=False)
    weights, metadata = train_files("udp_echo", 2, "v2.0.0", Path("exported/tcn"))
    assert (weights.name, metadata.name) == ("udp_echo_v2.0.0.pth", "udp_echo_v2.0.0.json")
    assert json.loads(metadata.read_text(encoding="utf-8"))["ref"] == "tcn-udp_echo@2.0.0"
    assert load_forecaster(weights)[1] == "udp_echo"
