"""Prepared rows in memory, and the names of their columns on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from ocad.tables import unreadable

ID_PREFIX, NUMBER_PREFIX = "id_", "num_"
LABEL = "label"
WEIGHT, GROUP, PRICE, TRUTH = "weight", "group", "price", "true_probability"


@dataclass(frozen=True)
class Clicks:
    """The rows of one split; `len` counts them."""

    ids: NDArray[np.int64]
    """(n, fields), into the fused embedding table."""
    numerics: NDArray[np.float32]
    """(n, m), scaled."""
    label: NDArray[np.float32]
    """(n,) 0 or 1."""
    weight: NDArray[np.float32] | None = None
    group: NDArray[np.int64] | None = None
    price: NDArray[np.float32] | None = None
    truth: NDArray[np.float32] | None = None
    """The known probability of a click; simulated data alone has it."""

    def __len__(self) -> int:
        return len(self.label)


def load_clicks(path: Path) -> Clicks:
    """The rows of a prepared parquet file, read one row group at a time; raises `DataError` for another file."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return _load(file)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise unreadable(path, error) from None


def _load(file: pyarrow.parquet.ParquetFile) -> Clicks:
    names, rows = file.schema_arrow.names, file.metadata.num_rows
    fields = [name for name in names if name.startswith(ID_PREFIX)]
    numbers = [name for name in names if name.startswith(NUMBER_PREFIX)]
    ids = np.empty((rows, len(fields)), np.int64)
    numerics = np.empty((rows, len(numbers)), np.float32)
    single = {
        name: np.empty(rows, np.int64 if name == GROUP else np.float32)
        for name in (LABEL, WEIGHT, GROUP, PRICE, TRUTH)
        if name in names
    }
    start = 0
    for batch in file.iter_batches(use_threads=False):
        end = start + len(batch)
        for array, columns in ((ids, fields), (numerics, numbers)):
            for position, name in enumerate(columns):
                array[start:end, position] = batch.column(name).to_numpy()
        for name, values in single.items():
            values[start:end] = batch.column(name).to_numpy()
        start = end
    return Clicks(
        ids,
        numerics,
        single[LABEL],
        weight=single.get(WEIGHT),
        group=single.get(GROUP),
        price=single.get(PRICE),
        truth=single.get(TRUTH),
    )
