"""Progress on stderr: a rich bar on a terminal, a plain line every few seconds elsewhere, nothing when silent."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from ocad.errors import printable
from ocad.protocols import Progress, ProgressTask

PLAIN_SECONDS = 5.0
"""Seconds between two plain lines of one task."""


def console_progress() -> Progress:
    """The progress that fits stderr."""
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


class RichProgress:
    """One rich bar for each open task."""

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[ProgressTask]:
        """See `ocad.protocols.Progress`."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bars:
            identifier = bars.add_task(printable(label), total=total, note="")
            yield _Task(lambda step, note: bars.update(identifier, advance=step, note=note))


class PlainProgress:
    """A line at the start and the end of a task, and at most one every `PLAIN_SECONDS` between."""

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[ProgressTask]:
        """See `ocad.protocols.Progress`."""
        done, last, latest = 0.0, time.monotonic(), ""
        goal = f"/{total:g}" if total else ""

        def update(steps: float, note: str) -> None:
            nonlocal done, last, latest
            done, latest = done + steps, note
            if time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                print(f"{printable(label)}: {done:g}{goal} {note}".rstrip(), file=sys.stderr, flush=True)

        yield _Task(update)
        print(f"{printable(label)}: done, {done:g}{goal} {latest}".rstrip(), file=sys.stderr, flush=True)


class SilentProgress:
    """Says nothing; for tests and embedding."""

    def task(self, label: str, total: float | None = None) -> AbstractContextManager[ProgressTask]:
        """See `ocad.protocols.Progress`."""
        return _silent()


@contextmanager
def _silent() -> Iterator[ProgressTask]:
    yield _Task(lambda steps, note: None)


class _Task:
    def __init__(self, update: Callable[[float, str], None]) -> None:
        self._update = update

    def advance(self, steps: float = 1, **values: float) -> None:
        self._update(steps, "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
