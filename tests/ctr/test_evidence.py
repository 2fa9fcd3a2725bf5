"""Evidence that means what it says: what is measured again, compared, trained again on all rows, and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from tests.ctr.conftest import Bench

from ocad.catalogue import find_data
from ocad.comparison import compare_versions
from ocad.errors import DataError, UsageError
from ocad.pipeline import TrainResult
from ocad.tabular.dataset import load_clicks
from ocad.testing.clicks import write_clicks
from ocad.versions import evaluate_version


@pytest.mark.parametrize("change", ["few rows", "no such item", "other order", "a column more", "one user"])
def test_evaluate_measures_what_predict_answers(trained: TrainResult, bench: Bench, change: str) -> None:
    """Whatever the new rows are: refitting the encoder on them gave an AUC of .51 where scikit-learn had .67."""
    frame = pd.read_parquet(write_clicks(bench.folder / "later.parquet", rows=3_000))
    frames: dict[str, Callable[[], pd.DataFrame]] = {
        "few rows": lambda: frame.head(300),
        "no such item": lambda: frame.assign(item=np.where(np.arange(len(frame)) % 2, frame["item"], "new")),
        "other order": lambda: frame.sort_values("item", ascending=False),
        "a column more": lambda: frame.assign(extra="x"),
        "one user": lambda: frame[frame["user"] == frame["user"].mode()[0]],
    }
    frame = frames[change]()
    path = bench.folder / f"{change.replace(' ', '-')}.parquet"
    frame.to_parquet(path, index=False)
    measured = evaluate_version(trained.version, bench.session, str(path), None)
    model: Any = bench.session.load(trained.version.ref)
    probability = model.predict_source(find_data(str(path)))["probability"]
    assert measured.metrics["auc"] == pytest.approx(roc_auc_score(frame["label"], probability))
    assert measured.metrics["logloss"] == pytest.approx(log_loss(frame["label"], probability.astype(float)), rel=1e-5)
    assert (measured.rows.part, measured.rows.count, measured.rows.own) == ("all", len(frame), True)
    assert "all rows" in str(measured.rows)


def test_a_version_is_measured_on_its_own_test_part_again(trained: TrainResult, bench: Bench) -> None:
    measured = evaluate_version(trained.version, bench.session, None, None)
    recorded = trained.version.manifest
    assert recorded.data is not None
    assert (measured.rows.part, measured.rows.count) == ("test", recorded.data.splits["test"])
    for name in ("auc", "logloss", "ece", "ece_ratio", "prediction_mean_ratio"):
        assert measured.metrics[name] == pytest.approx(recorded.metrics[name], rel=1e-3)
    part = evaluate_version(trained.version, bench.session, None, None, "validation")
    assert part.rows.count == recorded.data.splits["validation"]
    with pytest.raises(UsageError, match="there is no part `tset`"):
        evaluate_version(trained.version, bench.session, None, None, "tset")


def test_rows_that_cannot_be_measured_are_named(trained: TrainResult, bench: Bench) -> None:
    with pytest.raises(DataError, match="no label column `label`"):
        evaluate_version(trained.version, bench.session, str(bench.write("unlabelled", label=None)), None)
    with pytest.raises(DataError, match="item"):
        evaluate_version(trained.version, bench.session, str(bench.write("without-item", item=None)), None)


def test_two_versions_are_compared_on_the_same_rows(bench: Bench) -> None:
    """Rows that neither was trained on, of the same users and items: another number of rows draws other tastes."""
    world = pd.read_parquet(write_clicks(bench.folder / "world.parquet", rows=12_000))
    log, new = bench.folder / "known.parquet", str(bench.folder / "new.parquet")
    world.head(8_000).to_parquet(log, index=False)
    world.tail(4_000).to_parquet(new, index=False)
    gbdt = bench.train("gbdt", name="compared", data=log).version
    blind = bench.train("gbdt", "features.auto=true", "features.drop=[user, item]", name="compared", data=log).version
    found = compare_versions(blind, gbdt, bench.session, new)
    assert (found.verdict, found.part, found.rows) == ("better", "all", 4_000)
    assert compare_versions(gbdt, blind, bench.session, new).verdict == "worse"
    same = compare_versions(gbdt, gbdt, bench.session, new)
    assert same.verdict == "not shown better"
    answer = found.to_json()
    assert {one["metric"] for one in answer["metrics"]} == {"auc", "logloss", "average_precision", "ece"}
    assert all(one["low"] <= one["difference"] <= one["high"] for one in answer["metrics"])
    alone = [evaluate_version(version, bench.session, new, None).metrics["auc"] for version in (blind, gbdt)]
    by_name = {one.metric: one for one in found.differences}
    assert (by_name["auc"].first, by_name["auc"].second) == pytest.approx(tuple(alone))


def test_all_rows_are_trained_on_in_the_end(bench: Bench) -> None:
    """The validation part is measured with the model that had not seen it, and learned from afterwards."""
    for plugin in ("gbdt", "logistic"):
        one, other = (bench.train(plugin, f"refit={refit}", name=f"refit-{plugin}") for refit in ("false", "true"))
        before, after = (result.version.manifest.metrics for result in (one, other))
        held_out = [name for name in before if name.startswith("val_")]
        assert held_out
        assert {name: before[name] for name in held_out} == {name: after[name] for name in held_out}
        assert before["logloss"] != after["logloss"]
        models: list[Any] = [bench.session.load(result.version.ref) for result in (one, other)]
        rows = load_clicks(one.run / "data" / "val_data.parquet")
        losses = [
            log_loss(rows.label, model.predict(model.shape.arrays(rows.ids, rows.numerics))["probability"][:, 0])
            for model in models
        ]
        assert losses[1] < losses[0]


def test_small_data_is_refitted_unless_told_otherwise(bench: Bench) -> None:
    from ocad.clicks.config import SMALL_ROWS, ClickConfig
    from ocad.clicks.training import refits

    assert refits(ClickConfig(), SMALL_ROWS)
    assert not refits(ClickConfig(), SMALL_ROWS + 1)
    assert refits(ClickConfig(refit=True), SMALL_ROWS + 1)
    assert not refits(ClickConfig(refit=False), 10)


def test_a_strong_category_does_not_stop_at_one_tree(bench: Bench) -> None:
    """The first tree ranks all there is to rank; its odds are all but equal, and the log loss says so."""
    generator = np.random.default_rng(2)
    kind = generator.integers(0, 8, 8_000)
    rate = np.asarray([0.02, 0.02, 0.05, 0.05, 0.1, 0.9, 0.97, 0.99])[kind]
    frame = pd.DataFrame(
        {"kind": [f"k{number}" for number in kind], "label": (generator.random(8_000) < rate).astype(int)}
    )
    path = bench.folder / "strong.parquet"
    frame.to_parquet(path, index=False)
    for weight in ("1", "4"):
        result = bench.train("gbdt", f"trees.positive_weight={weight}", name="strong", data=path)
        metrics = result.version.manifest.metrics
        assert result.version.manifest.passed
        assert metrics["ece"] < 0.03
        assert metrics["logloss"] < 0.25


def test_a_network_that_learned_nothing_is_not_kept(bench: Bench) -> None:
    """Where no epoch ranks better than chance the last word was the initial model: one half for every row."""
    result = bench.train(
        "logistic", "train.epochs=1", "train.learning_rate=1.0e-06", "calibration.method=identity", name="idle"
    )
    model: Any = bench.session.load(result.version.ref)
    answer = model.predict_source(find_data(str(bench.log)))["probability"]
    assert answer.nunique() > 1
    assert not result.version.manifest.passed


def test_logistic_is_trained_to_convergence_by_default(bench: Bench, tmp_path: Path) -> None:
    """With its defaults as good on training rows' kin as scikit-learn's own solution."""
    from ocad.pipeline import train
    from ocad.runs import TrainRequest

    request = TrainRequest("logistic", data=str(bench.log), name="whole", runs=str(tmp_path / "runs"))
    metrics = train(request, bench.session).version.manifest.metrics
    assert metrics["logloss"] <= bench.train("logistic", name="short").version.manifest.metrics["logloss"] + 1e-3
