"""A registry with two detectors of a small series of two links, trained once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ocad.host import Host
from ocad.pipeline import train
from ocad.progress import SilentProgress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad_registry import Registry

ROWS = 1_500


def make_rows() -> pd.DataFrame:
    """Two links, 1,500 seconds of two metrics, 15 incidents each: shifts, losses, all but the last third in both."""
    source = np.random.default_rng(5)
    times = pd.date_range("2026-01-02", periods=ROWS, freq="s", tz="UTC").as_unit("us")
    parts = []
    for endpoint in ("north", "south"):
        label = np.zeros(ROWS, dtype=np.int8)
        delay = 200 + 10 * source.standard_normal(ROWS)
        missed = np.zeros(ROWS)
        for index, start in enumerate(range(40, ROWS, 100)):
            inside = slice(start, start + 12)
            label[inside] = 1
            if index % 3 == 2:
                delay[inside], missed[inside] = np.nan, 0.9
            else:
                delay[inside] += 150
        parts.append(
            pd.DataFrame({"timestamp": times, "endpoint": endpoint, "lbm": delay, "ccm": missed, "label": label})
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `rows.parquet` and the registry `models` with `rule_based-links` and `composite-links`."""
    folder = tmp_path_factory.mktemp("monitoring")
    make_rows().to_parquet(folder / "rows.parquet", index=False)
    session = session_of(folder)
    for plugin in ("rule_based", "changepoint", "composite"):
        overrides = ["metrics=[lbm,ccm]"] if plugin != "composite" else []
        if plugin == "composite":
            overrides += ["members=[rule_based-links@1.0.0,changepoint-links@1.0.0]"]
        train(
            TrainRequest(
                plugin,
                "links",
                str(folder / "rows.parquet"),
                overrides=tuple(overrides),
                runs=str(folder / "runs"),
            ),
            session,
        )
    session.registry.promote("composite-links@1.0.0", "production", force=True, reason="few rows")
    return folder


def session_of(folder: Path) -> Session:
    """A session over the registry of `folder`."""
    return Session(Host(), Registry(folder / "models"), SilentProgress())
