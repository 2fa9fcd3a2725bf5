"""The graph against scikit-learn's own scores, on rows where float32 decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.ensemble._iforest import _average_path_length

from ocad.export.runtime import OnnxPredictor
from ocad_isolation_forest.graph import FEATURES, SCORE, make_graph, signature, usual_path

Rows = NDArray[np.float32]


def graph_scores(forest: Any, rows: Rows) -> NDArray[np.float64]:
    predictor = OnnxPredictor(make_graph(forest).SerializeToString(), signature(rows.shape[1]))
    scores: NDArray[np.float64] = predictor.predict({FEATURES: rows})[SCORE][:, 0].astype(np.float64)
    return scores


def normal_rows(rows: int = 4_000, columns: int = 6, seed: int = 2) -> Rows:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_estimators": 200},
        {"max_samples": 7},
        {"max_samples": 2},
        {"max_features": 0.5},
        {"n_estimators": 1, "bootstrap": True},
    ],
)
def test_scores_are_scikit_learns(options: dict[str, Any]) -> None:
    rows = normal_rows()
    forest = IsolationForest(random_state=4, **options).fit(rows)
    seen = np.concatenate([rows, 5 * normal_rows(seed=3)])
    np.testing.assert_allclose(graph_scores(forest, seen), -forest.score_samples(seen), rtol=0, atol=1e-6)


def test_rows_on_a_threshold_go_where_they_go_in_scikit_learn() -> None:
    rows = normal_rows()
    forest = IsolationForest(n_estimators=20, random_state=4).fit(rows)
    trees = [estimator.tree_ for estimator in forest.estimators_]
    splits = [
        (tree.feature[node], tree.threshold[node]) for tree in trees for node in np.flatnonzero(tree.feature >= 0)
    ]
    near = np.repeat(rows[:1], 3 * len(splits), axis=0)
    for place, (feature, threshold) in enumerate(splits):
        middle = np.float32(threshold)
        around = (np.nextafter(middle, np.float32(-9)), middle, np.nextafter(middle, np.float32(9)))
        near[3 * place : 3 * place + 3, feature] = around
    np.testing.assert_allclose(graph_scores(forest, near), -forest.score_samples(near), rtol=0, atol=1e-6)


def test_rows_that_never_differ_make_trees_of_one_leaf() -> None:
    rows = np.ones((300, 3), np.float32)
    forest = IsolationForest(n_estimators=5, random_state=4).fit(rows)
    np.testing.assert_allclose(graph_scores(forest, rows[:4]), -forest.score_samples(rows[:4]), rtol=0, atol=1e-6)


def test_the_usual_path_is_that_of_the_paper() -> None:
    sizes = [0, 1, 2, 3, 17, 256, 100_000]
    expected = [0.0, *_average_path_length(np.array(sizes[1:]))]
    assert [usual_path(size) for size in sizes] == pytest.approx(expected)
    assert usual_path(256) == pytest.approx(10.244770920116851)
