"""The forest as a detector: what it finds, the same by row as by frame, and what it says of input it cannot use."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.isolation_forest.conftest import KINDS, METRICS, Bench, make_links

from ocad.detection.features import RollingFeatures
from ocad.detection.units import ALARM
from ocad.errors import DataError, UsageError
from ocad.metrics.ranking import average_precision
from ocad.pipeline import train
from ocad.runs import TrainRequest
from ocad_isolation_forest.config import CONTAMINATIONS
from ocad_isolation_forest.detector import Growth, IsolationForestDetector
from ocad_isolation_forest.graph import FEATURES, SCORE
from ocad_isolation_forest.growing import contaminated

SCALE = 1e-5
"""The share of the scores' scale, 1, that two ways of asking the graph may differ by."""


def fresh(bench: Bench) -> IsolationForestDetector:
    model = bench.session.load(bench.result.version.ref)
    assert isinstance(model, IsolationForestDetector)
    return model


def points(detector: IsolationForestDetector, frame: pd.DataFrame) -> NDArray[np.float64]:
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    rows = zip(frame["endpoint"], times, frame[list(METRICS)].to_numpy().tolist(), strict=True)
    return np.array([detector.score_point(endpoint, time, values) for endpoint, time, values in rows])


def test_the_version_holds_a_graph_that_is_proven_and_no_pickle(bench: Bench) -> None:
    manifest = bench.result.version.manifest
    assert manifest.passed
    assert manifest.parity is not None
    assert manifest.parity.samples >= 512
    assert manifest.parity.max_scaled_diff < 1e-6
    assert {file.path for file in manifest.files if file.role in ("onnx", "estimator")} == {
        "model.onnx",
        "detector.json",
    }
    signature = manifest.signature
    assert signature is not None
    (features,), (score,) = signature.inputs, signature.outputs
    assert (features.name, features.dtype, features.shape) == ("features", "FP32", [-1, 15])
    assert (score.name, score.dtype, score.shape, score.scale) == ("score", "FP32", [-1, 1], 1.0)


def test_incidents_of_every_kind_are_found(bench: Bench) -> None:
    scores = fresh(bench).score(bench.links)
    test = bench.links.groupby("endpoint").cumcount() >= 0.6 * 2_400
    normal = scores[test & (bench.links["label"] == 0)]
    for kind in KINDS:
        found = scores[test & (bench.links["kind"] == kind)]
        assert np.median(found) > np.quantile(normal, 0.95), kind
    assert bench.result.version.manifest.metrics["average_precision"] > 0.7


def test_rows_pieces_and_frames_score_alike(bench: Bench) -> None:
    frame = bench.links.groupby("endpoint").head(500).reset_index(drop=True)
    gaps = np.where(frame.groupby("endpoint").cumcount() > 250, 600, 0)  # ten minutes of silence
    frame["timestamp"] += pd.to_timedelta(gaps, unit="s")
    whole = fresh(bench).score(frame)
    pieces = fresh(bench)
    parts = []
    for first in range(0, len(frame), 333):
        parts.append(pieces.score(frame[first : first + 333]))
        state = json.loads(json.dumps(pieces.state()))
        pieces = fresh(bench)
        pieces.restore(state)
    raw, streamed = fresh(bench).raw(frame), fresh(bench)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-9)
    np.testing.assert_allclose(points(streamed, frame), whole, rtol=0, atol=1e-3)
    streamed.forget()
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    for place, values in enumerate(frame[list(METRICS)].to_numpy().tolist()[:500]):
        assert abs(streamed.raw_point("north", times[place], values) - raw[place]) <= SCALE
        streamed.track("north")["time"] = times[place]


def test_a_link_never_seen_is_scored_and_flagged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    frame = bench.links[bench.links["endpoint"] == "north"].assign(endpoint="new")
    detector = fresh(bench)
    scores = detector.score(frame)
    assert np.isfinite(scores).all()
    assert detector.unseen == {"new"}
    assert [record.message for record in caplog.records if "`new`" in record.message]
    np.testing.assert_allclose(points(fresh(bench), frame[:50]), scores[:50], rtol=0, atol=1e-3)


def test_rows_without_any_value_are_evidence(bench: Bench) -> None:
    silent = bench.links[bench.links["endpoint"] == "south"].head(1_000).copy()
    silent.loc[silent.index[900:], list(METRICS)] = np.nan
    scores = fresh(bench).score(silent)
    assert np.isfinite(scores).all()
    assert scores[-1] > np.quantile(scores[:900], 0.999)
    assert scores[900:905].max() >= ALARM


def test_contamination_opens_the_eye_for_what_normal_rows_never_show() -> None:
    generator = np.random.default_rng(6)
    values = generator.normal(100, 5, (4_000, 1))
    features = RollingFeatures.fit(["m"], {"a": values})
    rows = features.rows("a", features.fresh(), np.zeros(4_000, bool), values).astype(np.float32)
    drawn = contaminated(rows, features, Growth(contamination=0.1))
    changed = rows != drawn
    assert changed.sum(axis=1).max() == 1
    assert changed.any(axis=1).mean() == pytest.approx(0.1, abs=0.02)
    assert drawn[:, features.names.index("m_missing")].max() == pytest.approx(1, abs=0.1)
    lossy = values.copy()
    lossy[3_000::2] = np.nan
    ranks = {}
    for share in (1e-9, 0.1):
        detector = IsolationForestDetector(["m"], Growth(contamination=share))
        detector.fit(frame_of(values))
        scores = detector.raw(frame_of(lossy))
        ranks[share] = float((scores[:3_000] < np.median(scores[3_100:])).mean())
    assert ranks[0.1] > 0.99 > ranks[1e-9]


def frame_of(values: NDArray[np.float64]) -> pd.DataFrame:
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(len(values)), unit="s")
    return pd.DataFrame({"timestamp": times, "endpoint": "a", "m": values[:, 0]})


def test_auto_takes_the_contamination_that_ranks_validation_best(bench: Bench) -> None:
    place = bench.links.groupby("endpoint").cumcount() / 2_400
    parts = [
        bench.links[(place >= low) & (place < high)].reset_index(drop=True) for low, high in ((0, 0.4), (0.4, 0.6))
    ]
    assert parts[1]["label"].nunique() == 2
    found = {}
    for share in CONTAMINATIONS:
        detector = IsolationForestDetector(METRICS, Growth(contamination=share))
        detector.fit(parts[0][parts[0]["label"] == 0])
        found[share] = average_precision(parts[1]["label"].to_numpy(), detector.raw(parts[1]))
    assert fresh(bench).growth.contamination == max(found, key=lambda share: found[share])


def test_without_labels_the_default_contamination_stands(bench: Bench) -> None:
    path = bench.folder / "unlabelled.parquet"
    make_links(rows=900).drop(columns=["label", "kind"]).to_parquet(path, index=False)
    overrides = ("metrics=[udp_echo,lbm]", "forest.n_estimators=10", "pooled=true")
    request = TrainRequest(
        "isolation_forest", "lbm", data=str(path), overrides=overrides, runs=str(bench.folder / "runs"), name="two"
    )
    detector = bench.session.load(train(request, bench.session).version.ref)
    assert isinstance(detector, IsolationForestDetector)
    assert detector.metrics == ("udp_echo", "lbm")
    assert detector.growth == Growth(10, 256, 0.1, 7)
    assert detector.calibration is not None
    assert not detector.calibration.endpoints


def test_loading_and_scoring_need_no_scikit_learn(bench: Bench) -> None:
    code = (
        "import sys, ocad, pandas as pd\n"
        f"model = ocad.load({bench.result.version.ref!r}, registry={str(bench.folder / 'models')!r})\n"
        f"model.score(pd.read_parquet({str(bench.folder / 'links.parquet')!r}))\n"
        "print(*(name for name in ('sklearn', 'torch') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_graph_can_be_asked_elsewhere(bench: Bench) -> None:
    detector, other = fresh(bench), fresh(bench)
    reference = bench.result.version.ref
    assert list(detector.graphs()) == [reference]

    class Halved:
        def predict(self, inputs: object) -> dict[str, NDArray[np.float32]]:
            return {SCORE: (other.graphs()[reference].predict(inputs)[SCORE] / 2).astype(np.float32)}  # type: ignore[arg-type]

    frame = bench.links.head(50)
    detector.use_graph(reference, Halved())
    np.testing.assert_array_equal(detector.raw(frame), 0.5 * fresh(bench).raw(frame))
    with pytest.raises(UsageError, match="the detector asks no graph of `tcn-lbm"):
        detector.use_graph("tcn-lbm@1.0.0", Halved())


def test_what_cannot_be_used_is_named(bench: Bench) -> None:
    with pytest.raises(UsageError, match="the forest is not grown: call `fit`"):
        IsolationForestDetector(METRICS).predict({FEATURES: np.zeros((1, 15), np.float32)})
    with pytest.raises(DataError, match="a single row is left to grow a forest on: give a longer series"):
        IsolationForestDetector(["m"]).fit(frame_of(np.ones((1, 1))))
    with pytest.raises(DataError, match="have no column `ecpri`"):
        fresh(bench).score(bench.links.drop(columns="ecpri"))
    with pytest.raises(DataError, match="a row has 3 values: give 4"):
        fresh(bench).score_point("north", 1, [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match=r"input `features` has shape \(2, 3\)"):
        fresh(bench).predict({FEATURES: np.zeros((2, 3), np.float32)})
