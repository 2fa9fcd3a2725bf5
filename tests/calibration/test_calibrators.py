"""Fits against scikit-learn and known truths; numpy, torch and onnxruntime agree on every calibrator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ocad.calibration.calibrators import (
    IDENTITY,
    STEEPEST,
    Calibrator,
    Isotonic,
    Linear,
    _bins,
    _blocks,
    calibrator_from_json,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    sigmoid,
)
from ocad.calibration.choice import METHODS, Fit
from ocad.errors import DataError
from ocad.export.onnx import export_onnx
from ocad.metrics.probability import ece, logloss
from ocad.metrics.ranking import auc


def make_rows(seed: int, slope: float = 1.0, shift: float = 0.0, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds, and labels whose true log-odds are slope · logit + shift."""
    generator = np.random.default_rng(seed)
    logit = generator.normal(-1.5, 1.5, rows).astype(np.float32)
    return logit, generator.random(rows) < sigmoid(slope * logit.astype(np.float64) + shift)


FITS: list[Fit] = list(METHODS.values())


def test_temperature_is_logistic_regression_without_an_intercept() -> None:
    logit, label = make_rows(1, slope=0.5)
    weight = np.random.default_rng(0).random(len(label))
    expected = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logit[:, None], label, weight)
    fitted = fit_temperature(logit, label, weight)
    assert fitted.slope == pytest.approx(expected.coef_[0, 0], rel=1e-5)
    assert (fitted.kind, fitted.shift) == ("temperature", 0.0)
    assert fitted.slope == pytest.approx(0.5, abs=0.02)


def test_platt_is_logistic_regression_on_his_targets() -> None:
    logit, label = make_rows(2, slope=1.4, shift=-2.0, rows=3000)
    low, high = 1 / ((~label).sum() + 2), (label.sum() + 1) / (label.sum() + 2)
    target = np.where(label, high, low)
    # a target of t is a positive row of weight t and a negative one of weight 1 - t
    twice, both = np.tile(logit[:, None], (2, 1)), np.repeat([1, 0], len(label))
    expected = LogisticRegression(C=np.inf, tol=1e-7, solver="newton-cholesky").fit(
        twice, both, np.concatenate([target, 1 - target])
    )
    fitted = fit_platt(logit, label)
    assert fitted.slope == pytest.approx(expected.coef_[0, 0], rel=1e-5)
    assert fitted.shift == pytest.approx(expected.intercept_[0], rel=1e-5)


def test_platt_undoes_pos_weight() -> None:
    logit, label = make_rows(3, slope=1.0, shift=-np.log(20.0), rows=200_000)
    fitted = fit_platt(logit, label)
    assert fitted.slope == pytest.approx(1.0, abs=0.05)
    assert fitted.shift == pytest.approx(-np.log(20.0), abs=0.1)


def test_isotonic_blocks_are_those_of_scikit_learn() -> None:
    logit, label = make_rows(4, slope=0.7, rows=5000)
    weight = np.random.default_rng(0).random(len(label)) + 0.5
    score, share, mass = _bins(logit.astype(np.float64), label, weight)
    assert len(score) == 50
    assert mass.sum() == pytest.approx(weight.sum())
    expected = IsotonicRegression().fit(score, share, sample_weight=mass).predict(score)
    blocks = _blocks(score, share, mass)
    np.testing.assert_allclose([value for _, value, _ in blocks], np.unique(expected))
    for centre, value, total in blocks:
        rows = expected == value
        assert centre == pytest.approx(np.average(score[rows], weights=mass[rows]))
        assert total == pytest.approx(mass[rows].sum())


def test_isotonic_finds_a_bend_that_a_line_cannot() -> None:
    generator = np.random.default_rng(5)
    logit = generator.normal(0, 2, 60_000)
    truth = sigmoid(np.where(logit > 0, 2.5 * logit, 0.2 * logit))
    label = generator.random(60_000) < truth
    error = {name: np.abs(fit(logit, label, None).apply(logit) - truth).mean() for name, fit in METHODS.items()}
    assert error["isotonic"] < 0.01
    assert error["isotonic"] < 0.5 * error["platt"] < error["temperature"]


@pytest.mark.parametrize("fit", FITS)
def test_calibration_keeps_the_order_of_rows(fit: Fit) -> None:
    logit, label = make_rows(6, slope=0.6, shift=-1.0)
    fitted = fit(logit, label, None)
    within = np.ones(len(logit), bool)
    if isinstance(fitted, Isotonic):
        # what lies beyond the outermost knots is tied there
        within = (logit >= fitted.knots[0]) & (logit <= fitted.knots[-1])
    assert auc(label[within], fitted.apply(logit[within])) == pytest.approx(auc(label[within], logit[within]), abs=1e-9)
    assert auc(label, fitted.apply(logit)) == pytest.approx(auc(label, logit), abs=1e-4)
    assert (np.diff(fitted.apply(np.unique(logit[within]))) > 0).all()


@pytest.mark.parametrize("bend", [0.3, 1.0, 3.3, 8.0])
def test_isotonic_is_flat_beyond_its_end_knots(bend: float) -> None:
    """Beyond the rows that were seen no slope is known; one of 3.3 made a test log loss of .026 into .139."""
    logit, label = make_rows(13, slope=bend)
    fitted = fit_isotonic(logit, label)
    ends = fitted.apply(np.array([fitted.knots[0], fitted.knots[-1]]))
    np.testing.assert_array_equal(fitted.apply(np.array([-1e6, -50.0])), ends[[0, 0]])
    np.testing.assert_array_equal(fitted.apply(np.array([50.0, 1e6])), ends[[1, 1]])


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
@pytest.mark.parametrize("squeeze", [2.0, 8.0, 30.0])
def test_log_odds_that_were_squeezed_are_stretched_again(fit: Fit, squeeze: float) -> None:
    """A model stopped after one tree: its log-odds are right but for a factor and a shift, whatever the factor."""
    (logit, label), (new, truth) = (make_rows(seed, slope=1.0, shift=-1.0) for seed in (14, 15))
    fitted = fit((logit / squeeze).astype(np.float32), label, None)
    exact = logloss(truth, sigmoid(new.astype(np.float64) - 1.0))
    assert logloss(truth, fitted.apply((new / squeeze).astype(np.float32))) < exact + 0.002


@pytest.mark.parametrize("fit", FITS[1:])
def test_ece_is_more_than_halved_on_new_rows(fit: Fit) -> None:
    (logit, label), (new, truth) = (make_rows(seed, slope=0.8, shift=-2.5) for seed in (7, 8))
    fitted = fit(logit, label, None)
    assert ece(truth, fitted.apply(new)) < 0.5 * ece(truth, sigmoid(new.astype(np.float64)))
    assert logloss(truth, fitted.apply(new)) < logloss(truth, sigmoid(new.astype(np.float64)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 600), st.floats(1e-4, 30.0), st.floats(0.02, 0.98))
def test_any_fit_is_finite_increasing_and_never_steep(seed: int, rows: int, spread: float, rate: float) -> None:
    generator = np.random.default_rng(seed)
    logit = np.round(generator.normal(0, spread, rows), 2)
    label = generator.random(rows) < rate
    label[:2] = True, False
    grid = np.linspace(-60, 60, 1201)
    for fit in FITS:
        calibrated = fit(logit, label, None)
        probability = calibrated.apply(grid)
        assert np.isfinite(probability).all()
        assert (np.diff(probability) >= 0).all()
        # at most a quarter of the steepest slope, in probability
        assert np.diff(probability).max() <= 0.25 * STEEPEST * 0.1 * 1.001
        assert calibrator_from_json(json.loads(json.dumps(calibrated.to_json()))) == calibrated


@pytest.mark.parametrize("fit", FITS)
def test_separable_rows_do_not_run_away(fit: Fit) -> None:
    grid = np.linspace(-2, 2, 401)
    calibrated = fit(np.array([-0.2, -0.1, 0.1, 0.2]), np.array([0, 0, 1, 1]), None).apply(grid)
    assert 0 < np.diff(np.log(calibrated / (1 - calibrated))).max() <= STEEPEST * 0.01 * 1.001


def test_a_reversed_score_is_left_alone() -> None:
    logit, label = make_rows(9, slope=-1.0)
    assert fit_temperature(logit, label) is IDENTITY
    assert fit_platt(logit, label) is IDENTITY


CALIBRATORS: list[Calibrator] = [
    IDENTITY,
    fit_temperature(*make_rows(10, slope=0.4)),
    fit_platt(*make_rows(11, slope=1.3, shift=-3.0)),
    fit_isotonic(*make_rows(12, slope=0.5, shift=1.0)),
    Isotonic((0.5,), (-1.0,)),
]


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=["identity", "temperature", "platt", "isotonic", "one knot"])
def test_numpy_torch_and_onnxruntime_agree(calibrator: Calibrator, tmp_path: Path) -> None:
    logit = np.random.default_rng(0).normal(0, 5, (2000, 1)).astype(np.float32)
    module = calibrator.as_module()
    expected = calibrator.apply(logit)
    exact = calibrator.as_module().double()(torch.from_numpy(logit).double()).numpy()
    np.testing.assert_allclose(exact, expected, atol=1e-6)
    export_onnx(module, {"logit": torch.from_numpy(logit[:2])}, tmp_path, ["probability"])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for rows in (1, 7, 2000):
        (answer,) = session.run(["probability"], {"logit": logit[:rows]})
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected[:rows], atol=1e-6)


def test_stored_calibrators_that_cannot_be_read_say_why() -> None:
    with pytest.raises(DataError, match="unknown calibrator `plat`: did you mean `platt`"):
        calibrator_from_json({"kind": "plat"})
    with pytest.raises(DataError, match="lacks a parameter"):
        calibrator_from_json({"kind": "platt", "slope": 1.0})
    assert calibrator_from_json(IDENTITY.to_json()) == Linear()
