"""A registry of forecasters that the tests of this room share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.residual.samples import METRICS, publish_forecaster


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a forecaster of each metric; nothing may be changed in it."""
    root = tmp_path_factory.mktemp("residual") / "models"
    for metric in METRICS:
        publish_forecaster(root, f"linear-{metric}", metric)
    return root
