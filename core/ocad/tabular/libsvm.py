"""libsvm and libfm files: `label [qid:N] index:value … [# comment]` a line.

Where every value of the file's first block is 1 the features are ids, told apart by their place in the line: `f1`, `f2`, …
(libFM's form of a table of categories). Otherwise each index is a column of numbers `x1`, `x2`, …, 0 where it is left out;
where an index is 0 they begin with `x0`. A file that is read after training has the layout that training found. The label -1
means 0; `qid` is a column where the lines have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ocad.cells import numbers_of
from ocad.errors import DataError
from ocad.tabular.text import LineCheck, line_blocks

LABEL, QUERY = "label", "qid"
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,9})?"
_ENTRY = rf"\d{{1,18}}:{_NUMBER}"
LINE = rf"^\s*{_NUMBER}(\s+qid:\d{{1,18}})?(\s+{_ENTRY})*\s*(#.*)?$"
BLANK = r"^\s*(#.*)?$"
MOST_COLUMNS = 4096
_OTHERS = {
    r"^\S+(\s+\d+:\d+:\S+)+\s*$": ("libFFM's form `field:index:value`", "write `index:value`"),
    r"^\S+(\s+[A-Za-z_]\S*:\S+)+\s*$": ("names where indexes belong", "write `index:value`, or a CSV with a header"),
}
"""What a first line that does not parse may be, and what to do."""


@dataclass(frozen=True)
class _Lines:
    """Parsed lines: labels and queries, then indexes and values of all lines in one row, and how many each line has."""

    label: NDArray[np.float64]
    query: pa.Array
    indexes: NDArray[np.int64]
    values: NDArray[np.float64]
    lengths: NDArray[np.int64]


class LibsvmFile:
    """A libsvm or libfm file, read in blocks; `kinds` are the columns that training knew, if it has been."""

    def __init__(self, path: Path, max_bad_lines: int = 0, kinds: Iterable[str] = ()) -> None:
        self.path = path
        self.check = LineCheck(path, LINE, max_bad_lines, BLANK)
        self.rows: int | None = None
        known = [(found[1], int(found[2])) for name in kinds if (found := re.fullmatch(r"([fx])(\d{1,9})", name))]
        self._layout(known)
        kind, letter = (pa.int64(), "f") if self.one_hot else (pa.float64(), "x")
        names = [f"{letter}{place}" for place in range(1 if self.one_hot else self.first, self.width + 1)]
        query = [(QUERY, pa.int64())] if self.has_query or QUERY in set(kinds) else []
        self.schema: pa.Schema = pa.schema([(LABEL, pa.float64()), *query, *((name, kind) for name in names)])

    def tables(self) -> Iterator[pa.Table]:
        """The rows: `label`, `qid` if any, then `f…` (int64, missing where a line is short) or `x…` (float64)."""
        for lines, numbers in self.check.whole_pass():
            yield self._table(lines, numbers)

    def _layout(self, known: list[tuple[str, int]]) -> None:
        """Whether features are ids, the first and the last column: entries of the longest first line, or indexes."""
        self._name_other_form()
        letters = {letter for letter, _ in known}
        one_hot: bool | None = None if len(letters) != 1 else "f" in letters
        width, first, self.has_query = max((place for _, place in known), default=0), 1, False
        if ("x", 0) in known:
            first = 0
        for number, block in line_blocks(self.path):
            lines, _ = self.check.keep(number, block)
            parsed = _parse(lines)
            self.has_query = self.has_query or parsed.query.null_count < len(lines)
            if one_hot is None:
                one_hot = bool(len(parsed.values)) and bool((parsed.values == 1).all())
            if one_hot:
                width = max(width, int(parsed.lengths.max(initial=0)))
                break
            width = max(width, int(parsed.indexes.max(initial=0)))
            first = min(first, int(parsed.indexes.min(initial=1)))
        if not width:
            raise DataError(f"`{self.path}` has no line `label index:value …`", "check that it is a libsvm file")
        if width > MOST_COLUMNS:
            raise DataError(
                f"`{self.path}` has {width} columns of numbers, at most {MOST_COLUMNS}",
                "write categories as `index:1`, the same number on each line",
            )
        self.one_hot, self.first, self.width = bool(one_hot), first, width

    def _name_other_form(self) -> None:
        """Raises `DataError` where the first line is in a form that is known and not this one."""
        _, block = next(line_blocks(self.path), (1, pa.array([""])))
        line = block[0].as_py()
        for pattern, (what, hint) in _OTHERS.items():
            if re.match(pattern, line) and not re.match(LINE, line):
                raise DataError(f"`{self.path}` has {what}", hint)

    def _table(self, lines: pa.Array, numbers: NDArray[np.int64]) -> pa.Table:
        parsed = _parse(lines)
        wrong = self._misfits(parsed)
        if wrong.any():
            self.check.reject(lines, numbers, wrong)
            return self._table(lines.filter(pa.array(~wrong)), numbers[~wrong])
        lengths = parsed.lengths
        row = np.repeat(np.arange(len(lines)), lengths)
        place = np.arange(len(parsed.indexes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        count = self.width if self.one_hot else self.width + 1 - self.first
        cells = np.zeros((count, len(lines)), np.int64 if self.one_hot else np.float64)
        cells[place if self.one_hot else parsed.indexes - self.first, row] = (
            parsed.indexes if self.one_hot else parsed.values
        )
        short = [lengths <= column for column in range(count)] if self.one_hot else [None] * count
        columns = [pa.array(cell, mask=mask) for cell, mask in zip(cells, short, strict=True)]
        query = [parsed.query] if QUERY in self.schema.names else []
        label = pa.array(np.where(parsed.label == -1, 0, parsed.label))
        return pa.Table.from_arrays([label, *query, *columns], schema=self.schema)

    def _misfits(self, parsed: _Lines) -> NDArray[np.bool_]:
        """The lines that do not fit the layout.

        They are too long, or have a value that is not 1, an index or a number out of reach, or the same index twice.
        """
        row = np.repeat(np.arange(len(parsed.lengths)), parsed.lengths)
        wrong = parsed.lengths > self.width if self.one_hot else np.zeros(len(parsed.lengths), bool)
        wrong |= ~np.isfinite(parsed.label)
        if self.one_hot:
            wrong[row[parsed.values != 1]] = True
            return wrong
        wrong[row[(parsed.indexes < self.first) | (parsed.indexes > self.width) | ~np.isfinite(parsed.values)]] = True
        order = np.lexsort((parsed.indexes, row))
        again = (np.diff(parsed.indexes[order]) == 0) & (np.diff(row[order]) == 0)
        wrong[row[order[1:][again]]] = True
        return wrong


def _parse(lines: pa.Array) -> _Lines:
    lines = pc.replace_substring_regex(lines, r"\s*#.*$", "")
    query = pc.struct_field(pc.extract_regex(lines, r"^\s*\S+\s+qid:(?P<qid>\d+)"), [0]).cast(pa.int64())
    lines = pc.replace_substring_regex(lines, r"\s+qid:\d+", "", max_replacements=1)
    tokens = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(lines))
    lengths = pc.list_value_length(tokens).to_numpy().astype(np.int64) - 1
    flat, starts = tokens.flatten(), tokens.offsets.to_numpy()[:-1]
    is_entry = np.ones(len(flat), bool)
    is_entry[starts] = False
    pairs = pc.split_pattern(flat.filter(pa.array(is_entry)), ":", max_splits=1)
    label, _ = numbers_of(flat.take(pa.array(starts)))
    values, _ = numbers_of(pc.list_element(pairs, 1))
    return _Lines(label, query, pc.list_element(pairs, 0).cast(pa.int64()).to_numpy(), values, lengths)
