"""A labelled series of two links with incidents of every kind, and a registry with two members trained on it."""

from __future__ import annotations

import shutil
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

ROWS = 6_000
MEMBERS = ("changepoint", "rule_based")
REFERENCES = [f"{plugin}-udp_echo@1.0.0" for plugin in MEMBERS]


def make_links(rows: int = ROWS, seed: int = 5, every: int = 200) -> pd.DataFrame:
    """Two links of `rows` seconds with `udp_echo` (µs), an incident about every `every` rows, and `label`."""
    generator = np.random.default_rng(seed)
    return pd.concat([_link(name, base, rows, every, generator) for name, base in (("north", 400.0), ("south", 650.0))])


def _link(name: str, base: float, rows: int, every: int, generator: np.random.Generator) -> pd.DataFrame:
    value = base + generator.normal(0, 8, rows)
    label = np.zeros(rows, dtype=np.int8)
    for number, start in enumerate(range(every, rows - 60, every)):
        length = (1, 25, 35, 12)[number % 4]
        part = slice(start, start + length)
        label[part] = 1
        match number % 4:
            case 0:
                value[part] += 150
            case 1:
                value[part] += 90
            case 2:
                value[part] += np.linspace(20, 140, length)
            case _:
                value[part] = np.nan
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s")
    return pd.DataFrame({"timestamp": times, "endpoint": name, "udp_echo": value, "label": label})


class Workshop:
    """A registry in `folder`, made where it is not, and the pipeline that fills it; `data` is the labelled series."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.registry = Registry(folder / "models")
        self.session = Session(Host(), self.registry, SilentProgress())
        self.data = folder / "links.parquet"
        make_links().to_parquet(self.data, index=False)

    def train(self, plugin: str, *overrides: str, data: Path | None = None, metric: str = "udp_echo") -> TrainResult:
        """One run of the pipeline."""
        request = TrainRequest(
            plugin, metric, str(data or self.data), overrides=overrides, runs=str(self.folder / "runs")
        )
        return train(request, self.session)

    def train_composite(
        self, *overrides: str, members: str = "", data: Path | None = None, metric: str = "udp_echo"
    ) -> TrainResult:
        """A composite of `members`, by default of both."""
        chosen = members or ",".join(REFERENCES)
        return self.train("composite", f"members=[{chosen}]", *overrides, data=data, metric=metric)

    def copy(self, folder: Path) -> Workshop:
        """Another workshop with the same versions, whose files may be changed."""
        other = Workshop(folder)
        shutil.copytree(self.folder / "models", folder / "models", dirs_exist_ok=True)
        for path in (folder / "models").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return other


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The members are there at version 1.0.0."""
    made = Workshop(tmp_path_factory.mktemp("composite"))
    for plugin in MEMBERS:
        made.train(plugin)
    return made


@pytest.fixture(scope="session")
def trained(workshop: Workshop) -> TrainResult:
    """A composite of both members."""
    return workshop.train_composite()
