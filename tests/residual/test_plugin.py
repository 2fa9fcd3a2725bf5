"""The plugin through the command line: forecasters become parents, and stay what they were when an alias moves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.residual.samples import METRICS, make_rows, open_session, publish_forecaster
from tests.serving.registries import flip

from ocad.__main__ import run
from ocad_registry import Registry


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the test's own: rows of three metrics, the plugin's configurations, forecasters in the registry."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCAD_HOME", str(tmp_path))
    configs = Path(__file__).parents[2] / "configs" / "residual"
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs" / "residual").symlink_to(configs)
    make_rows().to_parquet("rows.parquet")
    for metric in METRICS:
        publish_forecaster(tmp_path / "models", f"tcn-{metric}", metric)
    return tmp_path


class CommandLine:
    """Runs `ocad` with `--json` as its own process would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def invoke(self, *arguments: str) -> tuple[int, Any]:
        """The exit code, and the value on stdout."""
        self.monkeypatch.setattr(sys, "argv", ["ocad", *arguments, "--json"])
        self.capsys.readouterr()
        code = run()
        printed = self.capsys.readouterr()
        return code, json.loads(printed.out)

    def __call__(self, *arguments: str) -> Any:
        code, value = self.invoke(*arguments)
        assert code == 0, value
        return value

    def refusal(self, *arguments: str) -> str:
        """The message of a command that must fail."""
        code, value = self.invoke(*arguments)
        assert code not in (0, 3), value
        message: str = value["error"]["message"]
        return message


@pytest.fixture
def ocad(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    monkeypatch.delenv("OCAD_REGISTRY", raising=False)
    return CommandLine(monkeypatch, capsys)


TRAIN = ("train", "--plugin", "residual", "--data", "rows.parquet")


def test_one_metric_by_its_registered_forecaster(ocad: CommandLine, home: Path) -> None:
    answer = ocad(*TRAIN, "--metric", "udp_echo")
    assert answer["name"] == "residual-udp_echo"
    assert answer["passed"]
    assert answer["metrics"]["false_alarm_rate_1pct"] <= 0.05
    shown = ocad("registry", "show", answer["ref"])
    parent = Registry(home / "models").resolve("tcn-udp_echo@1.0.0")
    assert shown["parents"] == [{"ref": parent.ref, "metadata_sha256": parent.metadata_sha256}]
    assert shown["description"] == "residuals of `tcn-udp_echo@1.0.0`"


def test_three_metrics_by_their_configuration(ocad: CommandLine, home: Path) -> None:
    publish_forecaster(home / "models", "tcn-udp_echo-oran", "udp_echo", weights=[1.0])
    answer = ocad(*TRAIN, "--metric", "oran")
    assert answer["name"] == "residual-oran"
    parents = ocad("registry", "show", answer["ref"])["parents"]
    assert [parent["ref"] for parent in parents] == [
        f"{name}@1.0.0" for name in ("tcn-udp_echo-oran", "tcn-ecpri", "tcn-lbm")
    ]
    assert list(open_session(home / "models").load(answer["ref"]).graphs()) == [p["ref"] for p in parents]  # type: ignore[union-attr]


def test_a_metric_without_a_forecaster_gets_an_autoregression(ocad: CommandLine, home: Path) -> None:
    settings = ("--set", "metrics=[udp_echo, ecpri]", "--set", "forecasters=[tcn-ecpri]")
    answer = ocad(*TRAIN, "--metric", "pair", *settings)
    shown = ocad("registry", "show", answer["ref"])
    assert shown["description"] == "residuals of `tcn-ecpri@1.0.0`, an autoregression of `udp_echo`"


def test_a_moved_alias_changes_nothing_until_it_is_trained_again(ocad: CommandLine, home: Path) -> None:
    models, frame = Registry(home / "models"), make_rows(300, seed=8)
    models.promote("tcn-udp_echo@1.0.0", "production")
    first = ocad(*TRAIN, "--metric", "udp_echo")["ref"]
    before = open_session(home / "models").load(first).score(frame)  # type: ignore[union-attr]
    publish_forecaster(home / "models", "tcn-udp_echo", "udp_echo", weights=[1.0])
    models.promote("tcn-udp_echo@1.1.0", "production")
    detector: Any = open_session(home / "models").load(first)
    assert list(detector.graphs()) == ["tcn-udp_echo@1.0.0"]
    np.testing.assert_array_equal(detector.score(frame), before)
    second: Any = open_session(home / "models").load(ocad(*TRAIN, "--metric", "udp_echo")["ref"])
    assert list(second.graphs()) == ["tcn-udp_echo@1.1.0"]
    assert not np.array_equal(second.score(frame), before)


def test_a_damaged_forecaster_is_named_by_detect(ocad: CommandLine, home: Path) -> None:
    ref = ocad(*TRAIN, "--metric", "udp_echo")["ref"]
    flip(home / "models" / "tcn-udp_echo" / "1.0.0" / "m.onnx")
    said = ocad.refusal("detect", ref, "--data", "rows.parquet")
    assert said.startswith(f"`{ref}` needs the forecaster `tcn-udp_echo@1.0.0`, which is damaged (")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("forecasters=[tcn-absent]", "there is no forecaster `tcn-absent` ("),
        ("forecasters=[tcn-lbm]", "`tcn-lbm@1.0.0` was trained on the metric `lbm`, the detector reads `udp_echo`"),
        ("forecasters=[tcn-udp_echo, tcn-udp_echo]", "a forecaster is named twice"),
        ("evidence.normal_share=1.5", "bad value for `evidence.normal_share` in `--set`"),
        ("threshold.kind=pot", "bad value for `threshold.kind`"),
    ],
)
def test_wrong_settings_register_nothing(ocad: CommandLine, home: Path, settings: str, said: str) -> None:
    assert said in ocad.refusal(*TRAIN, "--metric", "udp_echo", "--set", settings)
    assert not (home / "models" / "residual-udp_echo").exists()


def test_a_data_set_in_another_unit(ocad: CommandLine, home: Path) -> None:
    text = f"path: {home / 'rows.parquet'}\nendpoint: endpoint\ncolumns:\n  udp_echo: {{name: udp_echo, unit: ms}}\n"
    (home / "configs" / "data" / "other.yaml").write_text(text)
    said = ocad.refusal("train", "--plugin", "residual", "--data", "other", "--metric", "udp_echo")
    assert said == "the forecaster `tcn-udp_echo@1.0.0` was trained on `udp_echo` in us, not in ms"


@pytest.mark.parametrize("kind", ["none", "spot", "dspot"])
def test_registered_again_from_its_settings(ocad: CommandLine, home: Path, kind: str) -> None:
    """`ocad evaluate` prepares the same rows and measures the stored detector to the same metrics."""
    answer = ocad(*TRAIN, "--metric", "udp_echo", "--set", f"threshold.kind={kind}")
    again = ocad("evaluate", answer["ref"])
    assert again["metrics"] == pytest.approx(answer["metrics"], rel=1e-6)


@pytest.mark.slow
def test_the_committed_trace_with_a_network_trained_on_it(
    ocad: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCAD_HOME", str(Path(__file__).parents[2]))
    ocad(
        "train", "--plugin", "tcn", "--metric", "udp_echo", "--set", "train.epochs=2", "--set", "network.trial_epochs=1"
    )
    answer = ocad("train", "--plugin", "residual", "--metric", "udp_echo", "--set", "forecasters=[tcn-udp_echo]")
    assert answer["passed"]
    assert answer["metrics"]["auc"] > 0.9
    detected = ocad("detect", answer["ref"], "--data", "udp_echo")
    assert detected["rows"] == len(pd.read_parquet(Path(__file__).parents[2] / "data/udp_echo/trace.parquet"))
