"""Links without labels, a registry, and the plugin `auto` trained in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ocad.host import Host
from ocad.pipeline import TrainResult, train
from ocad.progress import SilentProgress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad_registry import Registry

ROWS = 2_400
METRICS = ("udp_echo", "ecpri", "lbm")


def make_links(rows: int = ROWS, seed: int = 5, metrics: tuple[str, ...] = ("udp_echo",)) -> pd.DataFrame:
    """Two links of `rows` seconds, delays (µs) that go up and down together, sorted by endpoint and time."""
    generator = np.random.default_rng(seed)
    parts = []
    for name, base in (("north", 400.0), ("south", 650.0)):
        common = generator.normal(0, 4, rows)
        times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s")
        values = {metric: base + common + generator.normal(0, 6, rows) for metric in metrics}
        parts.append(pd.DataFrame({"timestamp": times, "endpoint": name, **values}))
    return pd.concat(parts, ignore_index=True)


def with_incidents(links: pd.DataFrame, every: int = 150) -> pd.DataFrame:
    """The same with `label` and shifts of 90 µs for 20 rows, every third time a dead link."""
    place = links.groupby("endpoint").cumcount()
    number, inside = place // every, place % every < 20
    hit = inside & (number > 0)
    links = links.assign(label=hit.astype(np.int8))
    metrics = [column for column in links if column in METRICS]
    links.loc[hit & (number % 3 != 0), metrics] += 90.0
    links.loc[hit & (number % 3 == 0), metrics] = np.nan
    return links


class Workshop:
    """A registry in `folder` and the pipeline that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.session = Session(Host(), Registry(folder / "models"), SilentProgress())

    def train(self, frame: pd.DataFrame, *overrides: str, metric: str = "udp_echo") -> TrainResult:
        """`auto` on the rows of `frame`."""
        path = self.folder / "rows.parquet"
        frame.to_parquet(path, index=False)
        request = TrainRequest("auto", metric, str(path), overrides=overrides, runs=str(self.folder / "runs"))
        return train(request, self.session)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """An empty registry that the tests fill."""
    return Workshop(tmp_path_factory.mktemp("auto"))


@pytest.fixture(scope="session")
def trained(workshop: Workshop) -> TrainResult:
    """`auto-udp_echo@1.0.0`, from rows without labels."""
    return workshop.train(make_links())
