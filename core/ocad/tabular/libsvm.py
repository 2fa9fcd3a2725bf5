"""libsvm and libfm files: `label index:value …` a line.

Where every value of the file's first block is 1 the features are ids, told apart by their place in the line: `f1`, `f2`, …
(libFM's form of a table of categories). Otherwise each index is a column of numbers `x1`, `x2`, …, 0 where it is left out.
The label -1 means 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ocad.errors import DataError
from ocad.tabular.text import LineCheck, line_blocks

LABEL = "label"
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
LINE = rf"^{_NUMBER}(\s+\d{{1,18}}:{_NUMBER})*\s*$"
MOST_COLUMNS = 4096


class LibsvmFile:
    """A libsvm or libfm file, read in blocks."""

    def __init__(self, path: Path, max_bad_lines: int = 0) -> None:
        self.path = path
        self.check = LineCheck(path, LINE, max_bad_lines)
        self.rows: int | None = None
        self.one_hot, self.width = self._layout()
        kind, letter = (pa.int64(), "f") if self.one_hot else (pa.float64(), "x")
        names = [f"{letter}{place}" for place in range(1, self.width + 1)]
        self.schema: pa.Schema = pa.schema([(LABEL, pa.float64()), *((name, kind) for name in names)])

    def tables(self) -> Iterator[pa.Table]:
        """The rows: `label`, then `f…` (int64, missing where a line is short) or `x…` (float64)."""
        for lines, numbers in self.check.whole_pass():
            yield self._table(lines, numbers)

    def _layout(self) -> tuple[bool, int]:
        """Whether features are ids, and how many columns there are: entries of the longest first line, or highest index."""
        one_hot: bool | None = None
        width = 0
        for number, block in line_blocks(self.path):
            lines, _ = self.check.keep(number, block)
            _, indexes, values, lengths = _parse(lines)
            if one_hot is None:
                one_hot = bool(len(values)) and bool((values == 1).all())
                width = int(lengths.max(initial=0))
            if one_hot:
                break
            width = max(width if number > 1 else 0, int(indexes.max(initial=0)))
        if not width:
            raise DataError(f"`{self.path}` has no line `label index:value …`", "check that it is a libsvm file")
        if width > MOST_COLUMNS:
            raise DataError(
                f"`{self.path}` has {width} columns of numbers, at most {MOST_COLUMNS}",
                "write categories as `index:1`, the same number on each line",
            )
        return bool(one_hot), width

    def _table(self, lines: pa.Array, numbers: NDArray[np.int64]) -> pa.Table:
        label, indexes, values, lengths = _parse(lines)
        wrong = self._misfits(indexes, values, lengths)
        if wrong.any():
            self.check.reject(lines, numbers, wrong)
            return self._table(lines.filter(pa.array(~wrong)), numbers[~wrong])
        row = np.repeat(np.arange(len(lines)), lengths)
        place = np.arange(len(indexes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        cells = np.zeros((self.width, len(lines)), np.int64 if self.one_hot else np.float64)
        cells[place if self.one_hot else indexes - 1, row] = indexes if self.one_hot else values
        short = [lengths <= column for column in range(self.width)] if self.one_hot else [None] * self.width
        columns = [pa.array(cell, mask=mask) for cell, mask in zip(cells, short, strict=True)]
        return pa.Table.from_arrays([pa.array(np.where(label == -1, 0, label)), *columns], schema=self.schema)

    def _misfits(
        self, indexes: NDArray[np.int64], values: NDArray[np.float64], lengths: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """The lines that do not fit the layout: too long, a value that is not 1, or an index out of reach."""
        row = np.repeat(np.arange(len(lengths)), lengths)
        wrong = lengths > self.width if self.one_hot else np.zeros(len(lengths), bool)
        odd = values != 1 if self.one_hot else (indexes < 1) | (indexes > self.width)
        wrong[row[odd]] = True
        return wrong


def _parse(lines: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Labels, then indexes and values of all lines in one row, and how many each line has."""
    tokens = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(lines))
    lengths = pc.list_value_length(tokens).to_numpy().astype(np.int64) - 1
    flat, starts = tokens.flatten(), tokens.offsets.to_numpy()[:-1]
    is_entry = np.ones(len(flat), bool)
    is_entry[starts] = False
    pairs = pc.split_pattern(flat.filter(pa.array(is_entry)), ":", max_splits=1)
    label = pc.ascii_ltrim(flat.take(pa.array(starts)), characters="+").cast(pa.float64()).to_numpy()
    values = pc.ascii_ltrim(pc.list_element(pairs, 1), characters="+").cast(pa.float64()).to_numpy()
    return label, pc.list_element(pairs, 0).cast(pa.int64()).to_numpy(), values, lengths
