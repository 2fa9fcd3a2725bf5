"""Which part a row belongs to: as given, at random, by time, or by group; the same for the same rows and seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ocad.catalogue import Kind
from ocad.errors import DataError, UsageError
from ocad.tabular.columns import column_of, seconds, try_categories
from ocad.tabular.kinds import kind_of
from ocad.tabular.scalers import mix
from ocad.tabular.spec import Split
from ocad.times import Clock

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
_WRITTEN = {"train": TRAIN, "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "test": TEST}

Assign = Callable[[pa.Table, int], NDArray[np.int8]]
"""The part (0 train, 1 validation, 2 test) of each row of a table whose first row has that number in the file."""


@dataclass(frozen=True)
class Shares:
    """The shares of the log's rows that validate and test; 0 for a part that has a file of its own."""

    validation: float
    test: float


def assigner(
    split: Split,
    column: str | None,
    shares: Shares,
    seed: int,
    times: Callable[[], Iterable[pa.Table]],
    clock: Callable[[], Clock],
    kind: Kind | None = None,
) -> Assign:
    """The rule that `split` stands for; `times` reads the column again and is used for `time` alone; `kind` is the column's, by
    its type where it is None.

    Raises `UsageError` where the kind needs a column and none is named.
    """
    if split.kind == "given" and column:
        return lambda table, first: _as_given(table, column, first)
    if split.kind in ("random", "given"):
        return lambda table, first: _by_chance(mix(np.arange(first, first + len(table), dtype=np.uint64), seed), shares)
    if column is None:
        raise UsageError(
            f"`split.kind={split.kind}` needs a column", f"name it as `split.column` or `features.{split.kind}`"
        )
    if split.kind == "group":
        return lambda table, first: _by_chance(mix(group_codes(column_of(table, column), column, kind), seed), shares)
    later, latest = _thresholds(times(), column, shares, clock)

    def by_time(table: pa.Table, first: int) -> NDArray[np.int8]:
        moments = seconds(column_of(table, column), column, clock(), first)
        return ((moments >= later).astype(np.int8) + (moments >= latest)).astype(np.int8)

    return by_time


def group_codes(column: pa.Array, name: str, kind: Kind | None) -> NDArray[np.uint64]:
    """A number for each group: a whole number as it is, text by two checksums; one for all that are missing or odd."""
    values, _ = try_categories(column, name, kind or kind_of(column.type) or "text")
    if pa.types.is_integer(values.type):
        return np.asarray(values.fill_null(-1).to_numpy().astype(np.uint64))
    encoded = values.fill_null("").dictionary_encode()
    texts = [text.encode() for text in encoded.dictionary.to_pylist()]
    codes = np.asarray([zlib.crc32(text) << 32 | zlib.adler32(text) for text in texts], np.uint64)
    return np.asarray(codes[encoded.indices.to_numpy()])


def _by_chance(hashes: NDArray[np.uint64], shares: Shares) -> NDArray[np.int8]:
    uniform = (hashes >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    train = 1 - shares.validation - shares.test
    return ((uniform >= train).astype(np.int8) + (uniform >= 1 - shares.test)).astype(np.int8)


def _as_given(table: pa.Table, column: str, first: int) -> NDArray[np.int8]:
    words = column_of(table, column).cast(pa.string()).dictionary_encode()
    parts = np.asarray([_WRITTEN.get(word, -1) for word in words.dictionary.to_pylist()] or [-1], np.int8)
    assigned: NDArray[np.int8] = parts[words.indices.fill_null(0).to_numpy()]
    assigned[words.is_null().to_numpy(zero_copy_only=False)] = -1
    if (assigned < 0).any():
        row = int((assigned < 0).argmax())
        raise DataError(
            f"column `{column}` holds `{words[row].as_py()}` in row {first + row}",
            "write `train`, `validation` or `test`",
        )
    return assigned


def _thresholds(
    tables: Iterable[pa.Table], column: str, shares: Shares, clock: Callable[[], Clock]
) -> tuple[float, float]:
    """The first moments of validation and of test: rows of one moment are never parted."""
    moments = np.concatenate([seconds(column_of(table, column), column, clock()) for table in tables])
    moments.sort()
    rows = len(moments)
    places = (round(rows * (1 - shares.validation - shares.test)), round(rows * (1 - shares.test)))
    later, latest = (float(moments[place]) if place < rows else np.inf for place in places)
    return later, latest
