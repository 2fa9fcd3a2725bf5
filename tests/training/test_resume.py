"""Interrupted runs go on to the same result, bit for bit; what cannot be resumed says why."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ocad.errors import CheckpointError
from ocad.training.checkpoint import load_checkpoint, save_checkpoint
from ocad.training.loop import Reporting
from ocad.training.options import TrainOptions

if TYPE_CHECKING:
    from tests.training.conftest import Regression

HERE = Path(__file__).parent


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, random state and history of both runs' `last.pth` are equal in every bit."""
    first, second = (load_checkpoint(folder / "checkpoints" / "last.pth") for folder in (one, other))
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name]), name
    for index, moments in first["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, second["optimizer"]["state"][index][name]), (index, name)
    assert torch.equal(first["random_state"], second["random_state"])
    assert timeless(first["state"]["history"]) == timeless(second["state"]["history"])
    assert first["state"]["best_epoch"] == second["state"]["best_epoch"]


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def interrupt_after(epoch: int) -> Reporting:
    def ended(number: int, row: Mapping[str, float]) -> None:
        if number == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    return Reporting(epoch_ended=ended)


def test_resume_after_an_epoch_is_exact(tmp_path: Path, regression: Regression) -> None:
    regression.train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        regression.train(tmp_path / "broken", reporting=interrupt_after(3))
    assert load_checkpoint(tmp_path / "broken" / "checkpoints" / "last.pth")["state"]["epoch"] == 3
    regression.train(tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    log = (tmp_path / "broken" / "log.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in log] == ["epoch", "1", "2", "3", "4", "5", "6"]


SCRIPT = """
import sys
from pathlib import Path
from conftest import Regression

class Waiting(Regression):
    steps = 0

    def loss(self, model, batch):
        self.steps += 1
        if self.steps == {step}:
            print("now", flush=True)
            sys.stdin.readline()
        return Regression.loss(model, batch)

Waiting().train(Path({folder!r}))
"""


@pytest.mark.parametrize("step", [4, 27])
def test_ctrl_c_in_the_middle_of_an_epoch_is_resumed_exactly(tmp_path: Path, step: int, regression: Regression) -> None:
    regression.train(tmp_path / "whole")
    script = SCRIPT.format(folder=str(tmp_path / "broken"), step=step)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate("go on\n")
    assert errors.rstrip().endswith("KeyboardInterrupt")
    state = load_checkpoint(tmp_path / "broken" / "checkpoints" / "last.pth")["state"]
    assert state["batch"] > 0
    regression.train(tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_resume_of_a_finished_run_trains_no_further(tmp_path: Path, regression: Regression) -> None:
    network, result = regression.train(tmp_path)
    again, same = regression.train(tmp_path, resume=True)
    assert list(same.history) == list(result.history)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_resume_needs_a_checkpoint(tmp_path: Path, regression: Regression) -> None:
    with pytest.raises(CheckpointError) as caught:
        regression.train(tmp_path, resume=True)
    path = tmp_path / "checkpoints" / "last.pth"
    assert str(caught.value) == (f"no checkpoint `{path}`: give a run folder whose `checkpoints/` has a `last.pth`")


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x40]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"not a zip file", flip],
    ids=["truncated", "empty", "text", "flipped bit"],
)
def test_a_corrupt_checkpoint_is_named(tmp_path: Path, damage: Any, regression: Regression) -> None:
    regression.train(tmp_path, regression.options.model_copy(update={"epochs": 1}))
    path = tmp_path / "checkpoints" / "last.pth"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        regression.train(tmp_path, regression.options.model_copy(update={"epochs": 1}), resume=True)
    assert caught.value.message.startswith(f"the checkpoint `{path}` is corrupt (")
    assert caught.value.hint == (
        "resume from another checkpoint: copy `best.pth` or an `epoch_*.pth` over it, or start a new run"
    )


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(HERE / "unpickled"),)


def test_a_checkpoint_never_runs_code(tmp_path: Path, regression: Regression) -> None:
    path = tmp_path / "harmful.pth"
    torch.save({"format": 1, "model": Harmful()}, path)
    with pytest.raises(CheckpointError, match="is corrupt"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(CheckpointError, match="is corrupt"):
        load_checkpoint(path)
    assert not (HERE / "unpickled").exists()


def test_a_checkpoint_of_another_format_or_program_is_refused(tmp_path: Path, regression: Regression) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="it is not a checkpoint of this program"):
        load_checkpoint(tmp_path / "foreign.pth")
    save_checkpoint(tmp_path / "newer.pth", {"format": 2})
    with pytest.raises(CheckpointError, match="has format 2, this program reads 1"):
        load_checkpoint(tmp_path / "newer.pth")


def test_other_options_cannot_resume(tmp_path: Path, regression: Regression) -> None:
    regression.train(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        regression.train(tmp_path, TrainOptions(epochs=99), resume=True)
    path = tmp_path / "checkpoints" / "last.pth"
    assert str(caught.value) == (
        f"the checkpoint `{path}` was written under other options, seed or data: "
        "resume with the run's own configuration and data, or start a new run"
    )


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path: Path, regression: Regression) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, {"epoch": 1})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"epoch": lambda: 2})
    assert load_checkpoint(path)["epoch"] == 1
