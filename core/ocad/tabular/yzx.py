"""iPinYou logs as `make-ipinyou-data` writes them (Zhang et al. 2014): `click price 0:1 29:1 … ` a line, one-hot features.

A feature's column and value stand in the campaign's `featindex.txt` (`8:115.45.195.*⇥29`). Without that file features
are told apart by their place in the line, and their values are the indexes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ocad.errors import DataError
from ocad.tabular.text import LineCheck

LABEL, PRICE, TAGS = "click", "paid_price", "usertag"
TRAIN_FILE, TEST_FILE, INDEX_FILE = "train.yzx.txt", "test.yzx.txt", "featindex.txt"
COLUMNS = {
    "weekday": 1,
    "hour": 2,
    "IP": 8,
    "region": 9,
    "city": 10,
    "adexchange": 11,
    "domain": 12,
    "slotid": 15,
    "slotwidth": 16,
    "slotheight": 17,
    "slotvisibility": 18,
    "slotformat": 19,
    "creative": 21,
    "advertiser": 25,
    "useragent": 7,
    "slotprice": 20,
    TAGS: 26,
}
"""The columns in the order of a line (after `truncate`), with their numbers in `train.log.txt` and `featindex.txt`."""
TAG_SEPARATOR = ","
LINE = r"^[01] -?\d{1,18}(\.\d{1,18})?( \d{1,9}:1)+\s*$"
LONGEST_INDEX = 9
"""Digits of an index, in a line as in `featindex.txt`."""
SCHEMA = pa.schema(
    [(LABEL, pa.int64()), (PRICE, pa.float64()), *((name, pa.string()) for name in COLUMNS)]
)  # fmt: skip


@dataclass(frozen=True)
class FeatureIndex:
    """For each of its indexes, in their order, the column (a position in `COLUMNS`, -1 for none) and the value."""

    indexes: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: pa.Array

    @classmethod
    def read(cls, path: Path) -> FeatureIndex:
        """`featindex.txt`; raises `DataError` naming a line that does not parse, or bytes that are not UTF-8."""
        numbers = {column: position for position, column in enumerate(COLUMNS.values())}
        columns: dict[int, int] = {}
        values: dict[int, str] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"`{path}` is not UTF-8 (byte {error.start})", "write it again") from None
        for number, line in enumerate(lines, start=1):
            feature, tab, index = line.rpartition("\t")
            column, colon, value = feature.partition(":")
            if not tab or not _is_index(index) or (colon and not _is_index(column)):
                raise DataError(f"line {number} of `{path}` does not parse: `{line[:60]}`", "write it again")
            columns[int(index)] = numbers.get(int(column), -1) if colon else -1
            values[int(index)] = value
        known = sorted(columns)
        placed = np.array([columns[index] for index in known], np.int64)
        return cls(np.array(known, np.int64), placed, pa.array([values[index] for index in known], pa.string()))

    def find(self, indexes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The places of `indexes` in the file's order, and which of them it does not have."""
        if not len(self.indexes):
            return np.zeros(len(indexes), np.int64), np.ones(len(indexes), bool)
        places = np.minimum(np.searchsorted(self.indexes, indexes), len(self.indexes) - 1)
        return places, self.indexes[places] != indexes


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= LONGEST_INDEX


class YzxFile:
    """A `.yzx` file, read in blocks; `check` counts lines that do not parse or name an unknown index."""

    def __init__(self, path: Path, max_bad_lines: int = 0) -> None:
        self.path = path
        self.check = LineCheck(path, LINE, max_bad_lines)
        index = path.with_name(INDEX_FILE)
        self.index = FeatureIndex.read(index) if index.is_file() else None
        self.schema: pa.Schema = SCHEMA
        self.rows: int | None = None

    def tables(self) -> Iterator[pa.Table]:
        """The rows: `click`, `paid_price`, one text column for each of `COLUMNS`, several tags joined with commas."""
        for lines, numbers in self.check.whole_pass():
            yield self._table(lines, numbers)

    def _table(self, lines: pa.Array, numbers: NDArray[np.int64]) -> pa.Table:
        tokens = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(lines))
        lengths = pc.list_value_length(tokens).to_numpy() - 2
        flat, starts = tokens.flatten(), tokens.offsets.to_numpy()[:-1]
        is_feature = np.ones(len(flat), bool)
        is_feature[starts] = is_feature[starts + 1] = False
        ones = flat.filter(pa.array(is_feature))
        indexes = pc.utf8_slice_codeunits(ones, 0, -2).cast(pa.int64()).to_numpy()
        row = np.repeat(np.arange(len(lines)), lengths)
        if self.index is not None:
            indexes, unknown = self.index.find(indexes)
            if unknown.any():
                wrong = np.zeros(len(lines), bool)
                wrong[row[unknown]] = True
                self.check.reject(lines, numbers, wrong)
                return self._table(lines.filter(pa.array(~wrong)), numbers[~wrong])
        label = flat.take(pa.array(starts)).cast(pa.int64())
        price = flat.take(pa.array(starts + 1)).cast(pa.float64())
        place = np.arange(len(indexes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        column = np.minimum(place - 1, len(COLUMNS) - 1) if self.index is None else self.index.columns[indexes]
        columns = [
            self._column(position, name, column, indexes, row, len(lines)) for position, name in enumerate(COLUMNS)
        ]
        return pa.Table.from_arrays([label, price, *columns], schema=SCHEMA)

    def _column(
        self,
        position: int,
        name: str,
        column: NDArray[np.int64],
        indexes: NDArray[np.int64],
        row: NDArray[np.int64],
        rows: int,
    ) -> pa.Array:
        """The values of one column; a row without one is missing it."""
        mine = column == position
        values = pa.array(indexes[mine])
        values = values.cast(pa.string()) if self.index is None else self.index.values.take(values)
        owner = row[mine]
        if name != TAGS:
            chosen = np.full(rows, -1, np.int64)
            chosen[owner] = np.arange(len(owner))
            return values.take(pa.array(chosen, mask=chosen < 0))
        offsets = np.append(0, np.cumsum(np.bincount(owner, minlength=rows))).astype(np.int32)
        return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), values), TAG_SEPARATOR)
