"""What a long-running command prints: lines that wait for a slow reader in a thread of their own, so that work goes on."""

from __future__ import annotations

import queue
import sys
import threading
from typing import TextIO

from ocad.detection.alerts.sinks import write_line
from ocad.errors import printable

MOST_LINES = 10_000
"""Lines that wait for a reader; further ones are left out and counted."""
DRAIN_S = 5.0
"""How long the end waits for a reader."""


class Teller:
    """Lines for one stream, in order; `told` never waits."""

    def __init__(self, stream: TextIO) -> None:
        self.dropped = 0
        self.gone = False
        """Whether nobody reads any more."""
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(MOST_LINES)
        self._thread = threading.Thread(target=self._write, name="teller", daemon=True)
        self._thread.start()

    def tell(self, line: str) -> None:
        """Prints `line`, what is not printable in it escaped."""
        try:
            self._lines.put_nowait(printable(line))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Gives the reader a last while."""
        try:
            self._lines.put(None, timeout=DRAIN_S)
        except queue.Full:
            return
        self._thread.join(DRAIN_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if not self.gone:
                try:
                    write_line(self._stream, line)
                except (OSError, ValueError):
                    self.gone = True


def standard_tellers() -> tuple[Teller, Teller]:
    """For standard output and standard error."""
    return Teller(sys.stdout), Teller(sys.stderr)
