"""What a log can have wrong, through the whole pipeline: the error names it and nothing is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.ctr.conftest import Bench

from ocad.errors import ConfigError, DataError, UsageError

ROWS = 2_000
LABELS = np.arange(ROWS) % 3 == 0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": None}, "no label column `label`"),
        ({"label": LABELS * 2}, r"label `label` is 2 in row 0, not 0 or 1"),
        ({"label": np.where(np.arange(ROWS) == 5, np.nan, LABELS)}, "label `label` is missing in row 5"),
        ({"label": 0}, "label `label` is 0 in every"),
        ({"price": np.inf}, "column `price` is infinite in row 0"),
    ],
)
def test_a_log_that_cannot_be_used(bench: Bench, columns: dict[str, Any], message: str) -> None:
    before = len(bench.session.registry.list())
    with pytest.raises(DataError, match=message):
        bench.train("logistic", name="refused", data=bench.write("refused", **columns))
    assert len(bench.session.registry.list()) == before


def test_a_column_without_a_value_is_refused_where_it_is_named(bench: Bench) -> None:
    """`auto` leaves such a column out with a word instead (tests/tabular/test_kinds.py)."""
    empty, named = bench.write("empty", price=np.nan), "features.numeric=[{column: price}]"
    with pytest.raises(DataError, match="column `price` has no value in the training rows"):
        bench.train("logistic", named, name="refused", data=empty)


def test_a_configuration_that_names_an_absent_field(bench: Bench) -> None:
    with pytest.raises(DataError, match=r"`features.categorical` names the column `usr`.*did you mean `user`"):
        bench.train("logistic", "features.categorical=[{column: usr}]")
    with pytest.raises(ConfigError, match="embeding"):
        bench.train("deepfm", "network.embeding=4")


def test_a_truncated_file(bench: Bench, tmp_path: Path) -> None:
    whole = bench.log.read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot read `.*cut.parquet`"):
        bench.train("logistic", data=cut)


def test_preprocessing_that_onnx_cannot_express(bench: Bench) -> None:
    """A raw graph that is asked for and cannot be is an error that says which column; without it the model trains."""
    hashed = "features.categorical=[{column: item, max_values: 5, buckets: 8}]"
    with pytest.raises(UsageError, match="`item` is text that is hashed"):
        bench.train("logistic", hashed, "export.raw=true", name="hashed")
    assert bench.train("logistic", hashed, name="hashed").version.manifest.parity.passed  # type: ignore[union-attr]
