"""Which calibrator is chosen, and that none is where none helps."""

from __future__ import annotations

import numpy as np
import pytest

from ocad.calibration.calibrators import IDENTITY, fit_platt, sigmoid
from ocad.calibration.choice import METHODS, choose_calibrator, compare_calibrators
from ocad.errors import DataError
from ocad.metrics.probability import logloss


def make_rows(truth: str, seed: int = 0, rows: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logit = generator.normal(-1, 2, rows)
    odds = {
        "exact": logit,
        "overconfident": 0.4 * logit,
        "reweighted": 1.1 * logit - 3.0,
        "bent": np.where(logit > 0, 3.0 * logit, 0.2 * logit),
    }[truth]
    return logit, generator.random(rows) < sigmoid(odds)


@pytest.mark.parametrize(
    ("truth", "kinds"),
    [
        ("exact", {"identity"}),
        # temperature scaling is Platt's without a shift: which of them is lower is up to the draw
        ("overconfident", {"temperature", "platt"}),
        ("reweighted", {"platt"}),
        ("bent", {"isotonic"}),
    ],
)
def test_the_method_that_fits_the_truth_is_chosen(truth: str, kinds: set[str]) -> None:
    logit, label = make_rows(truth)
    calibrator = choose_calibrator(logit, label, seed=3)
    assert calibrator.kind in kinds
    new_logit, new_label = make_rows(truth, seed=1)
    before = logloss(new_label, sigmoid(new_logit))
    assert logloss(new_label, calibrator.apply(new_logit)) <= before


def test_the_losses_are_of_rows_that_were_not_fitted_on() -> None:
    logit, label = make_rows("reweighted", rows=400)
    compared = compare_calibrators(logit, label, seed=3)
    assert set(compared.losses) == {"identity", *METHODS}
    assert compared.losses["identity"] == pytest.approx(logloss(label, sigmoid(logit)))
    # what is fitted and measured on the same rows looks better than it is
    assert compared.losses["platt"] > logloss(label, fit_platt(logit, label).apply(logit))
    assert compared.losses["platt"] == pytest.approx(np.mean(leave_fold_out(logit, label, seed=3)), abs=1e-12)


def leave_fold_out(logit: np.ndarray, label: np.ndarray, seed: int) -> np.ndarray:
    """Five-fold cross-validation of Platt scaling, spelt out."""
    generator = np.random.default_rng(seed)
    fold = np.empty(len(label), int)
    for kind in (True, False):
        fold[label == kind] = generator.permutation(np.arange((label == kind).sum()) % 5)
    losses = np.empty(len(label))
    for number in range(5):
        out = fold == number
        probability = fit_platt(logit[~out], label[~out]).apply(logit[out])
        losses[out] = -np.log(np.where(label[out], probability, 1 - probability))
    return losses


def test_a_gain_within_its_error_is_no_gain() -> None:
    logit, label = make_rows("exact", rows=300)
    compared = compare_calibrators(logit, label, seed=3)
    assert compared.gain <= compared.gain_error
    assert choose_calibrator(logit, label, seed=3) is IDENTITY


def test_the_seed_decides_the_folds() -> None:
    logit, label = make_rows("bent", rows=2000)
    one, again, other = (compare_calibrators(logit, label, seed=seed) for seed in (1, 1, 2))
    assert one == again != other


def test_weights_count_as_repeated_rows() -> None:
    logit, label = make_rows("reweighted", rows=2000)
    weighted = choose_calibrator(logit, label, seed=0, weight=np.full(2000, 3.0))
    assert weighted.kind == choose_calibrator(logit, label, seed=0).kind
    repeated = fit_platt(np.repeat(logit, 3), np.repeat(label, 3))
    assert fit_platt(logit, label, np.full(2000, 3.0)).slope == pytest.approx(repeated.slope, rel=1e-5)


@pytest.mark.parametrize("rows", [2, 3, 11])
def test_a_handful_of_rows_is_enough_to_decide(rows: int) -> None:
    label = np.arange(rows) == 0
    assert choose_calibrator(np.linspace(-1, 1, rows), label, seed=0).kind in {"identity", *METHODS}


def test_labels_of_one_class_cannot_be_calibrated() -> None:
    with pytest.raises(DataError, match="all 5 labels are positive"):
        choose_calibrator(np.zeros(5), np.ones(5), seed=0)
