"""Rows of several requests share a run only where that is proven, or the operator says so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.registries import publish
from tests.serving.servers import Server, tensor

WAIT = ("--max-wait-us", "100000", "--model-threads", "1")
"""Requests that may share a run do: the first one waits for the others."""


def together(server: Server, model: str, count: int = 8) -> tuple[list[float], int]:
    """What requests of one row at the same time are answered, and in how many runs."""
    before = runs(server, model)
    with ThreadPoolExecutor(count) as pool:
        rows = [[tensor("x", "FP32", [[float(number), 1.0]])] for number in range(count)]
        answers = list(pool.map(lambda row: server.infer(model, row).json()["outputs"][0]["data"][0], rows))
    return answers, runs(server, model) - before


def runs(server: Server, model: str) -> int:
    count: int = server.get(f"/v2/models/{model}/stats").json()["model_stats"][0]["execution_count"]
    return count


@pytest.mark.parametrize("batchable", [None, False])
def test_rows_are_not_joined_without_a_proof(launch: Launch, tmp_path: Path, batchable: bool | None) -> None:
    root = tmp_path / "models"
    publish(root, "centred", graphs.centred(), batchable=batchable)
    server = launch(root, *WAIT)
    assert together(server, "centred") == ([0.0] * 8, 8), "each row is its own mean"
    assert server.get("/v2/models/centred/config").json()["max_batch_size"] == 0


def test_rows_are_joined_with_a_proof(launch: Launch, tmp_path: Path) -> None:
    root = tmp_path / "models"
    publish(root, "scale", graphs.scale(2.0), batchable=True)
    answers, ran = together(launch(root, *WAIT), "scale")
    assert answers == [2.0 * number for number in range(8)]
    assert ran < 8


def test_the_operator_decides_for_a_model(launch: Launch, tmp_path: Path) -> None:
    root = tmp_path / "models"
    publish(root, "scale", graphs.scale(2.0), batchable=True)
    publish(root, "foreign", graphs.scale(3.0), batchable=None)
    server = launch(root, *WAIT, "--batch", "scale=off", "--batch", "foreign=on")
    assert together(server, "scale")[1] == 8
    answers, ran = together(server, "foreign")
    assert answers == [3.0 * number for number in range(8)]
    assert ran < 8


@pytest.mark.parametrize("text", ["scale", "scale=maybe", "=on"])
def test_a_flag_that_says_nothing_ends_the_start(models: Path, text: str) -> None:
    with pytest.raises(AssertionError, match=rf"--batch {text}` is not understood: write `NAME=on` or `NAME=off`"):
        Server(models, "--batch", text)
