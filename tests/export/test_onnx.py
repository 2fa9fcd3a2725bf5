"""The export: one form for every graph, the same bytes each time, weights that a runtime can map."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from ocad.contexts import Artifact
from ocad.errors import DataError
from ocad.export.onnx import EXTERNAL_DATA_BYTES, IR_VERSION, export_onnx, write_onnx
from ocad.export.runtime import OnnxPredictor
from ocad_registry import Signature, Tensor


class TwoInputs(nn.Module):
    """Two inputs and two outputs; the dropout shows whether the export is one for inference."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, width)
        self.out = nn.Linear(width, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, values: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.hidden(values))
        return self.out(self.dropout(hidden)) + shift, hidden


SIGNATURE = Signature(
    inputs=[Tensor(name="values", dtype="FP32", shape=[-1, 3]), Tensor(name="shift", dtype="FP32", shape=[-1, 1])],
    outputs=[Tensor(name="forecast", dtype="FP32", shape=[-1, 1], scale=1.0)],
)


def export(folder: Path, width: int) -> tuple[TwoInputs, list[Artifact]]:
    torch.manual_seed(3)
    module = TwoInputs(width)
    example = {"values": torch.zeros(1, 3), "shift": torch.zeros(1, 1)}
    return module, export_onnx(module, example, folder, ["forecast", "hidden"])


def inputs(rows: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(rows)
    return {"values": generator.normal(size=(rows, 3)), "shift": generator.normal(size=(rows, 1))}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[TwoInputs, list[Artifact]]:
    return export(tmp_path_factory.mktemp("small"), width=16)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[TwoInputs, list[Artifact]]:
    """More than 1 MiB of weights."""
    return export(tmp_path_factory.mktemp("large"), width=EXTERNAL_DATA_BYTES // 16)


@pytest.mark.parametrize("size", ["small", "large"])
def test_any_batch_size_is_answered_as_by_the_module(size: str, request: pytest.FixtureRequest) -> None:
    module, artifacts = request.getfixturevalue(size)
    predictor = OnnxPredictor(artifacts[0].path, SIGNATURE)
    for rows in (1, 2, 7, 256):
        feeds = {name: array.astype(np.float32) for name, array in inputs(rows).items()}
        with torch.no_grad():
            expected = module(*(torch.from_numpy(array) for array in feeds.values()))[0].numpy()
        np.testing.assert_allclose(predictor.predict(feeds)["forecast"], expected, atol=2e-5)


def test_small_weights_stay_in_the_graph(small: tuple[TwoInputs, list[Artifact]]) -> None:
    assert [(artifact.path.name, artifact.role) for artifact in small[1]] == [("model.onnx", "onnx")]
    assert sorted(path.name for path in small[1][0].path.parent.iterdir()) == ["model.onnx"]


def test_large_weights_lie_beside_the_graph_on_page_borders(large: tuple[TwoInputs, list[Artifact]]) -> None:
    graph, data = large[1]
    assert [(graph.role, graph.path.name), (data.role, data.path.name)] == [
        ("onnx", "model.onnx"),
        ("onnx-data", "model.onnx.data"),
    ]
    assert graph.path.stat().st_size < 64 * 1024
    external = [tensor for tensor in onnx.load(graph.path, load_external_data=False).graph.initializer if
                tensor.data_location == TensorProto.EXTERNAL]  # fmt: skip
    assert external
    for tensor in external:
        entry = {item.key: item.value for item in tensor.external_data}
        assert entry["location"] == "model.onnx.data"
        assert int(entry["offset"]) % 4096 == 0
        assert int(entry["length"]) == 4 * int(np.prod(tensor.dims))


def test_large_weights_are_mapped_rather_than_copied(large: tuple[TwoInputs, list[Artifact]]) -> None:
    predictor = OnnxPredictor(large[1][0].path, SIGNATURE)
    assert str(large[1][1].path) in Path("/proc/self/maps").read_text()
    assert predictor.predict(inputs(1))["forecast"].shape == (1, 1)


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_same_module_gives_the_same_bytes(size: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    module, artifacts = request.getfixturevalue(size)
    _, again = export(tmp_path / "elsewhere", module.hidden.out_features)
    assert [digest(artifact) for artifact in artifacts] == [digest(artifact) for artifact in again]


def digest(artifact: Artifact) -> str:
    return hashlib.sha256(artifact.path.read_bytes()).hexdigest()


def test_nothing_of_the_building_machine_is_in_the_graph(small: tuple[TwoInputs, list[Artifact]]) -> None:
    content = small[1][0].path.read_bytes()
    for trace in (str(Path(__file__).parents[2]), str(Path.home()), "site-packages", ".py", 'File "', "Traceback"):
        assert trace.encode() not in content, trace


def test_a_graph_by_hand_takes_the_same_form(tmp_path: Path) -> None:
    """The newest `onnx` writes a file format that no runtime reads yet."""
    artifacts = write_onnx(scaling_graph(np.full((1, 3), 2.0, np.float32)), tmp_path / "new" / "scale.onnx")
    assert onnx.load(artifacts[0].path).ir_version <= IR_VERSION
    signature = Signature(
        inputs=[Tensor(name="values", dtype="FP32", shape=[-1, 3])],
        outputs=[Tensor(name="scaled", dtype="FP32", shape=[-1, 3], scale=1.0)],
    )
    predictor = OnnxPredictor(artifacts[0].path, signature)
    np.testing.assert_array_equal(predictor.predict(np.ones((2, 3)))["scaled"], np.full((2, 3), 2.0))


def test_a_graph_that_became_small_leaves_no_data_behind(tmp_path: Path) -> None:
    path = tmp_path / "scale.onnx"
    assert len(write_onnx(scaling_graph(np.ones((300_000, 3), np.float32)), path)) == 2
    assert len(write_onnx(scaling_graph(np.ones((1, 3), np.float32)), path)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["scale.onnx"]


def scaling_graph(factor: np.ndarray) -> onnx.ModelProto:
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, ("batch", 3))
    scaled = helper.make_tensor_value_info("scaled", TensorProto.FLOAT, (None, 3))
    node = helper.make_node("Mul", ["values", "factor"], ["scaled"], doc_string='File "/home/someone/model.py"')
    graph = helper.make_graph([node], "scale", [values], [scaled], [numpy_helper.from_array(factor, "factor")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        (np.zeros((1, 3)), "a bare array fits only a model of one input", "give a dict with `values`, `shift`"),
        ({"values": np.zeros((1, 3))}, "missing input `shift`", "give FP32 of shape (-1, 1)"),
        ({**inputs(1), "shfit": np.zeros(1)}, "unknown input `shfit`", "known: `shift`, `values`"),
        ({**inputs(1), "values": np.zeros((1, 4))}, "input `values` has shape (1, 4)", "give (-1, 3), where -1 is any size"),
        ({**inputs(1), "values": np.zeros(3)}, "input `values` has shape (3,)", "give (-1, 3), where -1 is any size"),
        ({**inputs(1), "values": np.array([["a", "b", "c"]])}, "input `values` has dtype <U1", "give float32"),
        ({**inputs(1), "values": np.zeros((1, 3), complex)}, "input `values` has dtype complex128", "give float32"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_named(
    small: tuple[TwoInputs, list[Artifact]], wrong: dict[str, np.ndarray], message: str, hint: str
) -> None:
    predictor = OnnxPredictor(small[1][0].path, SIGNATURE)
    with pytest.raises(DataError) as caught:
        predictor.predict(wrong)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_integers_are_taken_where_numbers_are_wanted(small: tuple[TwoInputs, list[Artifact]]) -> None:
    predictor = OnnxPredictor(small[1][0].path, SIGNATURE)
    whole = predictor.predict({"values": np.ones((2, 3), np.int64), "shift": np.zeros((2, 1), np.int32)})
    exact = predictor.predict({"values": np.ones((2, 3), np.float32), "shift": np.zeros((2, 1), np.float32)})
    np.testing.assert_array_equal(whole["forecast"], exact["forecast"])
