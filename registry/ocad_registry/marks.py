"""The newest alias entries that were ever accepted here, so that taking entries away again is noticed (FORMAT.md §14)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ocad_registry import digests
from ocad_registry.private import make_folder

_NUMBER = re.compile(r"[1-9][0-9]{0,14}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Mark(NamedTuple):
    """An accepted entry: its number and the sha256 of its bytes."""

    number: int
    sha256: str


class Marks:
    """The marks in the folder `cache` of the registry at `place`, a real path or a URL; `CACHE/seen/KEY/NUMBER`."""

    def __init__(self, cache: Path, place: str) -> None:
        self._root = cache / "seen"
        self._place = place

    def folder(self, name: str, alias: str) -> Path:
        """Where the marks of `name@alias` lie."""
        return self._root / digests.digest(f"{self._place}\n{name}@{alias}\n".encode())

    def read(self, name: str, alias: str) -> Mark | None:
        """The highest mark; raises `OSError` where it cannot be read."""
        folder = self.folder(name, alias)
        found = _numbers(folder)
        if not found:
            return None
        text = (folder / str(max(found))).read_text(encoding="ascii", errors="replace")
        if not _DIGEST.fullmatch(text):
            raise OSError(f"`{folder / str(max(found))}` holds no digest")
        return Mark(max(found), text)

    def keep(self, name: str, alias: str, mark: Mark) -> None:
        """Takes note of an entry that was accepted; raises `OSError` where that cannot be kept."""
        folder = self.folder(name, alias)
        make_folder(folder)
        part = folder / f".{os.getpid()}.part"
        part.write_text(mark.sha256, encoding="ascii")
        part.replace(folder / str(mark.number))
        for number in _numbers(folder):
            if number < mark.number:
                with suppress(OSError):  # another reader may have removed it; the highest counts in any case
                    (folder / str(number)).unlink()


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if _NUMBER.fullmatch(name)]  # noqa: PTH208
    except FileNotFoundError:
        return []
