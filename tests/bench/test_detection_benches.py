"""Choices on other files never look at the file itself; detections begin where alarms begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detection_nab import QUIET_ROWS, THRESHOLDS, detections
from detection_nab import held_out as nab_held_out
from detection_results import write_section
from detection_skab import LEVELS, Counts, leave_one_out
from nab_score import NabSeries


def make_counts(hits: list[float], false_alarms: list[float]) -> Counts:
    """Three files of 100 anomalous and 100 normal rows; shares alarmed at the first level, none above."""
    levels = np.zeros((3, len(LEVELS)), np.int64)
    found = [levels.copy(), levels.copy()]
    for part, shares in zip(found, (hits, false_alarms), strict=True):
        part[:, 0] = [round(100 * share) for share in shares]
    return Counts(found[0], found[1], np.full(3, 100), np.full(3, 100))


def test_a_threshold_allows_what_the_other_files_allow() -> None:
    result, _ = leave_one_out({"only": make_counts([0.9, 0.9, 0.9], [0.1, 0.1, 0.5])})
    # for the third file the others allow the first level; for them the third forbids it
    assert (result.hits, result.false_alarms) == (90, 50)
    assert result.rate == pytest.approx(50 / 300)
    assert result.f1 == pytest.approx(2 * 90 / (90 + 50 + 300))


def test_settings_are_those_that_the_other_files_prefer() -> None:
    good_on_first = make_counts([1.0, 0.2, 0.2], [0.0, 0.0, 0.0])
    good_on_others = make_counts([0.0, 0.9, 0.9], [0.0, 0.0, 0.0])
    result, chosen = leave_one_out({"first": good_on_first, "others": good_on_others})
    # without the first file the second settings lead by 180 to 40 hits, without another one the first by 120 to 90
    assert chosen == {"first": 2, "others": 1}
    assert result.hits == 0 + 20 + 20


def test_one_incident_is_one_detection() -> None:
    scores = np.zeros(300)
    scores[[50, 52, 90]] = 5.0
    scores[90 + QUIET_ROWS + 1] = 5.0
    assert np.flatnonzero(detections(scores, 3.0)).tolist() == [50, 90 + QUIET_ROWS + 1]


def test_folds_are_scored_by_what_the_others_choose() -> None:
    labels = np.zeros(200, np.int64)
    labels[100:120] = 1
    corpus = [NabSeries.of(str(number), np.zeros(200), labels) for number in range(5)]
    by_span = {5: np.full((5, len(THRESHOLDS)), -1.0), 10: np.full((5, len(THRESHOLDS)), -1.0)}
    by_span[5][0, 3] = 1.0
    by_span[10][1:, 7] = 1.0
    score, chosen = nab_held_out(corpus, by_span)
    assert chosen == [(10, float(THRESHOLDS[7]))] * 5
    assert score == pytest.approx(100 * (3 + 5) / 10)


def test_a_section_replaces_its_own_and_no_other(tmp_path: Path) -> None:
    page = tmp_path / "detection.md"
    write_section("skab", "## SKAB\n\nfirst", page)
    write_section("nab", "## NAB", page)
    write_section("skab", "## SKAB\n\nsecond", page)
    text = page.read_text(encoding="utf-8")
    assert "first" not in text
    assert text.index("second") < text.index("## NAB")
