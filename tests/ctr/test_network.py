"""DeepFM and its parts against the formulas of the paper, and the trees of LightGBM against their graph."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from ocad.calibration.calibrators import IDENTITY
from ocad.clicks.layers import REACH, FeatureVectors, pairwise
from ocad.clicks.model import InputShape
from ocad_deepfm.config import NetworkSettings
from ocad_deepfm.network import DeepFmNetwork
from ocad_gbdt.trees import export_trees

SHAPE = InputShape((0, 4, 9), (4, 5, 3), (None, 2, None), 12, (0.0, 0.5))
IDS = torch.tensor([[0, 4, 11], [3, 8, 9], [1, 6, 10]])
NUMBERS = torch.tensor([[0.3, -1.0], [2.5, 0.1], [-3.0, 1.2]])


def test_pairwise_is_the_sum_over_pairs() -> None:
    vectors = torch.randn(5, 4, 3, dtype=torch.float64)
    expected = sum((vectors[:, i] * vectors[:, j]).sum(1) for i, j in itertools.combinations(range(4), 2))
    torch.testing.assert_close(pairwise(vectors), expected)


def test_deepfm_is_first_order_plus_pairs_plus_deep() -> None:
    torch.manual_seed(1)
    network = DeepFmNetwork(SHAPE, NetworkSettings(embedding=3, hidden=(5,))).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    table, numeric = network.vectors.table, network.vectors.numeric[:, 0]
    assert table is not None
    numbers = NUMBERS.double()
    rows = torch.cat([table.weight[IDS], numbers.unsqueeze(2) * numeric], dim=1)
    first, vectors = rows[:, :, 0].sum(1), rows[:, :, 1:].clone()
    vectors[:, 1, 2] = 0.0  # the second field has two entries of its own
    linear, _, last = network.deep
    seen = torch.cat([vectors.flatten(1), numbers], dim=1)
    deep = torch.relu(seen @ linear.weight.T + linear.bias) @ last.weight.T  # type: ignore[operator]
    pairs = sum((vectors[:, i] * vectors[:, j]).sum(1) for i, j in itertools.combinations(range(5), 2))
    torch.testing.assert_close(network(IDS, numbers), network.bias + first + pairs + deep[:, 0])


def test_pieces_make_a_piecewise_linear_curve() -> None:
    """Each number's row is the integral of a step function: linear within a piece, and beyond the outer two."""
    layer = FeatureVectors(InputShape((), (), (), 0, (0.0,)), size=1, pieces=4).double().eval()
    torch.nn.init.normal_(layer.numeric)
    inside = torch.linspace(-REACH, REACH, 5, dtype=torch.float64)
    ends = torch.tensor([-9.0, -5.0, 5.0, 9.0], dtype=torch.float64)
    _, vectors = layer(None, torch.cat([inside, ends])[:, None])
    curve, slopes = vectors[:, 0, 0], layer.numeric[0, :, 1]
    torch.testing.assert_close(curve[:5].diff(), slopes * (2 * REACH / 4))
    torch.testing.assert_close(curve[6] - curve[5], 4 * slopes[0])
    torch.testing.assert_close(curve[8] - curve[7], 4 * slopes[3])


@pytest.mark.parametrize("wrong", [-1, 12])
def test_an_id_outside_the_table_fails(wrong: int) -> None:
    network = DeepFmNetwork(SHAPE, NetworkSettings(embedding=3, hidden=(5,))).eval()
    ids = IDS.clone()
    ids[0, 0] = wrong
    with pytest.raises(IndexError):
        network(ids, NUMBERS)


def test_trees_with_sets_numbers_and_a_single_leaf(tmp_path: Path) -> None:
    """A hand-made ensemble: a categorical set inside a numeric split, and a tree that never split."""
    member = {"split_feature": 1, "decision_type": "==", "threshold": "0||3",
              "left_child": {"leaf_value": 1.0}, "right_child": {"leaf_value": 2.0}}  # fmt: skip
    number = {"split_feature": 2, "decision_type": "<=", "threshold": 0.1,
              "left_child": member, "right_child": {"leaf_value": -4.0}}  # fmt: skip
    shape = InputShape((0, 4), (4, 5), (None, None), 9, (0.0,))
    model = {"tree_info": [{"tree_structure": number}, {"tree_structure": {"leaf_value": 0.5}}]}
    export_trees(model, shape, IDENTITY, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    ids = np.asarray([[0, 4], [0, 7], [0, 5], [0, 4], [0, 4]], np.int64)
    numerics = np.asarray([[0.0], [np.float32(0.1) - np.float32(1e-8)], [0.0], [0.2], [np.nan]], np.float32)
    logit, probability = session.run(["logit", "probability"], {"ids": ids, "numerics": numerics})
    np.testing.assert_array_equal(logit[:, 0], [1.5, 1.5, 2.5, -3.5, 1.5])
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logit)), atol=1e-6)
