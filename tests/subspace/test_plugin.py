"""Both methods from data to a registered version that answers as the trained one; the committed settings are readable."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from tests.subspace.conftest import METRICS, normal_frame

from ocad.config import load_config
from ocad.detection.detector import SeriesDetector
from ocad.errors import DataError
from ocad.host import Host
from ocad.pipeline import train
from ocad.progress import SilentProgress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad.testing import check_plugin
from ocad_registry import Registry
from ocad_subspace.config import SubspaceConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "subspace"


@pytest.mark.parametrize("method", ["pca", "rank"])
def test_a_registered_version_answers_as_the_trained_detector(method: str, tmp_path: Path) -> None:
    data = tmp_path / "links.parquet"
    frame = normal_frame(1_500)
    frame.to_parquet(data)
    session = Session(Host(), Registry(tmp_path / "models"), SilentProgress())
    settings = (f"method={method}", f"metrics=[{','.join(METRICS)}]")
    request = TrainRequest("subspace", "oran", data=str(data), overrides=settings, runs=str(tmp_path / "runs"))
    version = train(request, session).version
    assert version.manifest.name == "subspace-oran"
    assert version.manifest.metrics["false_alarm_rate_1pct"] < 0.05
    detector = cast("SeriesDetector", session.load(version.ref))
    assert detector.metrics == METRICS
    scores = detector.score(frame)
    assert scores.shape == (len(frame),)
    assert np.isfinite(scores).all()
    again = cast("SeriesDetector", session.load(version.ref))
    rows = zip(
        frame["endpoint"],
        frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist(),
        frame[list(METRICS)].to_numpy(np.float64).tolist(),
        strict=True,
    )
    assert np.allclose([again.score_point(*row) for row in rows], scores, rtol=1e-9, atol=1e-9)


def test_a_file_of_the_other_method_is_no_detector_of_this_one(tmp_path: Path) -> None:
    from ocad_subspace.build import build_detector
    from ocad_subspace.detector import SubspaceDetector

    detector = build_detector(SubspaceConfig(method="rank"), METRICS)
    detector.fit(normal_frame(200))
    with pytest.raises((KeyError, ValueError)):
        SubspaceDetector.from_json(detector.to_json())


def test_one_metric_is_read_by_ranks_and_several_by_components() -> None:
    from ocad_subspace.build import build_detector, read_detector

    for metrics, kind in ((METRICS[:1], "RankDetector"), (METRICS, "SubspaceDetector")):
        detector = build_detector(SubspaceConfig(), metrics)
        detector.fit(normal_frame(200))
        assert type(detector).__name__ == type(read_detector(detector.to_json())).__name__ == kind


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_committed_settings_are_read(path: Path) -> None:
    config = load_config(SubspaceConfig, path)
    assert config.method == {"nab": "rank", "default": "auto"}.get(path.stem, "pca")


def test_rows_of_too_few_columns_are_named(tmp_path: Path) -> None:
    from ocad_subspace.build import build_detector

    detector = build_detector(SubspaceConfig(), METRICS)
    with pytest.raises(DataError, match="no column `ccm`"):
        detector.fit(normal_frame(200).drop(columns="ccm"))


@pytest.mark.slow
def test_every_promise_of_the_plugin_contract_is_kept(tmp_path: Path) -> None:
    findings = check_plugin("subspace", folder=tmp_path)
    assert [finding.to_json() for finding in findings if finding.verdict == "failed"] == []
