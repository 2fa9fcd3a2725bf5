"""The search: no member without cause, the plain rule unless another is shown to be better; the rows: no incident cut."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.composite.conftest import make_links

from ocad.detection.events import EventCounts, incidents_of
from ocad.detection.labelled import Labelled, Segment, gather
from ocad.detection.rule import AlarmRule
from ocad.detection.search import LEVELS, PARTS, Found, grid, mixtures, search, steps_of, summary
from ocad_rule_based.config import RuleSettings
from ocad_rule_based.detector import RuleDetector

FOLDS = 4


def made(strengths: tuple[float, ...], false_bursts: tuple[int, ...], seed: int = 3) -> Labelled:
    """Four blocks of two links: member `j` answers incidents with `strengths[j]` units and has bursts of false alarms."""
    generator = np.random.default_rng(seed)
    segments, parts, start = [], [], 0
    for endpoint in ("x", "y"):
        for fold in range(FOLDS):
            label = np.zeros(1_000, dtype=bool)
            for first in range(100, 900, 200):
                label[first : first + 30] = True
            scores = np.abs(generator.normal(0, 1.3, (1_000, len(strengths))))
            for member, bursts in enumerate(false_bursts):
                scores[label, member] += strengths[member]
                for first in generator.choice(np.arange(40 + 20 * member, 960, 100), bursts, replace=False):
                    scores[first : first + 12, member] += 14
            part = slice(start, start + 1_000)
            segments.append(Segment(endpoint, fold, part, incidents_of(label), ~label))
            parts.append(scores)
            start = part.stop
    return Labelled(np.concatenate(parts), segments)


def plain_of(members: int) -> AlarmRule:
    return AlarmRule.plain((1.0, *(0.0,) * (members - 1)))


def run(labelled: Labelled, seed: int = 1) -> Found:
    members = labelled.scores.shape[1]
    advanced: list[int] = []
    found = search(labelled, plain_of(members), FOLDS, seed, lambda: advanced.append(1))
    assert len(advanced) == steps_of(members)
    return found


def test_a_member_with_false_alarms_does_not_raise_one() -> None:
    found = run(made((14.0, 14.0), (3, 0)))
    assert found.replaced
    assert found.rule.weights[1] > 0.2
    assert found.counts.metrics().event_precision >= 0.9
    assert found.held_out.metrics().event_precision > 0.9
    assert found.held_out.metrics().event_recall > 0.9


def test_equal_members_that_find_all_leave_the_plain_rule() -> None:
    labelled = made((14.0, 14.0, 14.0), (0, 0, 0))
    found = run(labelled)
    assert not found.replaced
    assert found.rule == plain_of(3)
    assert found.counts == found.held_out == sum(labelled.count(plain_of(3)), EventCounts())
    assert found.gain[1] <= 0


def test_two_weak_members_together_do_better_than_each() -> None:
    """Each has false bursts of its own, which the other outweighs."""
    together = run(made((12.0, 12.0), (3, 3)))
    alone = run(made((12.0,), (3,)))
    assert together.replaced
    assert min(together.rule.weights) > 0.15
    assert together.held_out.metrics().event_f1 > alone.held_out.metrics().event_f1 + 0.05


def test_the_estimate_of_luck_is_low_where_nothing_can_be_found() -> None:
    found = run(made((0.0, 0.0), (0, 0)))
    assert found.held_out.metrics().event_f1 < 0.3


def test_without_incidents_the_plain_rule_stays() -> None:
    calm = made((0.0, 0.0), (0, 0))
    normal = np.ones(1_000, dtype=bool)
    segments = [Segment(one.endpoint, one.fold, one.rows, [], normal) for one in calm.segments]
    found = run(Labelled(calm.scores, segments))
    assert (found.replaced, found.rule, found.gain) == (False, plain_of(2), (0.0, 0.0, 0.0))


def test_the_same_seed_finds_the_same_and_another_as_good() -> None:
    labelled = made((9.0, 12.0), (1, 2))
    first, again, other = run(labelled), run(labelled), run(labelled, seed=2)
    assert first == again
    assert other.counts.metrics().event_f1 == pytest.approx(first.counts.metrics().event_f1, abs=0.05)


def test_the_interval_is_around_the_mean_and_decides() -> None:
    for labelled in (made((14.0, 14.0), (3, 0)), made((9.0, 9.0), (1, 1)), made((14.0, 14.0), (0, 0))):
        found = run(labelled)
        mean, low, high = found.gain
        assert low <= mean <= high
        assert found.replaced == (low > 0)


def test_the_table_has_the_best_rules_first() -> None:
    table = run(made((9.0, 12.0), (1, 2))).table
    figures = [row["event_f1"] for row in table]
    assert figures == sorted(figures, reverse=True)
    assert len(table) == 20
    for row in table:
        assert sum(AlarmRule.from_json(row["rule"]).weights) == pytest.approx(1)


@pytest.mark.parametrize("members", [1, 2, 3, 4, 6, 7, 20])
def test_mixtures_are_quarters_that_add_up_and_have_each_alone(members: int) -> None:
    found = mixtures(members)
    assert len(set(found)) == len(found)
    assert {tuple(float(place == one) for place in range(members)) for one in range(members)} <= set(found)
    for weights in found:
        assert sum(weights) == pytest.approx(1)
        assert members > 6 or all((PARTS * weight).is_integer() for weight in weights)


def test_the_grid_never_hides_the_far_ones() -> None:
    """Whatever rule is found, what all members score at twice its level is an alarm at once."""
    for rule in grid(plain_of(3)):
        assert rule.on in LEVELS
        hold = rule.hold()
        assert hold.step(rule.combine_point([2 * rule.on] * 3))


def test_a_summary_has_the_counts_that_it_comes_from() -> None:
    told = summary(EventCounts(found=3, missed=1, right=3, wrong=2))
    assert (told["event_recall"], told["event_precision"], told["found"], told["wrong"]) == (0.75, 0.6, 3, 2)


def links() -> tuple[pd.DataFrame, RuleDetector]:
    frame = make_links(rows=3_000).sort_values(["endpoint", "timestamp"], ignore_index=True)
    detector = RuleDetector(("udp_echo",), RuleSettings())
    place = frame.groupby("endpoint").cumcount()
    normal = frame["label"] == 0
    detector.fit(frame[normal & (place < 800)])
    detector.calibrate(frame[normal & (place >= 800) & (place < 1_200)])
    return frame, detector


def test_no_block_cuts_an_incident_and_all_rows_are_there() -> None:
    frame, detector = links()
    considered = (frame.groupby("endpoint").cumcount() >= 1_200).to_numpy()
    labelled = gather([detector], frame, considered, 4)
    assert len(labelled.scores) == considered.sum()
    assert {segment.fold for segment in labelled.segments} == {0, 1, 2, 3}
    whole = [incidents_of(rows["label"].to_numpy()) for _, rows in frame[considered].groupby("endpoint")]
    assert labelled.incidents == sum(len(found) for found in whole)


def test_rules_are_searched_on_the_scores_that_they_are_deployed_on() -> None:
    """No scale of a block's own stands between: what is gathered is what `score` says of the whole frame."""
    frame, detector = links()
    considered = (frame.groupby("endpoint").cumcount() >= 1_200).to_numpy()
    labelled = gather([detector, detector], frame, considered, 3)
    detector.forget()
    expected = detector.score(frame)[considered]
    for column in labelled.scores.T:
        np.testing.assert_array_equal(column, expected)
