"""T² and Q against their textbook forms, the limits, the robust scale."""

from __future__ import annotations

import numpy as np
import pytest

from ocad_subspace.subspace import Scale, Subspace


@pytest.fixture
def rows() -> np.ndarray:
    generator = np.random.default_rng(1)
    factors = generator.normal(size=(2_000, 2))
    return np.asarray(factors @ generator.normal(size=(2, 5)) + 0.1 * generator.normal(size=(2_000, 5)))


def test_with_all_components_t2_is_the_mahalanobis_distance(rows: np.ndarray) -> None:
    found = Subspace.fit(rows, rows, variance=1 - 1e-9)
    difference = rows - rows.mean(axis=0)
    inverse = np.linalg.inv(np.cov(rows.T, bias=True))
    expected = np.einsum("ni,ij,nj->n", difference, inverse, difference)
    t2, q = found.statistics(rows)
    assert np.allclose(t2, expected)
    assert np.allclose(q, 0, atol=1e-9)


def test_the_index_is_the_sum_of_both_statistics_over_their_limits(rows: np.ndarray) -> None:
    found = Subspace.fit(rows[:1_500], rows[1_500:], variance=0.9)
    assert len(found.variances) == 2
    t2, q = found.statistics(rows)
    index = found.index(rows)
    assert np.allclose(np.exp(index), t2 / found.limits[0] + q / found.limits[1])
    assert [found.index_point(row) for row in rows[:20]] == pytest.approx(index[:20].tolist(), abs=1e-12)


def test_of_held_out_rows_one_in_twenty_is_above_each_limit(rows: np.ndarray) -> None:
    found = Subspace.fit(rows[:1_000], rows[1_000:], variance=0.9)
    above = found.statistics(rows[1_000:]) > found.limits[:, None]
    assert above.mean(axis=1) == pytest.approx([0.05, 0.05], abs=1e-3)


def test_q_sees_what_leaves_the_plane_and_t2_what_goes_far_within_it(rows: np.ndarray) -> None:
    found = Subspace.fit(rows, rows, variance=0.9)
    along = rows.mean(axis=0) + 50 * rows.std(axis=0) * found.loadings[0]
    across = np.linalg.svd(found.loadings)[2][-1]
    away = rows.mean(axis=0) + 5 * rows.std(axis=0) * across
    (t2_along, t2_away), (q_along, q_away) = found.statistics(np.stack([along, away]))
    assert t2_along > 100 * found.limits[0] > t2_away
    assert q_away > 100 * found.limits[1] > q_along


def test_the_scale_is_that_of_most_rows() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(100, 10, (5_000, 3))
    values[:100, 0] = 1e6
    values[:, 1] = np.round(values[:, 1], -1)
    values[:50, 2] = np.nan
    scale = Scale.fit(values)
    assert scale.center == pytest.approx([100, 100, 100], abs=1)
    assert scale.scale == pytest.approx([10, 10, 10], rel=0.25)


def test_the_scale_of_nothing_and_of_a_constant() -> None:
    scale = Scale.fit(np.stack([np.full(10, np.nan), np.full(10, 7.0)], axis=1))
    assert scale.center.tolist() == [0.0, 7.0]
    assert scale.scale.tolist() == [1.0, 1e-9]
    assert Scale.from_json(scale.to_json()).scale.tolist() == [1.0, 1e-9]
