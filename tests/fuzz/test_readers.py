"""A short run of `scripts/fuzz`: the same inputs each time; minutes of it are run by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {
    **{"metadata": 150, "alias": 100, "onnx": 100, "walker": 300, "archive": 60, "index": 10},
    **{"featindex": 150, "libsvm": 80, "csv": 120, "series": 80, "answer": 400},
}
"""How many inputs each reader is given."""


@pytest.mark.parametrize("target", TARGETS)
def test_damage_is_refused_by_name(target: str, tmp_path: Path) -> None:
    """No crash, no hang; and where the server's reader is built (`cargo build --example registry_verdicts`), equal verdicts."""
    command = [sys.executable, str(ROOT / "scripts" / "fuzz"), target, "--seconds", "600", "--seed", "7"]
    command += ["--count", str(TARGETS[target]), "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["inputs"] == TARGETS[target]
    assert len(said.keys() - {"target", "inputs", "wrong", "seconds"}) >= (1 if target == "index" else 2), (
        "damage and not"
    )


def test_the_targets_are_all_there_are() -> None:
    told = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "fuzz"), "x"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert set(told.stderr.strip().rpartition("known: ")[2].split(", ")) == set(TARGETS)
