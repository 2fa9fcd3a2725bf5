"""Line-based logs: blocks of lines with their numbers, and a count of those that do not parse."""

from __future__ import annotations

import codecs
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ocad.errors import DataError
from ocad.tables import open_bytes, unreadable

logger = logging.getLogger("ocad.data")
BLOCK_BYTES = 8 << 20
_SHOWN = 60


def line_blocks(path: Path) -> Iterator[tuple[int, pa.Array]]:
    """The number of the block's first line (from 1) and its lines as text, about `BLOCK_BYTES` at a time."""
    number, rest = 1, b""
    with open_bytes(path) as file:
        while block := _read(path, file):
            if number == 1 and not rest:
                block = block.removeprefix(codecs.BOM_UTF8)
            *lines, rest = (rest + block).split(b"\n")
            if lines:
                yield number, _text(lines)
                number += len(lines)
    if rest:
        yield number, _text([rest])


def _read(path: Path, file: IO[bytes]) -> bytes:
    try:
        return file.read(BLOCK_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


class LineCheck:
    """Keeps the lines that match `pattern`; allows `limit` others a pass, which it counts."""

    def __init__(self, path: Path, pattern: str, limit: int, blank: str = r"^\s*$") -> None:
        self.path, self.pattern, self.limit, self.blank = path, pattern, limit, blank
        self.bad = 0
        """Lines left out in this pass."""
        self.first_bad: int | None = None

    def whole_pass(self) -> Iterator[tuple[pa.Array, NDArray[np.int64]]]:
        """A new pass over the file: the good lines of each block with their numbers; warns at its end of those left out."""
        self.bad, self.first_bad = 0, None
        for number, block in line_blocks(self.path):
            lines, numbers = self.keep(number, block)
            if len(lines):
                yield lines, numbers
        self._tell()

    def keep(self, number: int, lines: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
        """The good lines and their numbers; those that match `blank` are neither.

        Raises `DataError` at the line that is too many.
        """
        numbers = np.arange(number, number + len(lines))
        fits = pc.match_substring_regex(lines, self.pattern).to_numpy(zero_copy_only=False)
        empty = pc.match_substring_regex(lines, self.blank).to_numpy(zero_copy_only=False)
        self.reject(lines, numbers, ~fits & ~empty)
        return lines.filter(pa.array(fits)), numbers[fits]

    def reject(self, lines: pa.Array, numbers: NDArray[np.int64], wrong: NDArray[np.bool_]) -> None:
        """Counts the `wrong` lines."""
        places = np.flatnonzero(wrong)
        if not len(places):
            return
        self.first_bad = self.first_bad or int(numbers[places[0]])
        if self.bad + len(places) > self.limit:
            place = int(places[self.limit - self.bad])
            text = lines[place].as_py()
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            count = f" and only {self.limit} may be left out" if self.limit else ""
            raise DataError(
                f"line {numbers[place]} of `{self.path}` does not parse{count}: `{shown}`",
                "correct it, or allow more with `--max-bad-lines` (`data.max_bad_lines`)",
            )
        self.bad += len(places)

    def _tell(self) -> None:
        if self.bad:
            logger.warning(
                "`%s`: %d lines do not parse, left out; the first is %d", self.path, self.bad, self.first_bad
            )


def _text(lines: list[bytes]) -> pa.Array:
    """`lines` as text; one that is not UTF-8 keeps its place, as text that no format accepts."""
    try:
        return pa.array(lines, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([line.decode("utf-8", "backslashreplace") for line in lines], pa.string())
