"""A small log with every kind of column, and a way to prepare it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ocad.catalogue import find_data
from ocad.contexts import PreparedData
from ocad.progress import SilentProgress
from ocad.tabular.prepare import prepare
from ocad.tabular.spec import Categorical, DataSettings, Features, Numeric, Split, Temporal

FEATURES = Features(
    categorical=(Categorical(column="site"), Categorical(column="user", min_count=2)),
    numeric=(Numeric(column="age", indicator=True), Numeric(column="bid", transform="quantile")),
    temporal=(Temporal(column="time", parts=("hour", "weekday", "recency", "historical_ctr")),),
    group="user",
)
"""What `log_frame` holds."""

Prepare = Callable[..., PreparedData]


def log_frame(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """A click log: `label`, text `site`, whole `user`, `age` with NaN, `bid`, `time` in seconds."""
    generator = np.random.default_rng(seed)
    age = generator.normal(40, 10, rows)
    age[generator.random(rows) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "label": (generator.random(rows) < 0.3).astype("int64"),
            "site": generator.choice(["news", "sport", "mail", "games"], rows),
            "user": generator.integers(0, 50, rows),
            "age": age,
            "bid": generator.lognormal(0, 1, rows),
            "time": np.sort(generator.integers(1_700_000_000, 1_700_600_000, rows)),
        }
    )


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """Prepares a frame or a file with `FEATURES`, or others, into a folder of its own."""
    calls = 0

    def call(
        rows: pd.DataFrame | Path,
        features: Features = FEATURES,
        split: Split | None = None,
        *,
        data: Mapping[str, Any] | None = None,
        seed: int = 7,
    ) -> PreparedData:
        nonlocal calls
        calls += 1
        folder = tmp_path / f"prepared{calls}"
        path = rows if isinstance(rows, Path) else tmp_path / f"log{calls}.parquet"
        if isinstance(rows, pd.DataFrame):
            rows.to_parquet(path, index=False)
        settings = DataSettings(**(data or {}))
        return prepare(
            find_data(str(path)),
            features,
            split or Split(),
            settings,
            seed=seed,
            folder=folder,
            progress=SilentProgress(),
        )

    return call
