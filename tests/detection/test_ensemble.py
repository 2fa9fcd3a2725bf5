"""The ensemble: one rule over several detectors, by frame and by row, with state, errors and bad rules."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.detection.conftest import Distance

from ocad.detection.ensemble import Ensemble, watched
from ocad.detection.hold import default_hold
from ocad.detection.rule import AlarmRule
from ocad.errors import DataError, UsageError

RULE = AlarmRule((0.6, 0.4), on=8.0, instant=16.0, k=2, n=4, off=4.0, m=3)
UNITS = {"a": "µs", "b": "µs"}


def made_frame(rows: int, seed: int, bursts: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frames = []
    for endpoint in ("x", "y"):
        values = generator.normal(400, 5, (rows, 2))
        for start in np.linspace(200, rows - 100, bursts, dtype=int):
            values[start : start + 20] += generator.normal(0, 80, (20, 2))
        times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s")
        frames.append(pd.DataFrame({"timestamp": times, "endpoint": endpoint, "a": values[:, 0], "b": values[:, 1]}))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def fitted() -> Ensemble:
    made = Ensemble({"first": Distance(("a",)), "second": Distance(("b",))}, RULE, UNITS)
    made.fit(made_frame(600, 1))
    made.calibrate(made_frame(600, 2))
    return made


@pytest.fixture
def ensemble(fitted: Ensemble) -> Ensemble:
    """One that has seen no row yet."""
    return copy.deepcopy(fitted)


def test_frame_row_by_row_and_pieces_agree(ensemble: Ensemble) -> None:
    frame = made_frame(900, 3, bursts=3)
    whole = ensemble.detect(frame)
    assert len(whole.incidents) == 6
    assert whole.counts == {
        "rows": 1800,
        "endpoints": 2,
        "alarms": int(whole.alarms.sum()),
        "incidents": 6,
        "unseen": 0,
    }

    ensemble.forget()
    assert ensemble.state() == {}
    found, scores, alarms = {}, [], []
    moments = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    for endpoint, moment, values in zip(frame["endpoint"], moments, frame[["a", "b"]].to_numpy().tolist(), strict=True):
        point = ensemble.detect_point(endpoint, moment, values)
        scores.append(point.score)
        alarms.append(point.alarm)
        if point.incident:
            found[point.incident.id] = point.incident
    np.testing.assert_allclose(scores, whole.scores, atol=1e-9)
    assert alarms == whole.alarms.tolist()
    assert {key: (item.kind, item.end_us, item.rows, item.metrics) for key, item in found.items()} == {
        item.id: (item.kind, item.end_us, item.rows, item.metrics) for item in whole.incidents
    }

    ensemble.forget()
    pieces = []
    for first in range(0, 900, 211):
        part = frame[frame.groupby("endpoint").cumcount().between(first, first + 210)]
        pieces.append(pd.Series(ensemble.detect(part).scores, part.index))
        state = json.loads(json.dumps(ensemble.state(), allow_nan=False))
        ensemble.forget()
        ensemble.restore(state)
    np.testing.assert_allclose(pd.concat(pieces).sort_index(), whole.scores, atol=1e-9)


def test_rows_of_endpoints_may_be_mixed(ensemble: Ensemble) -> None:
    frame = made_frame(500, 5, bursts=2)
    apart = ensemble.detect(frame)
    ensemble.forget()
    order = np.argsort(frame["timestamp"].to_numpy(), kind="stable")
    mixed = ensemble.detect(frame.iloc[order].reset_index(drop=True))
    np.testing.assert_allclose(mixed.scores, apart.scores[order], atol=1e-12)
    assert mixed.incidents == apart.incidents


def test_score_rises_with_each_member() -> None:
    scores = np.array([[1.0, 1.0], [1.0, 2.0], [2.0, 2.0], [2.0, 20.0], [2.0, 30.0]])
    combined = RULE.combine(scores)
    assert (np.diff(combined) > 0).all()
    assert combined[3] == pytest.approx(0.6 * 2 + 0.4 * 20)
    assert [RULE.combine_point(row) for row in scores.tolist()] == combined.tolist()


def test_a_dead_link_is_outweighed_by_no_member(ensemble: Ensemble) -> None:
    frame = made_frame(600, 6)
    frame.loc[300:304, ["a", "b"]] = np.nan
    assert ensemble.detect(frame).alarms[300:305].any()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (8.0, 16.0, 2, 4, 4.0)),
        ({"level": 4.0}, (4.0, 8.0, 2, 4, 2.0)),
        ({"of_rows": (1, 1)}, (8.0, 16.0, 1, 1, 4.0)),
        ({"instant": 10.0}, (8.0, 10.0, 2, 4, 4.0)),
        ({"instant": 3.0}, (8.0, 8.0, 2, 4, 4.0)),
    ],
)
def test_a_rule_is_made_more_or_less_sensitive(
    asked: dict[str, Any], expected: tuple[float, float, int, int, float]
) -> None:
    changed = RULE.at(**asked)
    assert (changed.on, changed.instant, changed.k, changed.n, changed.off) == expected


def test_several_rows_asked_for_of_a_rule_of_one_leave_nothing_instant() -> None:
    changed = AlarmRule.plain().at(of_rows=(2, 3))
    assert changed.instant == math.inf
    assert AlarmRule.from_json(json.loads(json.dumps(changed.to_json(), allow_nan=False))) == changed


def test_one_detector_is_an_ensemble_of_one() -> None:
    detector = Distance(("a",))
    detector.fit(made_frame(600, 1))
    detector.calibrate(made_frame(600, 2))
    frame = made_frame(900, 3, bursts=3)
    scores = detector.score(frame)
    detector.restore({})
    found = watched("distance", detector, UNITS).detect(frame)
    np.testing.assert_allclose(found.scores, scores, atol=1e-9)
    hold = default_hold()
    assert found.alarms[:900].tolist() == hold.run(scores[:900]).tolist()
    assert {name for incident in found.incidents for name in incident.detectors} == {"distance"}


def test_refused_rows_change_nothing(ensemble: Ensemble) -> None:
    frame = made_frame(50, 4)
    ensemble.detect(frame)
    state = ensemble.state()
    with pytest.raises(DataError, match=r"clock of endpoint `x` went backwards"):
        ensemble.detect(frame)
    with pytest.raises(DataError, match=r"no column `b`, which `second` reads"):
        ensemble.detect(frame.drop(columns="b"))
    with pytest.raises(DataError, match=r"a row has 1 values: give 2: a, b"):
        ensemble.detect_point("x", 0, [1.0])
    assert ensemble.state() == state


def test_unseen_endpoints_are_scored_and_flagged(ensemble: Ensemble) -> None:
    frame = made_frame(50, 4).replace({"endpoint": {"y": "new"}})
    found = ensemble.detect(frame)
    assert ensemble.unseen == {"new"}
    assert found.counts["unseen"] == 1
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": (0.6, 0.6)}, r"weights add up to 1\.2"),
        ({"weights": ()}, r"a weight for each member"),
        ({"off": 9.0}, r"off <= on <= instant"),
        ({"k": 5}, r"1 <= k <= n"),
    ],
)
def test_bad_rules_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AlarmRule.from_json(RULE.to_json() | change)


def test_rule_comes_back_from_json() -> None:
    assert AlarmRule.from_json(json.loads(json.dumps(RULE.to_json()))) == RULE
