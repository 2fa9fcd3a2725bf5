"""A small click log, and DeepFM, logistic regression and LightGBM trained on it once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ocad.host import Host
from ocad.pipeline import TrainResult, train
from ocad.progress import SilentProgress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad.testing.clicks import write_clicks
from ocad_registry import Registry

SHORT = {
    "deepfm": ("train.epochs=2", "network.embedding=8", "network.hidden=[32,16]", "network.numeric_pieces=4"),
    "logistic": ("train.epochs=2", "train.learning_rate=0.01"),
    "gbdt": ("trees.trees=60",),
}
"""What makes each plugin train in a second or two."""


@dataclass(frozen=True)
class Bench:
    """A registry of its own and a log to train on."""

    folder: Path
    log: Path
    session: Session

    def train(self, plugin: str, *overrides: str, name: str | None = None, data: Path | None = None) -> TrainResult:
        """The whole pipeline with `overrides`."""
        request = TrainRequest(
            plugin,
            data=str(data or self.log),
            overrides=(*SHORT[plugin], *overrides),
            name=name,
            runs=str(self.folder / "runs"),
        )
        return train(request, self.session)

    def write(self, name: str, **columns: Any) -> Path:
        """The first 2,000 rows of the log with `columns` in place of its own; None leaves one out."""
        frame = pd.read_parquet(self.log).head(2_000)
        dropped = [column for column, values in columns.items() if values is None]
        frame = frame.assign(**{column: values for column, values in columns.items() if values is not None})
        path = self.folder / f"{name}.parquet"
        frame.drop(columns=dropped).to_parquet(path, index=False)
        return path


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("ctr")
    session = Session(Host(), Registry(folder / "models"), SilentProgress())
    return Bench(folder, write_clicks(folder / "clicks.parquet"), session)


@pytest.fixture(scope="session", params=sorted(SHORT))
def trained(request: pytest.FixtureRequest, bench: Bench) -> TrainResult:
    """Each plugin with its raw graph, trained with the log's default features."""
    return bench.train(request.param, "export.raw=true")
