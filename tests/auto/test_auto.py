"""`auto` without labels and with them: what it chose in words, what it finds, and that it is the same however it is asked."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.auto.conftest import METRICS, Workshop, make_links, with_incidents

from ocad.detection.rule import AlarmRule
from ocad.errors import DataError, UsageError
from ocad.pipeline import TrainResult
from ocad_auto.stored import Auto
from ocad_auto.training import NO_LINK
from ocad_registry import Version

DETECTORS = ("changepoint", "rule_based", "residual", "subspace")


def loaded(workshop: Workshop, version: Version) -> Auto:
    found = workshop.session.load(version.ref)
    assert isinstance(found, Auto)
    return found


def test_without_labels_it_trains_registers_and_finds(workshop: Workshop, trained: TrainResult) -> None:
    manifest = trained.version.manifest
    assert manifest.passed, manifest.failures()
    assert manifest.metrics["choice_incidents"] > 0
    assert 0 < manifest.metrics["choice_f1"] <= 1
    auto = loaded(workshop, trained.version)
    quiet = auto.detect(make_links(600, seed=9))
    assert not quiet.alarms.any()
    auto.forget()
    frame = with_incidents(make_links(900, seed=9))
    found = auto.detect(frame)
    starts = frame.index[frame["label"].diff().eq(1)]
    assert all(found.alarms[start : start + 20].any() for start in starts)
    assert {incident.endpoint for incident in found.incidents} == {"north", "south"}


def test_it_says_in_words_what_it_chose_and_on_what(workshop: Workshop, trained: TrainResult) -> None:
    auto, told = loaded(workshop, trained.version), trained.version.manifest.description or ""
    assert told == "; ".join(auto.choice.told)
    shares = ", ".join(f"{name} {weight:.0%}" for name, weight in zip(auto.members, auto.rule.weights, strict=True))
    assert told.startswith(
        f"chosen: {shares}; alarm at {auto.rule.on:g} noise units, {auto.rule.k} of {auto.rule.n} rows"
    )
    assert "incidents put into held-out rows" in told
    assert sum(auto.rule.weights) == pytest.approx(1)


def test_every_detector_that_was_tried_is_named(workshop: Workshop, trained: TrainResult) -> None:
    for name in DETECTORS:
        assert name in (trained.version.manifest.description or "")


def test_of_one_metric_subspace_is_left_out_with_a_word(workshop: Workshop, trained: TrainResult) -> None:
    auto = loaded(workshop, trained.version)
    assert "subspace" not in auto.members
    assert "left out: subspace: it needs 3 metrics that can move together" in auto.choice.told


def test_of_three_metrics_it_is_tried(workshop: Workshop) -> None:
    frame = make_links(900, metrics=METRICS)
    settings = (f"metrics=[{','.join(METRICS)}]", "gates=[]", "choice.detectors=[subspace]")
    auto = loaded(workshop, workshop.train(frame, *settings, metric="oran").version)
    assert list(auto.members) == ["subspace"]
    assert auto.metrics == METRICS


@pytest.mark.parametrize("metrics", [("pressure",), ("pressure", "current", "flow")])
def test_what_is_no_link_is_read_by_subspace_as_it_is(workshop: Workshop, metrics: tuple[str, ...]) -> None:
    """Incidents of links say nothing of sensors."""
    frame = make_links(900, metrics=METRICS).rename(columns=dict(zip(METRICS, metrics, strict=False)))
    settings = (f"metrics=[{','.join(metrics)}]", "gates=[]")
    auto = loaded(workshop, workshop.train(frame, *settings, metric="sensors").version)
    assert list(auto.members) == ["subspace"]
    for name in ("changepoint", "rule_based", "residual"):
        assert f"left out: {name}: {NO_LINK}" in auto.choice.told


def test_where_it_finds_little_all_are_tried(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = make_links(900).rename(columns={"udp_echo": "pressure"})
    monkeypatch.setattr("ocad_auto.training.LEAST_FOUND", 1.1)
    version = workshop.train(frame, "metrics=[pressure]", "gates=[]", metric="sensors").version
    assert loaded(workshop, version).members
    assert NO_LINK not in (version.manifest.description or "")
    assert version.manifest.metrics["choice_recall"] <= 1


def test_labels_are_used_where_there_are_some(workshop: Workshop) -> None:
    frame = with_incidents(make_links())
    version = workshop.train(frame, "gates=[]").version
    held_out = frame[frame.groupby("endpoint").cumcount().between(960, 1_439)]
    expected = int((held_out.groupby("endpoint")["label"].diff() == 1).sum())
    told = version.manifest.description or ""
    assert f"on {expected} labelled incidents" in told
    assert version.manifest.metrics["choice_incidents"] == expected
    assert version.manifest.metrics["event_recall"] > 0.9
    assert version.manifest.metrics["event_precision"] > 0.9


def test_rows_pieces_and_restored_states_score_as_the_whole(workshop: Workshop, trained: TrainResult) -> None:
    frame = with_incidents(make_links(400, seed=3))
    whole = loaded(workshop, trained.version).detect(frame)
    auto = loaded(workshop, trained.version)
    moments = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    scores, alarms = [], []
    for row, (endpoint, moment, value) in enumerate(zip(frame["endpoint"], moments, frame["udp_echo"], strict=True)):
        point = auto.detect_point(endpoint, moment, [value])
        scores.append(point.score)
        alarms.append(point.alarm)
        if row % 97 == 0:
            state = json.loads(json.dumps(auto.state(), allow_nan=False))
            auto = loaded(workshop, trained.version)
            auto.restore(state)
    np.testing.assert_allclose(scores, whole.scores, rtol=1e-9, atol=1e-9)
    assert alarms == whole.alarms.tolist()


def test_the_stored_choice_is_read_again_to_the_last_digit(workshop: Workshop, trained: TrainResult) -> None:
    stored: dict[str, Any] = json.loads(trained.version.file("estimator").read_text(encoding="utf-8"))
    auto = loaded(workshop, trained.version)
    assert json.loads(json.dumps(auto.to_json(), allow_nan=False)) == stored
    assert auto.rule == AlarmRule.from_json(stored["rule"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (2, r"too few rows in data `.*`: none is left"),
        (40, r"too few rows in data `.*`: 16 normal ones are held out to choose detectors on"),
    ],
)
def test_too_few_rows_are_a_clear_error(workshop: Workshop, rows: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        workshop.train(make_links(rows))


@pytest.mark.parametrize(
    ("detectors", "message"),
    [
        ("changepoint,changepont", r"unknown plugin `changepont`"),
        ("changepoint,tcn", r"the plugin `tcn` cannot be part of another"),
        ("composite", r"the plugin `composite` cannot be part of another"),
    ],
)
def test_a_detector_that_is_not_there_or_cannot_be_part_is_named(
    workshop: Workshop, detectors: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        workshop.train(make_links(400), f"choice.detectors=[{detectors}]")


def test_a_member_whose_plugin_is_gone_is_named(
    workshop: Workshop, trained: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(iter(loaded(workshop, trained.version).members))
    monkeypatch.setenv("OCAD_DISABLE_PLUGINS", name)
    there = Workshop(workshop.folder)
    with pytest.raises(UsageError, match=rf"`auto-udp_echo@1\.0\.0` needs the plugin `{name}`, which is not installed"):
        there.session.load(trained.version.ref)
