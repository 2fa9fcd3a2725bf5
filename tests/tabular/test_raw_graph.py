"""The encoder as ONNX operators: the same ids and numbers as the encoder itself, bit for bit where it counts."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest
from onnx import TensorProto, helper
from tests.tabular.conftest import log_frame

from ocad.errors import UsageError
from ocad.tabular.encoder import Encoder
from ocad.tabular.fitting import fit_encoder
from ocad.tabular.raw_graph import raw_columns, raw_graph, raw_inputs
from ocad.tabular.spec import Categorical, Features, Numeric, Temporal


def log() -> pd.DataFrame:
    frame = log_frame(500)
    generator = np.random.default_rng(1)
    kinds = np.array(["Comedy|Drama", "Drama", "Action|Comedy|Drama|War", "", "War|Comedy"])
    number = pd.array(generator.integers(-(10**12), 10**12, 500), dtype="Int64")
    number[::50] = pd.NA
    frame["genres"], frame["number"] = kinds[generator.integers(0, 5, 500)], number
    frame.loc[::40, "site"] = None
    return frame


def features(**changes: object) -> Features:
    plain = Features(
        categorical=(
            Categorical(column="site"),
            Categorical(column="user", min_count=8),
            Categorical(column="genres", separator="|", slots=2),
            Categorical(column="number", max_values=20, buckets=50),
        ),
        numeric=(
            Numeric(column="age", indicator=True),
            Numeric(column="bid", transform="quantile"),
            Numeric(column="user", transform="log"),
            Numeric(column="position", transform="none"),
        ),
        temporal=(Temporal(column="time", parts=("hour", "weekday", "recency")),),
    )
    return plain.model_copy(update=changes)


def fitted(what: Features, frame: pd.DataFrame) -> Encoder:
    label = frame["label"].to_numpy().astype(np.float32)
    return fit_encoder(what, lambda: [(pa.Table.from_pandas(frame), label)])


def echo(encoder: Encoder, opset: int = 20) -> onnx.ModelProto:
    """A model whose outputs are its inputs."""
    kinds = {"ids": (TensorProto.INT64, len(encoder.fields)), "numerics": (TensorProto.FLOAT, len(encoder.numerics))}
    kinds = {name: kind for name, kind in kinds.items() if kind[1]}
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds],
        "echo",
        [helper.make_tensor_value_info(name, kind, ["batch", size]) for name, (kind, size) in kinds.items()],
        [helper.make_tensor_value_info(f"{name}_out", kind, ["batch", size]) for name, (kind, size) in kinds.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    return model


def answers(encoder: Encoder, frame: pd.DataFrame) -> list[np.ndarray]:
    model = raw_graph(echo(encoder), encoder)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert {value.name for value in session.get_inputs()} == set(encoder.columns)
    return list(session.run(None, raw_columns(frame, encoder)))


def test_the_graph_encodes_as_the_encoder_does() -> None:
    frame = log().assign(position=lambda rows: rows["age"] * 3)
    encoder = fitted(features(), frame.iloc[:300])
    ids, numerics = answers(encoder, frame)
    expected = encoder.transform(frame)
    np.testing.assert_array_equal(ids, expected.ids)
    np.testing.assert_allclose(numerics, expected.numerics, atol=2e-7, rtol=2e-7)
    assert raw_inputs(encoder)["site"] == "BYTES"
    assert raw_inputs(encoder)["user"] == raw_inputs(encoder)["time"] == "INT64"
    assert raw_inputs(encoder)["age"] == "FP32"


def test_values_from_outside_training_are_rare_or_missing_in_both() -> None:
    frame = log().assign(position=1.5)
    encoder = fitted(features(), frame)
    odd = frame.iloc[:4].assign(user=[10**15, -1, 0, 3], age=[np.nan, 1e30, -1e30, 0], bid=[0, np.nan, 1e9, 1])
    odd["site"] = pd.Series(["new", "", None, "news"], odd.index)
    odd["time"] = [0, 86_399, 4_000_000_000, -1]
    ids, numerics = answers(encoder, odd)
    expected = encoder.transform(odd)
    np.testing.assert_array_equal(ids, expected.ids)
    np.testing.assert_allclose(numerics, expected.numerics, rtol=1e-6)


def test_a_model_without_numbers_has_a_raw_graph_too() -> None:
    what = Features(categorical=(Categorical(column="site"),))
    encoder = fitted(what, log())
    (ids,) = answers(encoder, log())
    np.testing.assert_array_equal(ids, encoder.transform(log()).ids)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            Features(categorical=(Categorical(column="site", max_values=2, buckets=2),)),
            "the column `site` is text that is hashed, which no ONNX operator does: raise its `max_values` above 4, or "
            "leave the raw graph out",
        ),
        (
            Features(temporal=(Temporal(column="time", parts=("historical_ctr",)),)),
            "`historical_ctr` of the column `time` depends on the log's past: leave the raw graph out",
        ),
    ],
)
def test_what_operators_cannot_express_is_refused(what: Features, message: str) -> None:
    encoder = fitted(what, log())
    with pytest.raises(UsageError) as caught:
        raw_graph(echo(encoder), encoder)
    assert str(caught.value) == message


def test_an_old_operator_set_is_refused() -> None:
    encoder = fitted(Features(categorical=(Categorical(column="site"),)), log())
    with pytest.raises(UsageError, match="operator set 17"):
        raw_graph(echo(encoder, opset=17), encoder)
