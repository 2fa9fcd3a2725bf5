"""Measures of probabilities against scikit-learn and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from ocad.errors import DataError
from ocad.metrics.probability import Reliability, accuracy, brier, ece, logloss, mce, normalized_entropy, wll


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    probability = generator.beta(1, 4, 2000)
    probability[:3] = 0.0, 1.0, 0.5
    label = (generator.random(2000) < probability**1.3).astype(np.float32)
    label[:2] = 1, 0
    return label, probability, generator.random(2000)


@pytest.mark.parametrize("weighted", [False, True])
def test_losses_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool) -> None:
    label, probability, weight = rows
    weights = weight if weighted else None
    assert logloss(label, probability, weights) == pytest.approx(
        reference.log_loss(label, probability, sample_weight=weights), rel=1e-12
    )
    assert brier(label, probability, weights) == pytest.approx(
        reference.brier_score_loss(label, probability, sample_weight=weights), rel=1e-12
    )
    assert accuracy(label, probability, weights) == pytest.approx(
        reference.accuracy_score(label, probability >= 0.5, sample_weight=weights), rel=1e-12
    )


def test_wll_is_the_log_loss_at_equal_class_weights(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    label, probability, _ = rows
    balanced = np.where(label == 1, 1 / label.sum(), 1 / (1 - label).sum())
    assert wll(label, probability) == pytest.approx(reference.log_loss(label, probability, sample_weight=balanced))


def test_the_best_constant_is_the_base_rate_for_log_loss_and_one_half_for_wll() -> None:
    label = np.array([1] + [0] * 9)
    constants = np.arange(0.05, 1.0, 0.05)
    best = {
        measure: constants[np.argmin([measure(label, np.full(10, value)) for value in constants])]
        for measure in (logloss, wll)
    }
    assert best == {logloss: pytest.approx(0.1), wll: pytest.approx(0.5)}
    assert normalized_entropy(label, np.full(10, 0.1)) == pytest.approx(1.0)
    assert normalized_entropy(label, np.full(10, 0.2)) > 1.0


@pytest.mark.parametrize(("mass", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_bins_are_those_of_scikit_learn(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray], mass: str, strategy: str
) -> None:
    label, probability, _ = rows
    bins = Reliability.of(label, probability, bins=15, mass="width" if mass == "width" else "mass")
    observed, predicted = calibration_curve(label, probability, n_bins=15, strategy=strategy)
    np.testing.assert_allclose(bins.observed, observed)
    np.testing.assert_allclose(bins.predicted, predicted)


def test_calibration_errors_by_hand() -> None:
    probability = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9])
    label = np.array([0, 0, 0, 1, 1, 0])
    # the lower bin predicts 0.1 where 0.25 clicked, the upper 0.9 where 0.5 did
    assert ece(label, probability, bins=2) == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.4)
    assert mce(label, probability, bins=2) == pytest.approx(0.4)
    weight = np.array([1, 1, 1, 1, 2, 2])
    assert ece(label, probability, bins=2, weight=weight) == pytest.approx(0.5 * 0.15 + 0.5 * 0.4)


def test_equal_mass_bins_keep_equal_probabilities_together() -> None:
    label = np.array([0, 1] * 500)
    assert ece(label, np.full(1000, 0.5), mass="mass") == 0.0
    generator = np.random.default_rng(0)
    share = Reliability.of(label, generator.random(1000), bins=10, mass="mass").share
    np.testing.assert_allclose(share, 0.1, atol=1e-3)


@pytest.mark.parametrize(
    ("probability", "weight", "message"),
    [
        ([0.1, 1.5], None, "a probability lies outside 0 to 1"),
        ([0.1, float("inf")], None, "`probability` is inf in row 1"),
        ([0.1, 0.2], [1, -1], "weights must be zero or more, and one above zero"),
        ([0.1, 0.2], [0, 0], "weights must be zero or more, and one above zero"),
        ([0.1, 0.2], [1], "1 values of `weight` for 2 labels"),
    ],
)
def test_unusable_values_say_why(probability: list[float], weight: list[float] | None, message: str) -> None:
    with pytest.raises(DataError) as caught:
        logloss([0, 1], probability, weight)
    assert caught.value.message == message
