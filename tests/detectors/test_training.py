"""From a file to a registered detector and back: the committed recording, unlabelled data, and what cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.detectors.feeding import METRICS, make_links

from ocad.catalogue import find_data
from ocad.detection.training import load
from ocad.errors import DataError, UsageError
from ocad.host import Host
from ocad.pipeline import TrainResult, train
from ocad.progress import SilentProgress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad.timeseries.frame import read_frame
from ocad.versions import evaluate_version
from ocad_registry import Registry
from ocad_rule_based.detector import RuleDetector

Train = Callable[..., TrainResult]
EVENT_METRICS = {"auc", "average_precision", "event_precision", "event_recall", "event_f1", "point_fpr"}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(Host(), Registry(tmp_path / "models"), SilentProgress())


@pytest.fixture
def trained(session: Session, tmp_path: Path) -> Train:
    """Trains a plugin on a catalogued name or on a frame."""

    def run(
        plugin: str, data: str | pd.DataFrame | None, metric: str | None = "udp_echo", *overrides: str
    ) -> TrainResult:
        if isinstance(data, pd.DataFrame):
            data.to_parquet(tmp_path / "rows.parquet", index=False)
            data = str(tmp_path / "rows.parquet")
        request = TrainRequest(plugin, metric, data, overrides=overrides, runs=str(tmp_path / "runs"))
        return train(request, session)

    return run


@pytest.mark.parametrize("plugin", ["rule_based", "changepoint"])
def test_the_committed_recording_makes_a_version_that_scores_its_rows(
    plugin: str, trained: Train, session: Session
) -> None:
    result = trained(plugin, None)
    assert result.version.ref == f"{plugin}-udp_echo@1.0.0"
    manifest = result.version.manifest
    assert set(manifest.metrics) >= EVENT_METRICS
    assert manifest.metrics["power_loss"] >= 0.9
    assert manifest.metrics["power_shift"] >= 0.25
    assert [file.role for file in manifest.files if file.path == "detector.json"] == ["estimator"]
    detector: Any = session.load(result.version.ref)
    frame = read_frame(find_data("udp_echo"), detector.metrics).data
    scores = detector.score(frame)
    assert np.isfinite(scores).all()
    assert manifest.metrics["event_recall"] > 0.5
    assert detector.unseen == set()


def test_unlabelled_data_of_four_metrics_works_and_is_evaluated_again_alike(trained: Train, session: Session) -> None:
    frame = make_links(1_000).assign(seen=1.0)
    result = trained("rule_based", frame, "oran", f"metrics=[{','.join(METRICS)}]")
    metrics = dict(result.version.manifest.metrics)
    assert result.version.name == "rule_based-oran"
    assert result.version.manifest.passed
    assert not EVENT_METRICS & set(metrics)
    assert metrics["false_alarm_rate_1pct"] < 0.03
    detector: Any = session.load(result.version.ref)
    assert detector.metrics == METRICS
    again = evaluate_version(result.version, session, None, None).metrics
    assert dict(again) == pytest.approx(metrics)


def test_labelled_rows_teach_nothing(trained: Train, session: Session) -> None:
    """Rows labelled 1 in the training and validation parts change neither the parameters nor the calibration."""
    calm = make_links(1_000, ("a",), lost=0.0)
    wild = calm.assign(label=0)
    for rows in (slice(100, 109), slice(450, 459)):
        wild.loc[rows, "label"] = 1
        wild.loc[rows, "udp_echo"] = 1e5
    labelled = session.load(trained("rule_based", wild).version.ref)
    without: Any = session.load(trained("rule_based", wild.assign(udp_echo=calm["udp_echo"])).version.ref)
    assert labelled.to_json() == without.to_json()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("frame", "metric", "message"),
    [
        (make_links(2, ("a",), lost=0.0), "udp_echo", "none is left for the train part"),
        (make_links(50).assign(label=1), "udp_echo", "the train part .* has no normal row: all 40 are labelled 1"),
        (make_links(50).assign(udp_echo=np.nan), "udp_echo", "every row is NaN"),
        (make_links(50), "udp_ecoh", "no metric `udp_ecoh`: did you mean `udp_echo`"),
    ],
)
def test_data_that_teaches_nothing_is_named(frame: pd.DataFrame, metric: str, message: str, trained: Train) -> None:
    with pytest.raises((DataError, UsageError), match=message):
        trained("rule_based", frame, metric)


def test_a_run_without_a_metric_is_refused(trained: Train) -> None:
    with pytest.raises(UsageError, match="the plugin `changepoint` needs a metric"):
        trained("changepoint", make_links(50), None)


def test_schema_drift_names_the_missing_metric(trained: Train, session: Session) -> None:
    version = trained("rule_based", make_links(300), "oran", "metrics=[udp_echo,lbm]").version
    detector: Any = session.load(version.ref)
    with pytest.raises(DataError, match="no column `lbm`"):
        detector.score(make_links(20).drop(columns="lbm"))


def test_a_file_that_is_no_detector_is_named(trained: Train, session: Session) -> None:
    """A version that another plugin made, read by this one: digests hold, the content does not fit."""
    version = trained("changepoint", make_links(300)).version
    with pytest.raises(
        DataError, match=r"`changepoint-udp_echo@1\.0\.0` does not hold a detector \(KeyError: 'rules'\)"
    ):
        load(version, RuleDetector.from_json)
