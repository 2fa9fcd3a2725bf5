"""Where notifications go on this machine, and what every sink is: the console and a JSONL file."""

from __future__ import annotations

import errno
import json
import os
import select
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

from ocad.detection.alerts.notices import Notice, dump
from ocad.detection.alerts.settings import AlertSettings
from ocad.errors import OcadError, printable

_BLOCK = 65536


class DeliveryError(OcadError):
    """A notification did not get through and is tried again.

    `answered` when the receiver is there and would not have this one; it wishes to be left alone for `wait_s`.
    """

    code = "delivery"

    def __init__(self, message: str, hint: str = "", *, answered: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(message, hint)
        self.answered, self.wait_s = answered, wait_s


class Sink(Protocol):
    """A receiver of notifications; it is used by one thread of one process at a time."""

    name: str
    stateful: bool
    """Whether it keeps the state of every alert, and so is told of each one's end."""
    overtaking: bool
    """Whether a notification that fails lets those of other groups pass; else the queue waits with it, in order."""
    resend_s: float | None
    """How often `refresh` is due while alerts fire, in real seconds; None for never."""

    def deliver(self, notice: Notice) -> None:
        """Returns once the receiver has it; raises `DeliveryError` or `OSError` when it may not."""
        ...

    def refresh(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Tells again which alerts fire; raises as `deliver`."""
        ...


class ConsoleSink:
    """One line on stderr. A kill between the line and its mark in the outbox prints it again."""

    name = "console"
    stateful = False
    overtaking = False
    resend_s: float | None = None

    def deliver(self, notice: Notice) -> None:
        """Writes the notification's text."""
        write_line(sys.stderr, printable(f"{notice.body['at']} {notice.body['text']}"))

    def refresh(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """A line that was read needs no repetition."""


class JsonlSink:
    """A file with one JSON line for each notification, exactly once, through kill -9 and full disks.

    The queue is in order and has one line under way at most. So when it is not known how the last attempt ended, the
    file's last line decides: it is ours or not; one that is torn is cut off. No other program may append to the file.
    """

    name = "jsonl"
    stateful = False
    overtaking = False
    resend_s: float | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._certain = False

    def deliver(self, notice: Notice) -> None:
        """Appends the line and waits until it is on the disk."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self._path.exists()
        with self._path.open("ab+", buffering=0) as file:
            if not self._certain and _last_key(file) == notice.key:
                os.fsync(file.fileno())
            else:
                self._append(file, (dump(notice.body) + "\n").encode(errors="replace"))
        if fresh:
            _sync_folder(self._path.parent)
        self._certain = True

    def _append(self, file: BinaryIO, line: bytes) -> None:
        self._certain = False
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise

    def refresh(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """A line that was written needs no repetition."""


def make_sinks(settings: AlertSettings, folder: Path) -> list[Sink]:
    """The sinks that `settings` ask for; relative paths are below `folder`."""
    from ocad.detection.alerts.http_sinks import AlertmanagerSink, WebhookSink

    wanted = settings.sinks
    sinks: list[Sink] = [ConsoleSink()] if wanted.console else []
    sinks += [JsonlSink(folder / wanted.jsonl.path)] if wanted.jsonl else []
    sinks += [WebhookSink(wanted.webhook)] if wanted.webhook else []
    sinks += [AlertmanagerSink(wanted.alertmanager)] if wanted.alertmanager else []
    return sinks


def write_line(stream: TextIO, line: str) -> None:
    """Writes `line` past the stream's own buffer and lock, which a reader that has stopped would hold to the very end."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        stream.write(f"{line}\n")
        stream.flush()
        return
    rest = f"{line}\n".encode(stream.encoding or "utf-8", "backslashreplace")
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def _last_key(file: BinaryIO) -> str | None:
    """The key of the file's last whole line; a torn one after it is cut off."""
    end = file.seek(0, os.SEEK_END)
    tail, start = b"", end
    while start > 0 and tail.count(b"\n") < 2:
        start = max(0, start - _BLOCK)
        file.seek(start)
        tail = file.read(end - start)
    whole = tail.rfind(b"\n") + 1
    if whole < len(tail):
        file.truncate(start + whole)
    lines = tail[:whole].splitlines()
    try:
        return str(json.loads(lines[-1])["key"]) if lines else None
    except (ValueError, KeyError, TypeError):
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
