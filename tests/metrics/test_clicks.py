"""The metrics under their names, what they are worth in money, the predicted distribution, and the plots."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ocad.errors import DataError
from ocad.gates import judge
from ocad.metrics.business import business_metrics, ctr, ecpm, revenue, roas
from ocad.metrics.clicks import click_metrics
from ocad.metrics.distribution import (
    calibration_metrics,
    distribution_gates,
    distribution_metrics,
    preds_stats,
    write_preds_stats,
)
from ocad.metrics.plots import plot_clicks

NAMES = {"auc", "pr_auc", "average_precision", "logloss", "wll", "accuracy", "brier", "ece", "mce"} | {
    "normalized_entropy",
    "ece_mass",
    "mce_mass",
}


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    probability = generator.beta(1, 9, 4000)
    return (generator.random(4000) < probability).astype(np.float32), probability


def test_names_and_prefixes(rows: tuple[np.ndarray, np.ndarray]) -> None:
    label, probability = rows
    group = np.arange(4000) % 50
    plain = click_metrics(label, probability)
    assert set(plain) == NAMES
    both = click_metrics(label, probability, probability**2, group=group, prefix="val_")
    names = NAMES | {"gauc", "ndcg_at_10"}
    assert set(both) == {f"val_{name}" for name in names} | {f"val_raw_{name}" for name in names}
    assert all(math.isfinite(value) for value in both.values())
    # squaring keeps the order and breaks the calibration
    assert both["val_raw_auc"] == both["val_auc"] == plain["auc"]
    assert both["val_raw_ece"] > 2 * both["val_ece"]


def test_groups_of_one_class_leave_grouped_metrics_out(rows: tuple[np.ndarray, np.ndarray]) -> None:
    label, probability = rows
    assert set(click_metrics(label, probability, group=np.arange(4000))) == NAMES


def test_one_class_only_is_an_error(rows: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(DataError, match="all 4000 labels are negative"):
        click_metrics(np.zeros(4000), rows[1])


def test_money_by_hand() -> None:
    label, price = [1, 0, 0, 1], [2.0, 1.0, 1.0, 4.0]
    assert ctr(label) == 0.5
    assert revenue(label, 6.0) == 12.0
    assert roas(label, price, 6.0) == 1.5
    assert ecpm(label, 6.0) == 3000.0
    # bids 6 p = 3.0, 0.6, 1.2, 3.6 win the first and the third impression
    assert business_metrics(label, [0.5, 0.1, 0.2, 0.6], price, 6.0) == {
        "ctr": 0.5,
        "revenue": 12.0,
        "roas": 1.5,
        "ecpm": 3000.0,
        "bid_share": 0.5,
        "bid_ctr": 0.5,
        "bid_revenue": 6.0,
        "bid_roas": 2.0,
        "bid_ecpm": 3000.0,
    }


def test_without_a_value_a_click_is_worth_its_cost() -> None:
    measured = business_metrics([1, 0, 0, 1], [0.9, 0.0, 0.0, 0.9], [2.0, 1.0, 1.0, 4.0])
    assert measured["roas"] == 1.0
    assert measured["bid_share"] == 0.25
    assert measured["bid_roas"] == 2.0
    assert "bid_roas" not in business_metrics([1, 0], [0.0, 0.0], [1.0, 1.0])


def test_prices_of_nothing_are_an_error() -> None:
    with pytest.raises(DataError, match="the prices sum to nothing"):
        roas([1, 0], [0.0, 0.0], 1.0)


def test_prediction_statistics_and_their_gates(rows: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    label, probability = rows
    stats = preds_stats(probability, label)
    assert stats["mean"] == probability.mean()
    assert stats["std"] == probability.std()
    assert stats["quantiles"]["0.5"] == np.median(probability)
    assert json.loads(write_preds_stats(tmp_path / "a" / "preds_stats.json", stats).read_text()) == stats


def judged(label: np.ndarray, probability: np.ndarray, calibrated_on: float = math.inf) -> dict[str, bool]:
    """Which of the default gates pass, by the word that their metric begins with."""
    metrics = click_metrics(label, probability) | distribution_metrics(preds_stats(probability, label))
    metrics |= calibration_metrics(probability, label, calibrated_on)
    return {gate.metric: gate.passed for gate in judge(distribution_gates(), metrics)}


MEAN, SPREAD, LOSS, ECE = (gate.metric for gate in distribution_gates())


@pytest.mark.parametrize(
    ("bend", "failing"),
    [
        (lambda truth: truth, set()),
        (lambda truth: np.full_like(truth, truth.mean()), {SPREAD, LOSS}),
        (lambda truth: truth + 0.05, {MEAN, ECE}),
        # one tree: every probability drawn to .25, where a tenth and less is true
        (lambda truth: 0.25 + 0.02 * truth, {MEAN, ECE, LOSS, SPREAD}),
        # as certain as four models at once
        (lambda truth: 1 / (1 + ((1 - truth) / truth) ** 4), {MEAN, ECE, LOSS, SPREAD}),
        # the right mean of the wrong rows
        (lambda truth: truth[::-1], {ECE, LOSS}),
    ],
    ids=["sound", "constant", "shifted", "one tree", "overconfident", "backwards"],
)
def test_gates_find_what_is_wrong_with_a_distribution(bend: object, failing: set[str]) -> None:
    generator = np.random.default_rng(4)
    truth = np.sort(generator.beta(1, 9, 20_000))
    label = generator.random(20_000) < truth
    assert {name for name, passed in judged(label, bend(truth)).items() if not passed} == failing  # type: ignore[operator]


@pytest.mark.parametrize("rows", [300, 2_000, 40_000])
@pytest.mark.parametrize("mean", [0.01, 0.1, 0.5])
def test_sound_models_are_not_refused_by_chance(rows: int, mean: float) -> None:
    """Forty logs whose every probability is true: a fixed bound of .005 refused six of ten small ones."""
    generator = np.random.default_rng(rows)
    refused = 0
    for _ in range(40):
        truth = generator.beta(4 * mean, 4 * (1 - mean), rows)
        label = generator.random(rows) < truth
        if label.any():
            passed = judged(label, truth)
            refused += not (passed[MEAN] and passed[ECE] and passed[LOSS])
    assert refused <= 1


@pytest.mark.parametrize("rate", [0.003, 0.02, 0.3])
def test_a_mean_that_is_a_tenth_too_high_is_found_in_enough_rows(rate: float) -> None:
    """A fixed bound of .005 let pass a model that predicts six times the clicks of a log of one in a thousand."""
    generator = np.random.default_rng(1)
    rows = int(5_000 / rate)
    truth = rate * generator.uniform(0.2, 1.8, rows)
    passed = judged(generator.random(rows) < truth, 1.1 * truth)
    assert not passed[MEAN]


def test_calibration_rows_are_chance_as_well() -> None:
    """A calibrator that was fitted on few rows has their error; many test rows do not make it a fault."""
    generator = np.random.default_rng(3)
    truth = generator.beta(1, 9, 200_000)
    label = generator.random(200_000) < truth
    assert not judged(label, truth + 0.01)[MEAN]
    assert judged(label, truth + 0.01, calibrated_on=2_000)[MEAN]


def test_weights_count_as_repeated_rows_in_statistics(rows: tuple[np.ndarray, np.ndarray]) -> None:
    label, probability = rows
    weight = np.random.default_rng(0).integers(1, 4, len(label))
    repeated = preds_stats(np.repeat(probability, weight), np.repeat(label, weight))
    weighted = preds_stats(probability, label, weight)
    for name in ("base_rate", "mean", "std"):
        assert weighted[name] == pytest.approx(repeated[name])


def test_the_least_deviation_is_half_the_base_rate_for_rare_clicks() -> None:
    label = np.arange(1000) % 100 == 0
    probability = np.where(np.arange(1000) % 2 == 0, 0.005, 0.015)
    assert distribution_metrics(preds_stats(probability, label))["prediction_std_ratio"] == pytest.approx(1.0)


def test_plots_are_written(rows: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    label, probability = rows
    history = [{"epoch": e, "train_loss": 1 / e, "val_loss": 1 / e, "val_auc": 0.6} for e in (1, 2)]
    written = plot_clicks(tmp_path, label, probability, probability**2, history)
    assert [path.name for path in written] == [
        "roc.png",
        "pr.png",
        "reliability.png",
        "distribution.png",
        "loss.png",
        "auc.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert len(plot_clicks(tmp_path / "few", label, probability)) == 4
