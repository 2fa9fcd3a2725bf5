"""Ranking metrics against scikit-learn, against all pairs counted by hand, and on what cannot be ranked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from ocad.errors import DataError
from ocad.metrics.ranking import Thresholds, auc, average_precision, gauc, mixed_groups, ndcg, pr_auc


def make_rows(seed: int, rows: int = 500, levels: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores with ties, weights and groups."""
    generator = np.random.default_rng(seed)
    score = generator.integers(0, levels, rows) / levels
    label = (generator.random(rows) < 0.1 + 0.6 * score).astype(np.int8)
    return label, score, generator.random(rows) + 0.1, generator.integers(0, 30, rows)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_areas_are_those_of_scikit_learn(seed: int, weighted: bool) -> None:
    label, score, weight, _ = make_rows(seed)
    weights = weight if weighted else None
    assert auc(label, score, weights) == pytest.approx(
        reference.roc_auc_score(label, score, sample_weight=weights), abs=1e-12
    )
    assert average_precision(label, score, weights) == pytest.approx(
        reference.average_precision_score(label, score, sample_weight=weights), abs=1e-12
    )
    precision, recall, _ = reference.precision_recall_curve(label, score, sample_weight=weights)
    assert pr_auc(label, score, weights) == pytest.approx(reference.auc(recall, precision), abs=1e-12)


def test_curves_are_those_of_scikit_learn() -> None:
    label, score, _, _ = make_rows(9)
    thresholds = Thresholds.of(label, score)
    false_rate, true_rate, levels = reference.roc_curve(label, score, drop_intermediate=False)
    np.testing.assert_allclose(thresholds.false_positive_rate, false_rate[1:])
    np.testing.assert_allclose(thresholds.recall, true_rate[1:])
    np.testing.assert_allclose(thresholds.score, levels[1:])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=25))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    clicks = [score for label, score in rows if label]
    others = [score for label, score in rows if not label]
    if not clicks or not others:
        return
    wins = [(one > other) + 0.5 * (one == other) for one, other in itertools.product(clicks, others)]
    label, score = zip(*rows, strict=True)
    assert auc(label, score) == pytest.approx(np.mean(wins), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_no_metric_depends_on_the_order_of_rows(seed: int, shuffle: int) -> None:
    label, score, weight, group = make_rows(seed, rows=60, levels=6)
    order = np.random.default_rng(shuffle).permutation(60)
    for measure in (auc, pr_auc, average_precision):
        assert measure(label[order], score[order], weight[order]) == pytest.approx(measure(label, score, weight))
    for grouped in (gauc, ndcg):
        assert grouped(label[order], score[order], group[order]) == pytest.approx(grouped(label, score, group))


@pytest.mark.parametrize("names", [False, True])
def test_gauc_is_the_impression_weighted_mean_of_scikit_learns_auc(names: bool) -> None:
    label, score, _, group = make_rows(3)
    areas, impressions = [], []
    for key in np.unique(group):
        rows = group == key
        if 0 < label[rows].sum() < rows.sum():
            areas.append(reference.roc_auc_score(label[rows], score[rows]))
            impressions.append(rows.sum())
    keys = np.array([f"user {key}" for key in group], dtype=object) if names else group
    assert gauc(label, score, keys) == pytest.approx(np.average(areas, weights=impressions), abs=1e-12)
    assert mixed_groups(label, keys) == len(areas)


@pytest.mark.parametrize("k", [1, 5, 10, 1000])
def test_ndcg_is_the_mean_of_scikit_learns(k: int) -> None:
    label, score, _, group = make_rows(4)
    label[group < 5] = 0
    values = []
    for key in np.unique(group):
        rows = group == key
        if label[rows].any():
            values.append(reference.ndcg_score([label[rows]], [score[rows]], k=k))
    assert ndcg(label, score, group, k) == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([], [], "there are no rows to measure"),
        ([0, 2], [0.1, 0.2], "the label `2` is neither 0 nor 1"),
        ([0, float("nan")], [0.1, 0.2], "the label `nan` is neither 0 nor 1"),
        ([1, 1], [0.1, 0.2], "all 2 labels are positive"),
        ([0, 0], [0.1, 0.2], "all 2 labels are negative"),
        ([0, 1], [0.1], "1 values of `score` for 2 labels"),
        ([0, 1], [0.1, float("nan")], "`score` is nan in row 1"),
    ],
)
def test_rows_that_cannot_be_ranked_say_why(label: list[float], score: list[float], message: str) -> None:
    with pytest.raises(DataError) as caught:
        auc(label, score)
    assert caught.value.message == message
    assert caught.value.hint


def test_groups_that_cannot_be_ranked_say_why() -> None:
    with pytest.raises(DataError, match="no group holds both"):
        gauc([0, 1], [0.1, 0.2], [1, 2])
    with pytest.raises(DataError, match="no group holds a positive"):
        ndcg([0, 0], [0.1, 0.2], [1, 2])
    with pytest.raises(DataError, match="a row has no group"):
        gauc([0, 1], [0.1, 0.2], np.array(["a", None], dtype=object))
    with pytest.raises(DataError, match="1 values of `group` for 2 labels"):
        gauc([0, 1], [0.1, 0.2], ["a"])
