"""The search: precision first, no member without cause, honest estimates; the evidence: cross-fitted, no incident cut."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.composite.conftest import make_links

from ocad.detection.calibration import Calibration
from ocad.detection.events import EventCounts, incidents_of
from ocad.detection.rule import AlarmRule
from ocad_composite.config import SearchSettings
from ocad_composite.evidence import Evidence, Segment, gather
from ocad_composite.search import Found, merit, search, steps_of
from ocad_rule_based.config import RuleSettings
from ocad_rule_based.detector import RuleDetector

RULE = AlarmRule((0.5, 0.5), (8.0, 8.0), (2.0, 2.0), agreement=1, on=2.0, instant=5.0, k=3, n=5, off=1.0, m=5)
SETTINGS = SearchSettings(candidates=150, steps=30)


def made_evidence(strengths: tuple[float, ...], false_bursts: tuple[int, ...], seed: int = 3) -> Evidence:
    """Four blocks of two links: member `j` answers incidents with `strengths[j]` and has bursts of false alarms."""
    generator = np.random.default_rng(seed)
    segments, parts, start = [], [], 0
    for endpoint in ("x", "y"):
        for fold in range(4):
            label = np.zeros(1_000, dtype=bool)
            for first in range(100, 900, 200):
                label[first : first + 30] = True
            surprises = generator.exponential(1 / np.log(10), (1_000, len(strengths)))
            for member, bursts in enumerate(false_bursts):
                surprises[label, member] += strengths[member]
                for first in generator.choice(np.arange(40, 960, 100), bursts, replace=False):
                    surprises[first : first + 12, member] += 5
            part = slice(start, start + 1_000)
            segments.append(Segment(endpoint, fold, part, incidents_of(label), ~label))
            parts.append(surprises)
            start = part.stop
    return Evidence(np.concatenate(parts), segments)


def run(evidence: Evidence, size: int, seed: int = 1) -> Found:
    rule = AlarmRule((1 / size,) * size, (8.0,) * size, (2.0,) * size, 1, 2.0, 5.0, 3, 5, 1.0, 5)
    advanced: list[int] = []
    found = search(evidence, rule, SETTINGS, seed, lambda: advanced.append(1))
    assert len(advanced) == steps_of(SETTINGS)
    return found


def test_a_member_with_false_alarms_does_not_raise_one() -> None:
    found = run(made_evidence((4.0, 4.0), (0, 3)), 2)
    assert found.counts.metrics().event_precision >= SETTINGS.precision
    assert found.held_out.metrics().event_precision > 0.9
    assert found.held_out.metrics().event_recall > 0.9


def test_equal_members_keep_weights_near_equal() -> None:
    weights = run(made_evidence((4.0, 4.0, 4.0), (0, 0, 0)), 3).rule.weights
    assert max(weights) - min(weights) < 0.25


def test_two_weak_members_together_do_better_than_each() -> None:
    together = run(made_evidence((1.1, 1.1), (2, 2)), 2).held_out.metrics()
    alone = run(made_evidence((1.1,), (2,)), 1).held_out.metrics()
    assert together.event_f1 > alone.event_f1 + 0.05


def test_the_estimate_of_luck_is_low_where_nothing_can_be_found() -> None:
    found = run(made_evidence((0.0, 0.0), (0, 0)), 2)
    assert found.held_out.metrics().event_f1 < 0.3


def test_the_same_seed_finds_the_same_and_another_as_good() -> None:
    evidence = made_evidence((3.0, 4.0), (1, 2))
    first, again, other = run(evidence, 2), run(evidence, 2), run(evidence, 2, seed=2)
    assert first == again
    assert other.counts.metrics().event_f1 == pytest.approx(first.counts.metrics().event_f1, abs=0.05)


def test_precision_comes_before_recall() -> None:
    precise = EventCounts(found=5, missed=15, right=5, wrong=0, normal=1_000)
    eager = EventCounts(found=20, missed=0, right=20, wrong=2, normal=1_000)
    sloppy = EventCounts(found=20, missed=0, right=20, wrong=20, normal=1_000)
    flooding = EventCounts(found=20, missed=0, right=20, wrong=0, normal=1_000, alarmed=200)
    order = sorted((eager, flooding, sloppy, precise), key=lambda counts: merit(counts, RULE, SETTINGS), reverse=True)
    assert order == [precise, eager, flooding, sloppy]
    lopsided = AlarmRule.from_json(RULE.to_json() | {"weights": (1.0, 0.0)})
    assert merit(precise, RULE, SETTINGS) > merit(precise, lopsided, SETTINGS)


def test_precision_that_finds_next_to_nothing_is_not_worth_it() -> None:
    timid = EventCounts(found=3, missed=17, right=3, wrong=0, normal=1_000)
    useful = EventCounts(found=14, missed=6, right=14, wrong=4, normal=1_000)
    eager = EventCounts(found=17, missed=3, right=17, wrong=17, normal=1_000)
    order = sorted((timid, eager, useful), key=lambda counts: merit(counts, RULE, SETTINGS), reverse=True)
    assert order == [useful, eager, timid]


def links() -> tuple[pd.DataFrame, RuleDetector]:
    frame = make_links(rows=3_000).sort_values(["endpoint", "timestamp"], ignore_index=True)
    detector = RuleDetector(("udp_echo",), RuleSettings())
    place = frame.groupby("endpoint").cumcount()
    detector.fit(frame[(place < 1_200) & (frame["label"] == 0)])
    return frame, detector


def test_no_block_cuts_an_incident_and_all_rows_are_there() -> None:
    frame, detector = links()
    considered = (frame.groupby("endpoint").cumcount() >= 1_200).to_numpy()
    evidence = gather([detector], frame, considered, 4)
    assert len(evidence.surprises) == considered.sum()
    assert {segment.fold for segment in evidence.segments} == {0, 1, 2, 3}
    whole = [incidents_of(rows["label"].to_numpy()) for _, rows in frame[considered].groupby("endpoint")]
    assert evidence.incidents == sum(len(found) for found in whole)


def test_no_row_is_calibrated_on_itself() -> None:
    """The highest normal rows of a block would never be above what its own calibration has seen."""
    frame, detector = links()
    considered = (frame.groupby("endpoint").cumcount() >= 1_200).to_numpy()
    evidence = gather([detector], frame, considered, 3)
    label = frame["label"].to_numpy() == 1
    detector.forget()
    raw = detector.raw(frame)[considered]
    detector.forget()
    calm = np.zeros(len(frame))
    calm[considered & ~label] = detector.raw(frame[considered & ~label])
    calm = calm[considered]
    for fold in range(3):
        others: dict[str, list[np.ndarray]] = {}
        for segment in evidence.segments:
            if segment.fold != fold:
                others.setdefault(segment.endpoint, []).append(calm[segment.rows][segment.normal])
        calibration = Calibration.fit({name: np.concatenate(parts) for name, parts in others.items()})
        for segment in evidence.segments:
            if segment.fold == fold:
                expected = calibration.surprise(segment.endpoint, raw[segment.rows])
                np.testing.assert_allclose(evidence.surprises[segment.rows, 0], expected, atol=1e-12)
