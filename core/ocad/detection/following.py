"""Rows in as JSON lines, incidents out as they happen; what has been learnt from them survives a restart in a file."""

from __future__ import annotations

import json
import math
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ocad.detection.incidents import Incident, PointResult, time_us
from ocad.errors import DataError, UsageError, nearest
from ocad.runs import write_atomically

if TYPE_CHECKING:
    from ocad.detection.ensemble import Ensemble

SAVE_EVERY_S = 60.0
"""Seconds between two savings of the state; a kill loses what was learnt since the last one."""


@dataclass(slots=True)
class Follower:
    """Rows in as JSON lines, incidents out as they open, go on and close.

    A row is `{"timestamp": ISO 8601, "endpoint": NAME, METRIC: number or null, …}`; `endpoint` may be missing. A row that
    cannot be used is refused with its reason, counted, and changes nothing.
    """

    watch: Ensemble
    refused: dict[str, int] = field(default_factory=dict)
    """How many rows were refused, by `reason_of` the error."""
    rows: int = 0
    _open: dict[str, str] = field(default_factory=dict)

    def take(self, line: str) -> tuple[int, PointResult]:
        """One row: its time in µs and what it meant. Raises `DataError` naming what is wrong with it."""
        try:
            endpoint, moment, values = self._parse(line)
            result = self.watch.detect_point(endpoint, moment, values)
        except DataError as error:
            reason = reason_of(error)
            self.refused[reason] = self.refused.get(reason, 0) + 1
            raise
        self.rows += 1
        return moment, result

    def news(self, incident: Incident) -> str | None:
        """`opened`, `changed` (another kind, or more metrics) or `closed`; None when nothing new is to be told."""
        if not incident.open:
            self._open.pop(incident.id, None)
            return "closed"
        gist = f"{incident.kind} {sorted(incident.metrics)}"
        before, self._open[incident.id] = self._open.get(incident.id), gist
        return "opened" if before is None else "changed" if before != gist else None

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON-able values: the detector's state, and what was told of open incidents."""
        return {"detector": self.watch.state(), "told": dict(self._open)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.watch.restore(state["detector"])
        self._open = dict(state["told"])

    def _parse(self, line: str) -> tuple[str, int, list[float]]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(
                "a line is no JSON", "send one JSON object per line, as `ocad probe --out -` does"
            ) from None
        if not isinstance(row, dict) or not isinstance(row.get("timestamp"), str):
            raise DataError("a row has no `timestamp`", "send its time as text in ISO 8601")
        try:
            moment = time_us(row["timestamp"])
        except (ValueError, OverflowError):
            raise DataError("a row's `timestamp` is no time", "send it in ISO 8601 with its zone") from None
        return str(row.get("endpoint") or ""), moment, [_number(row, metric) for metric in self.watch.metrics]


class StateFile:
    """A follower's state in the file `path`, replaced as a whole every `every_s` seconds and at the end.

    `owner` says whose state it is, such as the version's reference and digest: that of another is refused. A file that
    cannot be written does not stop the detection: `warn` is told once until it works again.
    """

    def __init__(
        self,
        path: Path,
        owner: Mapping[str, str],
        follower: Follower,
        warn: Callable[[str], None],
        every_s: float = SAVE_EVERY_S,
    ) -> None:
        self._path, self._owner, self._follower = path, dict(owner), follower
        self._warn, self._every_s = warn, every_s
        self._saved_s = time.monotonic()
        self._failing = False

    def restore(self) -> bool:
        """Lets the follower go on from the file; False when there is none yet.

        Raises `DataError` for a file that cannot be read or holds no state, `UsageError` for the state of another version.
        """
        hint = "remove the file to begin anew, or name another"
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            owner = {name: kept["of"][name] for name in self._owner}
            if owner == self._owner:
                self._follower.restore(kept["state"])
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DataError(f"cannot read the state `{self._path}` ({error.strerror})", hint) from None
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            self._follower.watch.forget()
            raise DataError(f"`{self._path}` holds no state of a detector", hint) from None
        if owner != self._owner:
            said, wanted = (", ".join(map(str, one.values())) for one in (owner, self._owner))
            raise UsageError(f"the state `{self._path}` is of another version ({said}, not {wanted})", hint)
        return True

    def row_taken(self) -> None:
        """Saves when it is time to; costs less than a microsecond when it is not."""
        if time.monotonic() - self._saved_s >= self._every_s:
            self.save()

    def save(self) -> bool:
        """Replaces the file by the present state; returns whether that worked."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps({"of": self._owner, "state": self._follower.state()}))
        except OSError as error:
            if not self._failing:
                self._warn(f"cannot save the state in `{self._path}` ({error.strerror}); tried again every minute")
            self._failing = True
        else:
            self._failing = False
        self._saved_s = time.monotonic()
        return not self._failing


def follow(lines: Iterable[str], follower: Follower, warn: Callable[[str], None]) -> Iterator[tuple[int, PointResult]]:
    """The time and meaning of each usable row of `lines`; `warn` is told once of each reason for which rows are refused."""
    for line in lines:
        if not line.strip():
            continue
        try:
            yield follower.take(line)
        except DataError as error:
            if follower.refused[reason_of(error)] == 1:
                warn(f"a row was refused: {error}")


def lines_until_stopped(stream: TextIO) -> Iterator[str]:
    """The lines of `stream` until it ends, or until SIGINT or SIGTERM, which let the row at work be finished."""
    stopping = waiting = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        if waiting:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stopping:
            waiting = True
            line = stream.readline()
            waiting = False
            if not line:
                return
            yield line
    except KeyboardInterrupt:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reason_of(error: DataError) -> str:
    """What is wrong without the names and times of this one row, so that there are few reasons however many rows."""
    return re.sub("`[^`]*`", "…", error.message)


def _number(row: Mapping[str, Any], metric: str) -> float:
    if metric not in row:
        known = [name for name in row if name not in ("timestamp", "endpoint")]
        raise DataError(f"a row has no `{metric}`", nearest(metric, known) + "; a lost measurement is null")
    value = row[metric]
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"a row's `{metric}` is no number", "send a number, or null where it was lost")
    try:
        return float(value)
    except OverflowError:
        raise DataError(f"a row's `{metric}` is no number", "send one that fits 64 bits") from None
