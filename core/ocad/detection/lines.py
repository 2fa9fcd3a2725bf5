"""The lines of a stream that may say nothing for long: bounded, with a word for every wait, until it ends or is stopped."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_S = 0.25
"""How long silence lasts until it is told, in seconds."""
MOST_BYTES = 1 << 20
"""The longest line that is read; what is beyond it is left out up to its end."""
_BLOCK = 1 << 16


class Stop:
    """Whether SIGINT or SIGTERM came; the row at work is finished."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Takes the two signals within the block."""

        def ask(*_: object) -> None:
            self.asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def lines_until_stopped(descriptor: int, stop: Stop, most_bytes: int = MOST_BYTES) -> Iterator[str | float]:
    """The lines of the open file `descriptor`, and for each wait in which none came how many seconds it took.

    A wait counts `WAIT_S` at most: a process that was stopped, or busy, has not listened. Bytes that are no UTF-8 become
    U+FFFD; a line of more than `most_bytes` comes cut, so that it is no JSON.
    """
    kept, skipping = b"", False
    while not stop.asked:
        begin = time.monotonic()
        if not select.select([descriptor], [], [], WAIT_S)[0]:
            yield min(WAIT_S, time.monotonic() - begin)
            continue
        try:
            block = os.read(descriptor, _BLOCK)
        except BlockingIOError:  # another reader was faster
            continue
        if not block:
            if kept and not skipping:
                yield kept.decode(errors="replace")
            return
        waited = min(WAIT_S, time.monotonic() - begin)
        if waited > 1e-3:
            yield waited
        *whole, kept = (kept + block).split(b"\n")
        for line in whole:
            if stop.asked:
                return
            if skipping:
                skipping = False
            else:
                yield line[: most_bytes + 1].decode(errors="replace")
        if len(kept) > most_bytes:
            if not skipping:
                yield kept[: most_bytes + 1].decode(errors="replace")
            kept, skipping = b"", True
