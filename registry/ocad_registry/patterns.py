"""Patterns of `like`, matched in a time that grows with the text and never with the ways to read the pattern."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property


class Piece:
    """Characters that follow one another, None for any one."""

    def __init__(self, characters: Sequence[str | None]) -> None:
        self._characters = characters
        self._literal = None if None in characters else "".join(filter(None, characters))

    def __len__(self) -> int:
        return len(self._characters)

    def fits(self, text: str, place: int) -> bool:
        """Whether it stands at `place`."""
        if self._literal is not None:
            return text.startswith(self._literal, place)
        here = text[place : place + len(self)]
        return len(here) == len(self) and all(
            wanted in (None, found) for wanted, found in zip(self._characters, here, strict=True)
        )

    def end(self, text: str, start: int) -> int:
        """Where it ends when it stands as early as it can from `start` on; -1 when nowhere."""
        if self._literal is not None:
            place = text.find(self._literal, start)
            return -1 if place < 0 else place + len(self)
        # shift-and: bit n of the state says that the first n + 1 characters fit here (Baeza-Yates and Gonnet 1992)
        state, last = 0, 1 << (len(self) - 1)
        for place in range(start, len(text)):
            state = (state << 1 | 1) & self._masks.get(text[place], self._any)
            if state & last:
                return place + 1
        return -1

    @cached_property
    def _any(self) -> int:
        return sum(1 << place for place, wanted in enumerate(self._characters) if wanted is None)

    @cached_property
    def _masks(self) -> dict[str, int]:
        masks: dict[str, int] = {}
        for place, wanted in enumerate(self._characters):
            if wanted is not None:
                masks[wanted] = masks.get(wanted, self._any) | 1 << place
        return masks


class Pattern:
    """`pieces` in their order with any characters between two, the first at the beginning and the last at the end."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._first, *self._middle, self._last = pieces if len(pieces) > 1 else (*pieces, Piece(()))
        self._exact = len(pieces) == 1

    def matches(self, text: str) -> bool:
        """Whether `text` as a whole is like it."""
        if self._exact:
            return len(text) == len(self._first) and self._first.fits(text, 0)
        if len(text) < len(self._first) + len(self._last) or not self._first.fits(text, 0):
            return False
        place, end = len(self._first), len(text) - len(self._last)
        for piece in self._middle:
            place = piece.end(text, place)
            if not 0 <= place <= end:
                return False
        return self._last.fits(text, end)
