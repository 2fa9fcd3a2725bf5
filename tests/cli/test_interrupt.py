"""Ctrl-C in a real `ocad train`: a run that can be resumed, no version, and the result of an unbroken run at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocad.testing.series import write_series

TRAIN = (
    *("train", "--plugin", "tcn", "--metric", "udp_echo", "--data", "series.parquet", "--json"),
    *("--set", "train.epochs=4", "--set", "network.scaling=standard", "--set", "network.channels=[4]"),
)
"""Four epochs of the smallest network."""


@dataclass
class Workshop:
    """A folder of its own and what was done there."""

    folder: Path
    environment: dict[str, str]
    run: str = ""

    def ocad(self, *arguments: str, **variables: str) -> tuple[int, Any]:
        """The exit code and the JSON answer of a command."""
        done = subprocess.run(
            [sys.executable, "-m", "ocad", *arguments],
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    def epochs(self) -> list[str]:
        """The epochs in the run's log."""
        rows = (self.folder / self.run / "log.csv").read_text().splitlines()[1:]
        return [row.partition(",")[0] for row in rows]


@pytest.fixture(scope="module")
def workshop(plugin_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """With a training that was interrupted by SIGINT after its second epoch."""
    folder = tmp_path_factory.mktemp("interrupt")
    write_series(folder / "series.parquet")
    environment = {**os.environ, "PYTHONPATH": str(plugin_site), "OCAD_HOME": str(folder)}
    workshop = Workshop(folder, environment)
    code, answer = workshop.ocad(*TRAIN, "--name", "broken-off", OCAD_INTERRUPT_AT="2")
    (run,) = (folder / "runs" / "broken-off").iterdir()
    workshop.run = str(run.relative_to(folder))
    assert (code, answer) == (
        1,
        {
            "error": {
                "code": "interrupted",
                "message": f"interrupted; `{workshop.run}` is kept",
                "hint": f"go on with `ocad train --resume {workshop.run}`",
            }
        },
    )
    return workshop


def test_an_interrupted_run_registers_nothing(workshop: Workshop) -> None:
    assert not (workshop.folder / "models").exists()
    assert workshop.epochs() == ["1", "2"]
    assert (workshop.folder / workshop.run / "checkpoints" / "last.pth").is_file()
    assert not (workshop.folder / workshop.run / "result.json").exists()


def test_a_corrupt_checkpoint_is_named(workshop: Workshop) -> None:
    shutil.copytree(workshop.folder / workshop.run, workshop.folder / "damaged")
    last = workshop.folder / "damaged" / "checkpoints" / "last.pth"
    last.write_bytes(last.read_bytes()[:1000])
    assert workshop.ocad("train", "--resume", "damaged", "--json") == (
        1,
        {
            "error": {
                "code": "checkpoint",
                "message": "the checkpoint `damaged/checkpoints/last.pth` is corrupt (file is not a zip file)",
                "hint": "resume from another checkpoint: copy `best.pth` or an `epoch_*.pth` over it, or start a new run",
            }
        },
    )
    assert not (workshop.folder / "models").exists()


def test_a_resumed_run_ends_as_an_unbroken_one(workshop: Workshop, tmp_path: Path) -> None:
    folder = shutil.copytree(workshop.folder, tmp_path / "own")  # the others look at what is not resumed
    workshop = Workshop(folder, {**workshop.environment, "OCAD_HOME": str(folder)}, workshop.run)
    code, resumed = workshop.ocad("train", "--resume", workshop.run, "--json")
    assert (code, resumed["ref"], resumed["run"]) == (0, "broken-off@1.0.0", workshop.run)
    assert workshop.epochs() == ["1", "2", "3", "4"]
    code, unbroken = workshop.ocad(*TRAIN, "--name", "unbroken")
    assert (code, resumed["metrics"], resumed["parity"]) == (0, unbroken["metrics"], unbroken["parity"])
    digests = [
        {
            file["role"]: file["sha256"]
            for file in workshop.ocad("registry", "show", result["ref"], "--json")[1]["files"]
        }
        for result in (resumed, unbroken)
    ]
    assert digests[0]["onnx"] == digests[1]["onnx"]
