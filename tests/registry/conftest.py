"""A registry in a temporary folder, and drafts to publish in it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocad_registry import Artifact, Draft, GateResult, Parity, PluginReference, Registry, Version

DraftMaker = Callable[..., Draft]
Publisher = Callable[..., Version]
ROOT = Path(__file__).resolve().parents[2]


def counts_of(script: str, registry: Path, rounds: int, seed: int, timeout: float) -> dict[str, Any]:
    """What `tests/registry/SCRIPT.py` counts in so many rounds; it asserts itself what must hold in each."""
    command = [sys.executable, "-m", f"tests.registry.{script}", str(registry), str(rounds), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    counts: dict[str, Any] = json.loads(done.stdout)
    print(counts)
    return counts


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models", by="ops@example")


@pytest.fixture
def target(tmp_path: Path) -> Registry:
    """Another registry, to copy into."""
    return Registry(tmp_path / "other")


@pytest.fixture
def make_draft() -> DraftMaker:
    """A draft that passes; `observed` below 0 fails its gate."""

    def make(name: str = "tcn-udp_echo", observed: float = 0.25, **changes: Any) -> Draft:
        gate = GateResult(name="skill", metric="skill", op=">", threshold=0, observed=observed, passed=observed > 0)
        plugin = PluginReference(name="tcn", version="0.1.0", package="ocad")
        values = {"task": "forecast", "metric": "udp_echo", "metrics": {"skill": observed}, "gates": [gate]}
        return Draft(name=name, plugin=plugin, **(values | changes))

    return make


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(range(256)) * 256)
    return Artifact(path, "weights")


@pytest.fixture
def publish(registry: Registry, make_draft: DraftMaker, artifact: Artifact) -> Publisher:
    """Publishes one version into `registry`."""

    def make(version: str | None = None, observed: float = 0.25, **changes: Any) -> Version:
        return registry.publish(make_draft(observed=observed, **changes), [artifact], version)

    return make


@pytest.fixture
def parity() -> Parity:
    return Parity(reference="torch", samples=512, max_scaled_diff=1e-7, tolerance=1e-5, passed=True)
