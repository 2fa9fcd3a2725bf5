"""Categories and their numbers: counted on training rows, cut at a frequency floor, hashed when they are too many."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from ocad.errors import DataError

RARE = 0
"""The number of values that are rare in training, or absent from it."""
PRIME = (1 << 31) - 1
MULTIPLIER = 1_103_515_245
_MERGE_ROWS = 2_000_000


class ValueCounts:
    """How often each value occurs, over any number of batches; holds distinct values only."""

    def __init__(self) -> None:
        self._pending: list[pa.Table] = []
        self._rows = 0
        self.kind: str | None = None
        self.missing = 0

    @property
    def seen(self) -> bool:
        """Whether any value was there."""
        return self.kind is not None

    def add(self, values: pa.Array) -> None:
        """Counts `values`, as `columns.categories` made them, all of one type."""
        self.missing += values.null_count
        counts = values.drop_null().value_counts()
        if not len(counts):
            return
        self.kind = "int" if types.is_integer(values.type) else "str"
        table = pa.table({"value": counts.field("values"), "count": counts.field("counts")})
        self._pending.append(table)
        self._rows += len(table)
        if self._rows > _MERGE_ROWS:
            self._merge()
            self._rows = len(self._pending[0]) // 2  # merged again only when as much again has come

    def result(self) -> tuple[pa.Array, NDArray[np.int64]]:
        """Distinct values, the most frequent first and equals in their own order, with their counts."""
        if not self._pending:
            return pa.array([], pa.string()), np.zeros(0, np.int64)
        self._merge()
        table = self._pending[0].sort_by([("count", "descending"), ("value", "ascending")])
        return table.column("value").combine_chunks(), table.column("count").to_numpy()

    def _merge(self) -> None:
        if len(self._pending) > 1:
            merged = pa.concat_tables(self._pending).group_by("value").aggregate([("count", "sum")])
            self._pending = [merged.rename_columns(["value", "count"])]


@dataclass(frozen=True)
class Vocabulary:
    """The numbers of a column's values: 0 is rare or unseen, then one for each value or bucket, and one for missing.

    `offset` is where its rows begin in the fused embedding table. A value's own number never depends on other columns.
    """

    name: str
    values: pa.Array
    """int64 or text; empty when hashed."""
    has_missing: bool
    """Training rows miss the value: missing has the last number; otherwise it counts as unseen."""
    buckets: int = 0
    hashed_text: bool = False
    offset: int = 0
    statistics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> int:
        """How many numbers values or buckets take."""
        return self.buckets or len(self.values)

    @property
    def size(self) -> int:
        """Rows in the embedding table: rare, the known ones, missing if any."""
        return 1 + self.known + self.has_missing

    @property
    def is_text(self) -> bool:
        """Whether values are text; otherwise whole numbers."""
        return self.hashed_text if self.buckets else types.is_string(self.values.type)

    @property
    def missing_code(self) -> int:
        """The number of a missing value."""
        return 1 + self.known if self.has_missing else RARE

    def codes(self, values: pa.Array) -> NDArray[np.int64]:
        """Numbers in 0 … size - 1 (without the offset) for `values` as `columns.categories` made them."""
        values = values.cast(pa.string() if self.is_text else pa.int64())
        absent = values.is_null().to_numpy(zero_copy_only=False)
        if self.buckets:
            codes = 1 + self._hash(values)
        else:
            codes = 1 + pc.index_in(values, value_set=self.values).fill_null(-1).to_numpy().astype(np.int64)
        codes[absent] = self.missing_code
        return codes

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs; the values in the order of their numbers."""
        return {
            "name": self.name,
            "kind": "str" if self.is_text else "int",
            "values": self.values.to_pylist(),
            "has_missing": self.has_missing,
            "buckets": self.buckets,
            "offset": self.offset,
            "statistics": dict(self.statistics),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that `to_json` wrote."""
        text = value["kind"] == "str"
        return cls(
            name=value["name"],
            values=pa.array(value["values"], pa.string() if text else pa.int64()),
            has_missing=value["has_missing"],
            buckets=value["buckets"],
            hashed_text=text,
            offset=value["offset"],
            statistics=value["statistics"],
        )

    def _hash(self, values: pa.Array) -> NDArray[np.int64]:
        if not self.is_text:
            return hash_integers(values.fill_null(0).to_numpy(), self.buckets)
        encoded = values.fill_null("").dictionary_encode()
        hashes = [zlib.crc32(value.encode()) % self.buckets for value in encoded.dictionary.to_pylist()]
        codes: NDArray[np.int64] = np.asarray(hashes, np.int64)[encoded.indices.to_numpy()]
        return codes


def hash_integers(values: NDArray[np.int64], buckets: int) -> NDArray[np.int64]:
    """((v mod p)·a mod p) mod buckets with p = 2³¹ - 1 (Carter and Wegman 1979): in reach of ONNX's Mod and Mul."""
    hashed: NDArray[np.int64] = values % PRIME * MULTIPLIER % PRIME % buckets
    return hashed


def build_vocabulary(
    name: str, counts: ValueCounts, *, min_count: int, max_values: int, buckets: int, keep_missing: bool = True
) -> Vocabulary:
    """The vocabulary of the values that `counts` saw; raises `DataError` when it saw none."""
    values, occurrences = counts.result()
    if not len(values):
        raise DataError(f"column `{name}` has no value in the training rows", "leave it out")
    kept = int((occurrences >= min_count).sum())
    statistics: dict[str, Any] = {"values": len(values), "rare_values": len(values) - kept, "missing": counts.missing}
    has_missing = keep_missing and counts.missing > 0
    if kept <= max_values:
        return Vocabulary(name, values[:kept], has_missing, statistics=statistics)
    hashed = Vocabulary(name, values[:0], has_missing, buckets, counts.kind == "str")
    slices = (values[start : start + _MERGE_ROWS] for start in range(0, len(values), _MERGE_ROWS))
    occupied = len(np.unique(np.concatenate([np.unique(hashed.codes(part)) for part in slices])))
    statistics |= {"rare_values": 0, "buckets": buckets, "collision_rate": 1 - occupied / len(values)}
    return Vocabulary(name, values[:0], has_missing, buckets, counts.kind == "str", statistics=statistics)
