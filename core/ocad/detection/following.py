"""Rows in as JSON lines, incidents out as they happen; what has been learnt from them survives a restart in a file."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ocad.detection.clocks import MAX_AHEAD_S, SECOND, StreamClock
from ocad.detection.detector import iso_time
from ocad.detection.incidents import Incident, PointResult
from ocad.detection.lines import MOST_BYTES
from ocad.detection.presence import MOST_ENDPOINTS, Presence
from ocad.detection.units import ALARM
from ocad.errors import DataError, OcadError, UsageError, in_one_line, shown
from ocad.runs import write_atomically
from ocad.timeseries.rows import RowReader

if TYPE_CHECKING:
    from ocad.detection.ensemble import Ensemble

SAVE_EVERY_S = 60.0
"""Seconds between two savings of the state; a kill loses what was learnt since the last one."""
MOST_REASONS = 50
"""Reasons for refusing rows that are counted each for itself."""
MOST_HELD = 1_000
"""Rows that are held at a time."""
_OTHER = "other reasons"


class Held(NamedTuple):
    """A row far ahead of those around it, until the next one of its link says whether it can be true."""

    time_us: int
    values: list[float]
    rows: int
    """Rows taken before it."""


MOST_NAME = 256
"""The longest name of an endpoint, in characters."""


@dataclass(slots=True)
class Follower:
    """Rows in as JSON lines, incidents out as they open, go on and close.

    A row is `{"timestamp": ISO 8601, "endpoint": NAME, METRIC: number or null, …}`, or as `reader` says. One that
    cannot be used is refused with its reason, counted, and changes nothing. Memory is for `most_endpoints`.
    """

    watch: Ensemble
    reader: RowReader | None = None
    max_ahead_s: float = MAX_AHEAD_S
    most_endpoints: int = MOST_ENDPOINTS
    refused: dict[str, int] = field(default_factory=dict)
    """How many rows were refused, by `reason_of` the error."""
    rows: int = 0
    incidents: Counter[str] = field(default_factory=Counter)
    """How many incidents were told, by kind."""
    forgotten: int = 0
    """Endpoints that were forgotten because there were too many."""
    notes: list[str] = field(default_factory=list)
    """What a person should know, told by `follow`."""
    clock: StreamClock = field(init=False)
    presence: Presence = field(init=False)
    _open: dict[str, str] = field(default_factory=dict)
    _held: dict[str, Held] = field(default_factory=dict)
    _behind: dict[str, int] = field(default_factory=dict)
    """Since when, in the stream's time, all rows of an endpoint were before its last one."""
    _results: list[tuple[int, PointResult]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = self.reader or RowReader.of(self.watch.metrics)
        self.clock = StreamClock(self.max_ahead_s)
        self.presence = Presence(self.watch.metrics, fitted_steps(self.watch), self.most_endpoints)

    def take(self, line: str) -> list[tuple[int, PointResult]]:
        """One row: what it, and the time that has passed with it, meant, each with the stream's time in µs.

        Raises `DataError` naming what is wrong with it.
        """
        try:
            self._admit(*self._parse(line))
        except DataError as error:
            self._count(error)
            raise
        return self._taken()

    def wait(self, seconds: float) -> list[tuple[int, PointResult]]:
        """No row came for so long: who has fallen silent."""
        self.clock.wait(seconds)
        self._tell_silences()
        return self._taken()

    def finish(self) -> list[tuple[int, PointResult]]:
        """The stream has ended: a row that was held is refused."""
        for endpoint, held in self._held.items():
            self._count(_ahead(endpoint, held.time_us))
        self._held.clear()
        return self._taken()

    def news(self, incident: Incident) -> str | None:
        """`opened`, `changed` (another kind, or more metrics) or `closed`; None when nothing new is to be told."""
        if incident.id not in self._open:
            self.incidents[incident.kind] += 1
        if not incident.open:
            self._open.pop(incident.id, None)
            return "closed"
        gist = f"{incident.kind} {sorted(incident.metrics)}"
        before, self._open[incident.id] = self._open.get(incident.id), gist
        return "opened" if before is None else "changed" if before != gist else None

    @property
    def open_incidents(self) -> int:
        """How many incidents are told and not over."""
        return len(self._open)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON-able values: the detector's state, clocks, rhythms, and what was told."""
        return {
            "detector": self.watch.state(),
            "told": dict(self._open),
            "clock": self.clock.state(),
            "presence": self.presence.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; anew where that is from the future, at which every row would be late."""
        clock = state.get("clock", {})
        if self.clock.is_future(clock.get("now_us") or 0):
            self.notes.append("the state is ahead of this machine's clock: all endpoints are followed anew")
            return
        self.watch.restore(state["detector"])
        self._open = dict(state["told"])
        self.clock.restore(clock)
        self.presence.restore(state.get("presence", {}))
        now = self.clock.now_us or 0
        self._results = [(now, _silent(incident)) for incident in self.presence.open()]

    def _parse(self, line: str) -> tuple[str, int, list[float]]:
        if len(line) > MOST_BYTES:
            raise DataError(f"a line has more than {MOST_BYTES} bytes", "send one JSON object per line")
        try:
            row = json.loads(line, object_pairs_hook=_named_once)
        except (ValueError, RecursionError):
            raise DataError(
                "a line is no JSON", "send one JSON object per line, as `ocad probe --out -` does"
            ) from None
        assert self.reader is not None
        endpoint, moment, values = self.reader.read(row if isinstance(row, dict) else {})
        if len(endpoint) > MOST_NAME:
            raise DataError(f"the name of an endpoint has more than {MOST_NAME} characters", "send a shorter name")
        return endpoint, moment, values

    def _admit(self, endpoint: str, time_us: int, values: list[float]) -> None:
        usual = self.presence.allowance_us(endpoint)
        verdict = self.clock.judge(endpoint, time_us, usual)
        if verdict == "past":
            raise DataError("a row's time is before 1970", "set the clock of its sender")
        if verdict == "future":
            when = iso_time(time_us)
            message = f"a row of endpoint `{endpoint}` is ahead of this machine's clock: `{when}`"
            raise DataError(message, "set the two clocks, or allow for it with `--max-ahead`")
        held = self._held.pop(endpoint, None)
        if held is not None and 0 < time_us - held.time_us <= max(self.max_ahead_s * SECOND, usual):
            still_ahead = self.clock.judge(endpoint, held.time_us, usual) == "hold"
            if still_ahead and self.rows > held.rows:  # others went on meanwhile: it is this link's clock that differs
                self._begin_anew(endpoint)
            self._score(endpoint, held.time_us, held.values)
            verdict = "take"
        elif held is not None:
            self._count(_ahead(endpoint, held.time_us))
        if verdict == "hold":
            self._hold(endpoint, Held(time_us, values, self.rows))
        else:
            self._score(endpoint, time_us, values)

    def _score(self, endpoint: str, time_us: int, values: list[float]) -> None:
        last = self.presence.last_us(endpoint)
        if last is not None and time_us <= last and self._was_set_back(endpoint):
            self._drop(endpoint)
            self.notes.append(f"the clock of endpoint `{endpoint}` was set back: it is followed anew")
        try:
            result = self.watch.detect_point(endpoint, time_us, values)
        except DataError:
            now = self.clock.now_us or 0
            self._silence(now, self.presence.seen(endpoint, now))
            raise
        except OcadError:
            raise
        except Exception as error:  # one odd row must not end it
            reason = in_one_line(error)[:200]
            raise DataError(
                f"the detector cannot score a row of endpoint `{endpoint}` ({reason})", "report it"
            ) from error
        self.rows += 1
        self._behind.pop(endpoint, None)
        at = self.clock.take(endpoint, time_us)
        self._tell_silences()
        self._silence(at, self.presence.heard(endpoint, time_us, self.clock.now_us or 0))
        self._results.append((at, result))
        self._forget_oldest()

    def _was_set_back(self, endpoint: str) -> bool:
        """Whether rows before the endpoint's last one came for so long that they are no repetition."""
        now = self.clock.now_us or 0
        patience = max(self.max_ahead_s * SECOND, self.presence.allowance_us(endpoint))
        return now - self._behind.setdefault(endpoint, now) > patience

    def _hold(self, endpoint: str, held: Held) -> None:
        self._held[endpoint] = held
        if len(self._held) > MOST_HELD:
            oldest = next(iter(self._held))
            self._count(_ahead(oldest, self._held.pop(oldest).time_us))

    def _drop(self, endpoint: str) -> None:
        """Forgets the endpoint; an incident that is cut short by it is over."""
        if (cut := self.watch.drop(endpoint)) is not None:
            self._results.append((self.clock.now_us or 0, PointResult(cut.score, False, {}, cut)))
        self._begin_anew(endpoint)

    def _begin_anew(self, endpoint: str) -> None:
        now = self.clock.now_us or 0
        self._silence(now, self.presence.forget(endpoint, now))
        self.clock.reset(endpoint)
        self._behind.pop(endpoint, None)

    def _tell_silences(self) -> None:
        if self.clock.now_us is not None:
            self._results += [(at, _silent(incident)) for at, incident in self.presence.due(self.clock.now_us)]

    def _silence(self, at_us: int, incident: Incident | None) -> None:
        if incident is not None:
            self._results.append((at_us, _silent(incident)))

    def _forget_oldest(self) -> None:
        now = self.clock.now_us or 0
        gone = self.presence.forget_oldest(now)
        if gone is None:
            return
        endpoint, ended = gone
        if self.forgotten == 0:
            most = self.most_endpoints
            self.notes.append(f"more than {most} endpoints: those not heard for longest are forgotten")
        self.forgotten += 1
        self._silence(now, ended)
        self._drop(endpoint)
        self._held.pop(endpoint, None)

    def _count(self, error: DataError) -> None:
        reason = reason_of(error)
        if reason not in self.refused and len(self.refused) >= MOST_REASONS:
            reason = _OTHER
        self.refused[reason] = self.refused.get(reason, 0) + 1
        if self.refused[reason] == 1:
            self.notes.append(f"a row was refused: {error}")

    def _taken(self) -> list[tuple[int, PointResult]]:
        taken, self._results = self._results, []
        return taken


def fitted_steps(watch: Ensemble) -> dict[str, float]:
    """The median step in µs of every endpoint that a member was fitted on."""
    steps: dict[str, float] = {}
    for member in watch.members.values():
        steps |= {name: step for name, step in member.steps.items() if step > 0}
    return steps


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises `DataError` for one with two values of a name, of which readers take either."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"a row has two values of `{shown(twice)}`", "send one")
    return row


def _silent(incident: Incident) -> PointResult:
    return PointResult(ALARM if incident.open else 0.0, incident.open, {}, incident)


def _ahead(endpoint: str, time_us: int) -> DataError:
    when = iso_time(time_us)
    message = f"the time of a row of endpoint `{endpoint}` is `{when}`, far ahead of the rows around it"
    return DataError(message, "set the clock of its sender")


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
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
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


def follow(
    lines: Iterable[str | float], follower: Follower, warn: Callable[[str], None]
) -> Iterator[tuple[int, PointResult]]:
    """The stream's time and meaning of each usable row of `lines`, and of each silence that begins or ends.

    A number among the lines is for how many seconds none came. `warn` is told once of each reason for which rows are
    refused, and of what else a person should know.
    """
    for line in lines:
        if isinstance(line, float):
            yield from follower.wait(line)
        elif line.strip():
            with suppress(DataError):
                yield from follower.take(line)
        while follower.notes:
            warn(follower.notes.pop(0))
    yield from follower.finish()
    while follower.notes:
        warn(follower.notes.pop(0))


def reason_of(error: DataError) -> str:
    """What is wrong without the names and times of this one row, so that there are few reasons however many rows."""
    return re.sub("`.*`", "…", error.message, flags=re.DOTALL)
