"""Differences of two models on the same rows: against closed forms, and as often right as they say."""

from __future__ import annotations

import numpy as np
import pytest

from ocad.errors import DataError
from ocad.metrics.paired import METRICS, _counts, _Resampled, compare_clicks, delong, overall


def make(seed: int, rows: int = 3_000) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the log-odds that they were drawn from."""
    generator = np.random.default_rng(seed)
    logit = generator.normal(-1, 1.5, rows)
    return generator.random(rows) < sigmoid(logit), logit


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logit)))


def test_delong_is_the_formula_by_pairs_of_rows() -> None:
    """DeLong et al. (1988) spelt out: placements of each row among those of the other class."""
    label, logit = make(1, rows=300)
    generator = np.random.default_rng(0)
    scores = [np.round(logit + generator.normal(0, spread, 300), 1) for spread in (0.5, 1.0)]
    gaps = []
    for score in scores:
        wins = (score[label][:, None] > score[~label]) + 0.5 * (score[label][:, None] == score[~label])
        gaps.append((wins.mean(axis=1), wins.mean(axis=0)))
    variance = sum(np.var(gaps[1][kind] - gaps[0][kind], ddof=1) / len(gaps[0][kind]) for kind in (0, 1))
    assert delong(label, *scores) == pytest.approx(np.sqrt(variance))


def test_resampled_metrics_are_those_of_repeated_rows() -> None:
    label, logit = make(2, rows=500)
    probability = np.round(sigmoid(logit), 2)
    counts = next(_counts(label, None, 3, 1))
    measured = _Resampled(label, probability).measure(counts)
    again = counts.astype(int)
    for name, (measure, _) in METRICS.items():
        expected = measure(np.repeat(label, again), np.repeat(probability, again), None)
        assert measured[name] == pytest.approx(expected), name


def test_a_better_and_a_worse_model_are_told_and_equal_ones_are_not() -> None:
    label, logit = make(4, rows=8_000)
    generator = np.random.default_rng(5)
    good, bad = sigmoid(logit), sigmoid(logit + generator.normal(0, 1.0, len(logit)))
    assert overall(compare_clicks(label, bad, good, seed=1)) == "better"
    assert overall(compare_clicks(label, good, bad, seed=1)) == "worse"
    same = compare_clicks(label, good, good, seed=1)
    assert {one.verdict for one in same} == {"not shown better"}
    assert {one.difference for one in same} == {0.0}
    by_name = {one.metric: one for one in compare_clicks(label, bad, good, seed=1)}
    assert by_name["auc"].low < by_name["auc"].difference < by_name["auc"].high
    assert by_name["logloss"].difference < 0
    assert by_name["auc"].method == "DeLong"


def test_calibration_alone_decides_by_log_loss() -> None:
    label, logit = make(6, rows=8_000)
    found = {one.metric: one.verdict for one in compare_clicks(label, sigmoid(logit + 1), sigmoid(logit), seed=1)}
    assert found == {
        "auc": "not shown better",
        "logloss": "better",
        "average_precision": "not shown better",
        "ece": "better",
    }


def test_equally_good_models_are_seldom_told_apart() -> None:
    """Two models with errors of one size: in some 5 % of the logs an interval misses zero, for each metric."""
    wrong = dict.fromkeys(METRICS, 0)
    for seed in range(60):
        label, logit = make(100 + seed, rows=600)
        generator = np.random.default_rng(seed)
        one, other = (sigmoid(logit + generator.normal(0, 0.7, len(logit))) for _ in range(2))
        for found in compare_clicks(label, one, other, seed=1, resamples=200):
            wrong[found.metric] += found.verdict != "not shown better"
    assert max(wrong.values()) <= 9, wrong


def test_rows_of_one_group_are_drawn_together() -> None:
    """Each row ten times over as a group is no more evidence than the row alone."""
    label, logit = make(8, rows=400)
    noise = np.random.default_rng(9).normal(0, 0.8, 400)
    pair = sigmoid(logit + noise), sigmoid(logit)
    repeated = [np.repeat(values, 10) for values in (label, *pair)]
    group = np.repeat(np.arange(400), 10)
    alone, rows, groups = (
        {one.metric: one.high - one.low for one in found}
        for found in (
            compare_clicks(label, *pair, seed=1),
            compare_clicks(*repeated, seed=1),
            compare_clicks(*repeated, seed=1, group=group),
        )
    )
    for metric in METRICS:
        assert groups[metric] == pytest.approx(alone[metric], rel=0.35), metric
    assert rows["logloss"] < 0.5 * groups["logloss"]


def test_what_cannot_be_compared_is_an_error() -> None:
    label, logit = make(10, rows=100)
    with pytest.raises(DataError, match="all 100 labels are positive"):
        compare_clicks(np.ones(100), sigmoid(logit), sigmoid(logit), seed=1)
    with pytest.raises(DataError, match="of one group"):
        compare_clicks(label, sigmoid(logit), sigmoid(logit), seed=1, group=np.zeros(100, np.int64))
