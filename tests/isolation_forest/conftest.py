"""Four metrics of two links, normal but for incidents that are labelled, and a forest trained on them through its hooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.serving.servers import Server

from ocad.host import Host
from ocad.pipeline import TrainResult, train
from ocad.progress import SilentProgress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad_registry import Registry

METRICS = ("udp_echo", "ecpri", "lbm", "ccm")
LENGTH = 40
KINDS = ("shift", "jitter", "loss", "missed")
"""Incidents of `LENGTH` rows in turn: all delays higher, all restless, replies lost, continuity checks missed."""


def make_links(rows: int = 2_400, seed: int = 11) -> pd.DataFrame:
    """Links `north` and `south`, a row each second, incidents from half of each on; sorted by endpoint and time."""
    generator = np.random.default_rng(seed)
    return pd.concat([_link(name, level, rows, generator) for name, level in (("north", 80.0), ("south", 400.0))],
                     ignore_index=True)  # fmt: skip


def _link(name: str, level: float, rows: int, generator: np.random.Generator) -> pd.DataFrame:
    values = level * np.array([1.0, 0.4, 0.9]) * np.exp(generator.normal(0, 0.05, (rows, 3)))
    values[generator.random((rows, 3)) < 0.0005] = np.nan
    missed = np.zeros((rows, 1))
    frame = pd.DataFrame(np.hstack([values, missed]), columns=list(METRICS))
    frame["label"], frame["kind"] = np.int8(0), ""
    for number, start in enumerate(range(rows // 2 + 20, rows - LENGTH, 120)):
        _strike(frame, slice(start, start + LENGTH), KINDS[number % len(KINDS)], generator)
    frame["endpoint"] = name
    frame["timestamp"] = pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s")
    return frame


def _strike(frame: pd.DataFrame, place: slice, kind: str, generator: np.random.Generator) -> None:
    rows, delays = frame.index[place], list(METRICS[:3])
    if kind == "shift":
        frame.loc[rows, delays] *= 1.3
    elif kind == "jitter":
        frame.loc[rows, delays] *= np.exp(generator.normal(0, 0.25, (LENGTH, 3)))
    elif kind == "loss":
        lost: NDArray[np.bool_] = generator.random((LENGTH, 3)) < 0.5
        frame.loc[rows, delays] = frame.loc[rows, delays].mask(lost)
    else:
        frame.loc[rows, "ccm"] = 0.3
    frame.loc[rows, "label"], frame.loc[rows, "kind"] = 1, kind


@dataclass(frozen=True, slots=True)
class Bench:
    """A trained version with the rows that it was made from."""

    session: Session
    folder: Path
    result: TrainResult
    links: pd.DataFrame


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """`isolation_forest-oran`, by `configs/isolation_forest/oran.yaml`."""
    folder = tmp_path_factory.mktemp("forest")
    links = make_links()
    links.to_parquet(folder / "links.parquet", index=False)
    session = Session(Host(), Registry(folder / "models"), SilentProgress())
    request = TrainRequest("isolation_forest", "oran", data=str(folder / "links.parquet"), runs=str(folder / "runs"))
    return Bench(session, folder, train(request, session), links)


@pytest.fixture(scope="session")
def server(bench: Bench) -> Iterator[Server]:
    """The real server over the bench's registry."""
    with Server(bench.folder / "models") as running:
        running.wait_ready()
        yield running
