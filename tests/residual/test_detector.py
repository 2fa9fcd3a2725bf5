"""The detector on rows of known shape: the same whole, in pieces and by row; what it finds, and what it warns of."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.residual.samples import METRICS, make_rows, open_session

from ocad.detection.training import surprises
from ocad.detection.units import ALARM
from ocad.errors import DataError
from ocad_residual.config import EvidenceSettings, ThresholdSettings
from ocad_residual.detector import ResidualDetector
from ocad_residual.forecasters import Autoregression, resolve_forecasters

Floats = NDArray[np.float64]
SPOT, DSPOT = ThresholdSettings(kind="spot"), ThresholdSettings(kind="dspot", depth=20)


def make(models: Path | None = None, metrics: tuple[str, ...] = METRICS, **settings: Any) -> ResidualDetector:
    """Fitted on one seed and calibrated on another; with `models` their forecasters, else autoregressions."""
    found = {}
    if models:
        context = open_session(models).host_context()
        references = [f"linear-{metric}" for metric in metrics]
        found = resolve_forecasters(context, references, dict.fromkeys(metrics, "µs"))
    detector = ResidualDetector(metrics, found, **settings)
    detector.fit(make_rows(metrics=metrics))
    detector.calibrate(make_rows(metrics=metrics, seed=6))
    return detector


def points(detector: ResidualDetector, frame: pd.DataFrame) -> list[float]:
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    rows = frame[list(detector.metrics)].to_numpy().tolist()
    return [
        detector.score_point(endpoint, time, row)
        for endpoint, time, row in zip(frame["endpoint"], times, rows, strict=True)
    ]


def surprise(detector: ResidualDetector, frame: pd.DataFrame) -> Floats:
    """How rare the scores of `frame` were on held-out rows, from a fresh state."""
    detector.forget()
    assert detector.calibration is not None
    return surprises(detector.calibration, frame, detector.score(frame))


KINDS: dict[str, tuple[bool, Mapping[str, Any], float]] = {
    # registered or not, settings, the tolerance on calibrated scores: onnxruntime's float32 sums depend on the batch
    "registered": (True, {}, 1e-4),
    "autoregression": (False, {}, 0.0),
    "root of sum": (False, {"evidence": EvidenceSettings(combine="root_sum")}, 0.0),
    "all values": (False, {"evidence": EvidenceSettings(normal_share=None)}, 0.0),
    "spot": (False, {"threshold": SPOT}, 0.0),
    "dspot": (True, {"threshold": DSPOT}, 1e-4),
    "dspot of an autoregression": (False, {"threshold": DSPOT}, 0.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whole_in_pieces_and_by_row_are_the_same(kind: str, models: Path) -> None:
    registered, settings, tolerance = KINDS[kind]
    detector = make(models if registered else None, **settings)
    frame = make_rows(seed=7)
    whole = detector.score(frame)
    assert np.isfinite(whole).all()
    detector.forget()
    np.testing.assert_allclose(points(detector, frame), whole, rtol=0, atol=tolerance)
    detector.forget()
    found = []
    for cut in np.array_split(np.arange(len(frame)), 7):
        found.append(detector.score(frame.iloc[cut]))
        state = json.loads(json.dumps(detector.state(), allow_nan=False))
        detector.forget()
        detector.restore(state)
    np.testing.assert_allclose(np.concatenate(found), whole, rtol=0, atol=tolerance)


def test_rows_and_pieces_may_alternate() -> None:
    detector, frame = make(), make_rows(seed=7, endpoints=["a"])
    whole = detector.score(frame)
    detector.forget()
    found = np.concatenate([detector.score(frame[:700]), points(detector, frame[700:720]), detector.score(frame[720:])])
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-9)


def test_the_stored_detector_is_the_same(models: Path) -> None:
    for detector in (make(models), make(threshold=DSPOT)):
        stored = json.loads(json.dumps(detector.to_json(), allow_nan=False))
        again = ResidualDetector.from_json(stored)
        assert again.to_json() == detector.to_json()
        for ref, predictor in detector.graphs().items():
            again.use_graph(ref, predictor)
        frame = make_rows(seed=8, endpoints=["b"])
        np.testing.assert_array_equal(again.score(frame), detector.score(frame))


def test_forecasts_in_batches_and_alone_differ_by_less_than_the_bar(models: Path) -> None:
    detector = make(models)
    forecaster = detector.references()[0]
    windows = np.random.default_rng(0).normal(300, 40, (500, forecaster.length))
    alone = [forecaster.next_value(window.tolist()) for window in windows]
    assert np.abs(forecaster.forecast(windows) - alone).max() / 40.0 < 1e-5


@pytest.mark.parametrize("registered", [True, False])
def test_normal_rows_alarm_as_rarely_as_promised(models: Path, registered: bool) -> None:
    detector, frame = make(models if registered else None), make_rows(seed=9)
    rare = surprise(detector, frame)
    assert (rare >= 2).mean() < 0.03
    assert (rare >= 4).mean() < 0.001
    detector.forget()
    assert (detector.score(frame) >= ALARM).mean() < 0.001


def disturbed(kind: str) -> tuple[pd.DataFrame, slice]:
    """A series of endpoint `a` and the rows that something happens in."""
    frame, rows = make_rows(seed=10, endpoints=["a"]), slice(800, 860)
    place = frame.columns.get_loc("ecpri")
    assert isinstance(place, int)
    if kind == "spike":
        rows = slice(800, 802)
        frame.iloc[rows, place] = frame["ecpri"].median() + 120
    elif kind == "shift":
        frame.iloc[rows, place] += 90
    elif kind == "jitter":
        frame.iloc[rows, place] += 60 * np.sign(np.random.default_rng(0).normal(size=60))
    else:
        lost = np.random.default_rng(0).random(60) < (1.0 if kind == "outage" else 0.4)
        frame.iloc[np.arange(800, 860)[lost], place] = np.nan
    return frame, rows


@pytest.mark.parametrize("kind", ["spike", "shift", "jitter", "outage", "loss"])
def test_what_happens_stands_out_for_as_long_as_it_lasts(kind: str, models: Path) -> None:
    frame, rows = disturbed(kind)
    scores = make(models).score(frame)
    elsewhere = np.delete(scores, np.arange(rows.start, rows.stop + 30))
    inside = scores[rows]
    assert inside.max() > elsewhere.max()
    assert inside.max() >= ALARM
    assert np.median(inside) > np.quantile(elsewhere, 0.99)
    assert inside[-2:].max() > np.quantile(elsewhere, 0.99)


def test_a_shift_becomes_normal_only_when_forecasters_see_it() -> None:
    frame, rows = disturbed("shift")
    blind, seeing = make(), make(evidence=EvidenceSettings(normal_share=None))
    late = slice(rows.start + 20, rows.stop)
    assert np.median(surprise(blind, frame)[late]) > 1.5
    assert np.median(surprise(seeing, frame)[late]) < 0.7


@pytest.mark.parametrize("threshold", [SPOT, DSPOT])
def test_thresholds_scale_the_score(threshold: ThresholdSettings) -> None:
    """A threshold that about 0.1 % of normal rows exceed is an alarm."""
    detector = make(threshold=threshold)
    raw = detector.raw(make_rows(3000, seed=12))
    assert (raw > ALARM).mean() < 0.01
    frame, rows = disturbed("spike")
    detector.forget()
    assert detector.raw(frame)[rows].max() > ALARM


def test_lost_rows_count_the_more_the_more_are_lost_and_are_forgotten_when_it_is_over() -> None:
    detector = make(metrics=("lbm",))
    dead, thinned = (make_rows(300, ["a"], ["lbm"], seed=7).assign(lbm=lambda rows: rows["lbm"].ffill()) for _ in "ab")
    dead.loc[100:129, "lbm"] = np.nan
    thinned.loc[np.arange(100, 160, 3), "lbm"] = np.nan
    run = detector.score(dead)
    assert (np.diff(run[101:130]) >= 0).all()
    assert run[101:104].max() >= ALARM
    detector.forget()
    scattered = detector.score(thinned)
    assert scattered[130:160].max() >= ALARM
    assert max(run[160:].max(), scattered[190:].max()) < ALARM


def test_thresholds_of_endpoints_without_a_tail_are_those_of_all() -> None:
    frame = make_rows(endpoints=["a", "short"])
    short = frame[frame["endpoint"] == "short"].index
    detector = ResidualDetector(METRICS, {}, threshold=SPOT)
    detector.fit(frame.drop(index=short[50:]))
    assert set(detector.first_thresholds) == {"a"}
    detector.calibrate(make_rows(seed=6))
    assert np.isfinite(detector.score(make_rows(seed=7, endpoints=["short"]))).all()


def test_a_gap_begins_anew() -> None:
    detector = make(metrics=("udp_echo",))
    frame = make_rows(100, ["a"], ["udp_echo"], seed=13)
    detector.score(frame)
    last = int(frame["timestamp"].iloc[-1].value // 1000)
    assert detector.score_point("a", last + 3_600_000_000, [1e6]) == 0.0


def test_an_endpoint_never_seen_is_scored_by_what_all_say(caplog: pytest.LogCaptureFixture) -> None:
    detector = make()
    with caplog.at_level(logging.WARNING, "ocad.data"):
        scores = detector.score(make_rows(seed=7, endpoints=["new"]))
    assert np.isfinite(scores).all()
    assert detector.unseen == {"new"}
    assert "endpoint `new` was never seen" in caplog.text


def test_a_metric_that_is_always_missing_then() -> None:
    detector = make()
    frame = make_rows(seed=7, endpoints=["a"]).assign(lbm=np.nan)
    scores = detector.score(frame)
    assert np.isfinite(scores).all()
    assert scores[-1] >= ALARM
    assert (scores < ALARM).mean() < 0.01, "but for the first row after a gap"


def test_another_time_step_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    detector, frame = make(), make_rows(seed=7, endpoints=["a"])
    start = frame["timestamp"].iloc[0]
    frame["timestamp"] = start + (frame["timestamp"] - start) * 60
    with caplog.at_level(logging.WARNING, "ocad.data"):
        detector.score(frame[:700])
        detector.score(frame[700:])
    said = [record.message for record in caplog.records]
    assert said == ["endpoint `a` comes every 60 s, the detector was fitted on every 1 s: train it on such rows"]


def test_a_forecaster_of_something_else_is_told(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    context = open_session(models).host_context()
    found = resolve_forecasters(context, ["linear-lbm"], {"lbm": ""})
    found["lbm"].predictor = Constant()
    with caplog.at_level(logging.WARNING, "ocad.data"):
        ResidualDetector(["lbm"], found).fit(make_rows(metrics=["lbm"]))
        found["lbm"].predictor = context.load("linear-lbm")  # type: ignore[assignment]
        ResidualDetector(["lbm"], found).fit(make_rows(metrics=["lbm"]))
    assert len(caplog.records) == 1
    assert "`linear-lbm@1.0.0` misses `lbm` by" in caplog.text
    assert "was it trained on another time step or network?" in caplog.text


class Constant:
    """Always forecasts 90,000."""

    def predict(self, inputs: Any) -> dict[str, NDArray[Any]]:
        return {"forecast": np.full((len(inputs["input"]), 1), 9e4)}


def test_an_autoregression_follows_a_level() -> None:
    detector = make(metrics=("udp_echo",))
    forecaster = detector.forecasters["udp_echo"]
    assert isinstance(forecaster, Autoregression)
    window = np.array([300.0, 310, 305, 300, 290, 295, 300, 305, 310, 305])
    assert forecaster.next_value((window + 1000).tolist()) == pytest.approx(
        forecaster.next_value(window.tolist()) + 1000
    )
    assert math.isclose(forecaster.forecast(window[None])[0], forecaster.next_value(window.tolist()))


def test_fitted_again_it_knows_nothing_of_before() -> None:
    detector, other = (
        make(metrics=("lbm",)),
        make_rows(metrics=["lbm"], seed=20).assign(lbm=lambda rows: rows["lbm"].rolling(5, min_periods=1).mean()),
    )
    fresh = ResidualDetector(["lbm"], {})
    for each in (detector, fresh):
        each.fit(other)
    assert detector.to_json() == fresh.to_json()


def test_too_few_rows_for_an_autoregression() -> None:
    with pytest.raises(
        DataError, match=r"5 unbroken windows of `lbm` are too few for an autoregression: give a longer"
    ):
        ResidualDetector(["lbm"], {}).fit(make_rows(20, ["a"], ["lbm"], seed=3)[:15].assign(lbm=np.arange(15.0)))
