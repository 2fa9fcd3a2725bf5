"""The three plugins from a log to a registered, calibrated graph, and what a registered version answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from tests.ctr.conftest import Bench

from ocad.calibration.calibrators import calibrator_from_json, sigmoid
from ocad.errors import DataError, UsageError
from ocad.export.parity import load_samples
from ocad.pipeline import TrainResult
from ocad.tabular.dataset import load_clicks
from ocad.versions import evaluate_version, predict_file, verify_version


def test_a_version_carries_its_proof(trained: TrainResult, bench: Bench) -> None:
    manifest = trained.version.manifest
    assert manifest.task == "ctr"
    assert manifest.parity
    assert manifest.parity.passed
    assert manifest.parity.samples >= 512
    assert {gate.metric for gate in manifest.gates} == {
        "prediction_mean_ratio",
        "prediction_std_ratio",
        "normalized_entropy",
        "ece_ratio",
    }
    assert {"auc", "val_auc", "raw_auc", "logloss", "raw_logloss", "wll", "ece", "mce", "brier"} <= set(
        manifest.metrics
    )
    assert manifest.metrics["auc"] > 0.6
    assert manifest.metrics["auc"] == pytest.approx(manifest.metrics["raw_auc"], abs=0.01)
    assert {"onnx", "preprocess"} <= {file.role for file in manifest.files}
    stats = json.loads((trained.run / "preds_stats.json").read_text(encoding="utf-8"))
    assert abs(stats["mean"] - stats["base_rate"]) == manifest.metrics["prediction_mean_error"]
    assert {"roc.png", "pr.png", "reliability.png", "distribution.png"} <= {
        path.name for path in (trained.run / "plots").iterdir()
    }
    assert verify_version(trained.version).parity.passed  # type: ignore[union-attr]
    again = evaluate_version(trained.version, bench.session, None, None).metrics
    assert again["raw_logloss"] == pytest.approx(manifest.metrics["raw_logloss"], abs=1e-6)


def test_the_served_number_is_the_calibrated_one(trained: TrainResult, bench: Bench) -> None:
    """The graph's probability is the calibrator's answer to its own log-odds, on validation rows and one at a time."""
    calibration = json.loads((trained.run / "calibration.json").read_text(encoding="utf-8"))
    calibrator = calibrator_from_json(calibration["calibrator"])
    model: Any = bench.session.load(trained.version.ref)
    rows = load_clicks(trained.run / "data" / "test_data.parquet")
    inputs = model.shape.arrays(rows.ids[:500], rows.numerics[:500])
    probability = model.predict(inputs)["probability"][:, 0]
    np.testing.assert_allclose(probability, calibrator.apply(model.logit(inputs)), atol=2e-6)
    one = model.predict({name: array[:1] for name, array in inputs.items()})["probability"]
    np.testing.assert_allclose(one, probability[:1, None], atol=1e-6)
    forced = bench.train(
        trained.version.manifest.plugin.name, "calibration.method=isotonic", name=f"{trained.version.name}-iso"
    )
    isotonic: Any = bench.session.load(forced.version.ref)
    assert forced.version.manifest.parity
    assert forced.version.manifest.parity.passed
    assert np.abs(isotonic.predict(inputs)["probability"][:, 0] - sigmoid(isotonic.logit(inputs))).max() > 1e-3


def test_the_raw_graph_answers_as_the_plain_one(trained: TrainResult, bench: Bench) -> None:
    (raw,) = trained.also
    assert raw.name == f"{trained.version.name}-raw"
    assert [parent.ref for parent in raw.manifest.parents] == [trained.version.ref]
    assert raw.manifest.parity
    assert raw.manifest.parity.passed
    signature = {tensor.name: tensor.dtype for tensor in raw.manifest.signature.inputs}  # type: ignore[union-attr]
    assert signature == {"user": "INT64", "item": "BYTES", "device": "BYTES", "price": "FP32", "age": "FP32"}
    strange = bench.write("strange", user=10_000, item="item-never-seen", price=np.nan)
    for log in (bench.log, strange):
        plain, other = (
            bench.session.load(version.ref).predict_source(_source(log))["probability"].to_numpy()  # type: ignore[union-attr]
            for version in (trained.version, raw)
        )
        np.testing.assert_allclose(other, plain, atol=1e-6)
    with pytest.raises(UsageError, match=trained.version.name):
        evaluate_version(raw, bench.session, None, None)


def test_ids_of_no_field_are_refused_and_never_wrapped(trained: TrainResult, bench: Bench) -> None:
    model: Any = bench.session.load(trained.version.ref)
    graph = onnxruntime.InferenceSession(str(trained.version.file("onnx")), _quiet())
    rows = load_clicks(trained.run / "data" / "test_data.parquet")
    last = model.encoder.table_rows
    for wrong in (-1, last, 2**40, int(model.encoder.fields[1].offset)):
        inputs = model.shape.arrays(rows.ids[:3].copy(), rows.numerics[:3])
        inputs["ids"][1, 0] = wrong
        with pytest.raises(DataError, match=f"id {wrong} of the field `user` in row 1 is out of range"):
            model.predict(inputs)
        if not 0 <= wrong < last:
            with pytest.raises(Exception, match="out of data bounds"):
                graph.run(None, inputs)


def test_a_new_category_counts_as_rare(trained: TrainResult, bench: Bench) -> None:
    model: Any = bench.session.load(trained.version.ref)
    model.encoder.unseen = dict.fromkeys(model.encoder.unseen, 0)
    answer = model.predict_source(_source(bench.write("new", item="item-never-seen")))
    assert model.encoder.unseen["item"] == len(answer) == 2_000
    assert np.isfinite(answer["probability"]).all()


def test_missing_numbers_are_the_training_mean(trained: TrainResult, bench: Bench) -> None:
    """NaN at serving time answers as the encoder's own filling does, in the predictor and in the bare graph."""
    model: Any = bench.session.load(trained.version.ref)
    rows = load_clicks(trained.run / "data" / "test_data.parquet")
    inputs = model.shape.arrays(rows.ids[:50], rows.numerics[:50].copy())
    inputs["numerics"][:, 0] = 0.0
    filled = model.predict(inputs)["probability"]
    inputs["numerics"][:, 0] = np.nan
    np.testing.assert_array_equal(model.predict(inputs)["probability"], filled)


def test_large_tables_are_kept_in_mapped_data(bench: Bench) -> None:
    """More than 1 MiB of weights: external data, and `logit` and the raw graph still come out of it."""
    result = bench.train("deepfm", "train.epochs=1", "network.hidden=[1024,512]", "export.raw=true", name="wide")
    for version in (result.version, *result.also):
        assert "onnx-data" in {file.role for file in version.manifest.files}
        assert version.manifest.parity
        assert version.manifest.parity.passed
    model: Any = bench.session.load(result.version.ref)
    samples, reference = load_samples(result.version.path / "parity.npz")
    np.testing.assert_allclose(model.predict(samples)["probability"], reference["probability"], atol=1e-5)
    assert model.logit(samples).shape == (len(reference["probability"]),)
    graph = onnx.load(result.version.file("onnx"), load_external_data=False)
    assert [output.name for output in graph.graph.output] == ["probability"]


def test_rows_and_arrays_are_asked_alike(trained: TrainResult, bench: Bench, tmp_path: Path) -> None:
    """What `ocad predict` does with a log, and with an npz of the signature's inputs."""
    rows = predict_file(trained.version, bench.session, str(bench.log))
    assert list(rows.columns) == ["probability"]
    assert len(rows) == 8_000
    model: Any = bench.session.load(trained.version.ref)
    encoded = model.encoder.transform(pd.read_parquet(bench.log).head(100))
    np.savez(tmp_path / "inputs.npz", **model.shape.arrays(encoded.ids, encoded.numerics))
    arrays = predict_file(trained.version, bench.session, str(tmp_path / "inputs.npz"))
    np.testing.assert_allclose(arrays["probability"], rows["probability"].head(100), atol=1e-6)


def _source(path: Path) -> Any:
    from ocad.catalogue import find_data

    return find_data(str(path))


def _quiet() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options
