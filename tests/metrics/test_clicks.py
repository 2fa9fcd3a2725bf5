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
from ocad.metrics.distribution import distribution_gates, distribution_metrics, preds_stats, write_preds_stats
from ocad.metrics.plots import plot_clicks

NAMES = {"auc", "pr_auc", "average_precision", "logloss", "wll", "accuracy", "brier", "ece", "mce"} | {
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
    assert all(gate.passed for gate in judge(distribution_gates(mean_error=0.01), distribution_metrics(stats)))


@pytest.mark.parametrize(
    ("probability", "passed"),
    [
        (np.linspace(0.0, 0.2, 1000), [True, True]),
        (np.full(1000, 0.1), [True, False]),
        (np.linspace(0.0, 0.2, 1000) + 0.02, [False, True]),
    ],
    ids=["sound", "constant", "shifted"],
)
def test_gates_find_what_is_wrong_with_a_distribution(probability: np.ndarray, passed: list[bool]) -> None:
    label = np.arange(1000) % 10 == 0
    gates = judge(distribution_gates(), distribution_metrics(preds_stats(probability, label)))
    assert [gate.passed for gate in gates] == passed


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
