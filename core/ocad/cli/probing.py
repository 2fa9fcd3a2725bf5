"""What the commands of `ocad probe` share: options, where rows go, the summary."""

from __future__ import annotations

import contextlib
import math
from array import array
from collections.abc import Callable
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import click

from ocad.cli.output import emit, note, wants
from ocad.errors import UsageError, is_unicode, printable
from ocad.probe.measurement import Pace, Row

if TYPE_CHECKING:
    from ocad.probe.channel import Channel
    from ocad.probe.responder import Responder
    from ocad.probe.rows import Sink

OpenRows = Callable[[str], "Rows"]

LEVELS = (0, 50, 90, 99, 100)
UNITS = {"udp_echo": "_us", "ecpri": "_us", "lbm": "_us", "ccm": "_share"}
KINDS = {
    "udp_echo": "round-trip time in µs",
    "ecpri": "one-way delay in µs",
    "lbm": "round-trip time in µs",
    "ccm": "share missed",
}


class Counts(Protocol):
    """What became of the messages."""

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""


class Measuring(Protocol):
    """A measurement that can be run and interrupted."""

    @property
    def channel(self) -> Channel:
        """What it measures through."""

    @property
    def counts(self) -> Counts:
        """What became of the messages."""

    def run(self) -> None:
        """Measures to the end or KeyboardInterrupt."""


def pace_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--rate`, `--duration` and `--timeout`; the command receives them as `pace`."""

    @click.option("--rate", type=float, default=10.0, show_default=True, help="Requests a second.")
    @click.option("--duration", type=float, default=60.0, show_default=True, help="Seconds to measure (inf: no end).")
    @click.option("--timeout", type=float, default=1.0, show_default=True, help="Seconds after which a reply is lost.")
    @wraps(command)
    def gather(*, rate: float, duration: float, timeout: float, **others: Any) -> None:
        command(pace=Pace(rate, duration, timeout), **others)

    return gather


def row_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--out` and `--endpoint`; the command receives `open_rows`, which makes the `Rows` of a metric."""

    @click.option(
        "--out", metavar="FILE", help="Write the rows there (.parquet, .csv, .jsonl; `-`: JSON lines on stdout)."
    )
    @click.option("--endpoint", metavar="NAME", help="Give each row this `endpoint`.")
    @wraps(command)
    def gather(*, out: str | None, endpoint: str | None, **others: Any) -> None:
        command(open_rows=partial(Rows, out, endpoint), **others)

    return gather


def guard_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--allow` and `--limit`; the command receives `guard`, which says whom a responder answers."""

    @click.option(
        "--allow", multiple=True, metavar="CIDR", help="Answer only senders in this network; may be given again."
    )
    @click.option("--limit", type=float, default=1000.0, show_default=True, help="Most answers a second to one sender.")
    @wraps(command)
    def gather(*, allow: tuple[str, ...], limit: float, **others: Any) -> None:
        from ocad.probe.responder import Guard, parse_networks

        command(guard=Guard(limit, parse_networks(allow)), **others)

    return gather


def require_one(command: str, *, target: object, respond: object) -> None:
    """Raises `UsageError` unless exactly one of both is given."""
    if (target is None) == (respond is None):
        raise UsageError(f"`{command}` needs either `--target` or `--respond`", "give one of the two")


class Values:
    """The quantiles of values that come one by one; of more than `KEPT`, of every second (fourth, eighth …) one."""

    KEPT = 1 << 20

    def __init__(self) -> None:
        self._values = array("d")
        self._every, self._seen = 1, 0

    def add(self, value: float) -> None:
        """Takes the next value."""
        if self._seen % self._every == 0:
            self._values.append(value)
        self._seen += 1
        if len(self._values) > self.KEPT:
            self._values = self._values[::2]
            self._every *= 2

    def quantiles(self) -> dict[str, float] | None:
        """The quantiles by name, interpolated linearly; None when there are no values."""
        ordered = sorted(self._values)
        return {f"p{level}": round(_quantile(ordered, level / 100), 3) for level in LEVELS} if ordered else None


class Rows:
    """A context manager that takes the rows of `metric`, writes them to `out` if given, and sums them up.

    Nothing is created or overwritten before it is entered. Raises `UsageError` when `out` cannot be written to.
    """

    def __init__(self, out: str | None, endpoint: str | None, metric: str) -> None:
        from ocad.probe.rows import STANDARD_OUTPUT, check_output

        if endpoint is not None and not is_unicode(endpoint):
            raise UsageError(f"the endpoint's name `{printable(endpoint)}` is no UTF-8", "give another `--endpoint`")
        self.out, self.metric, self.values = out, metric, Values()
        self.on_stdout = out == STANDARD_OUTPUT
        self._endpoint = endpoint
        self._sink: Sink | None = None
        if self.on_stdout and wants("--json"):
            raise UsageError("`--out -` and `--json` both write to stdout", "leave one of the two out")
        if out is not None:
            check_output(out)

    def __enter__(self) -> Rows:
        from ocad.probe.rows import open_sink

        if self.out is not None:
            self._sink = open_sink(self.out, self.metric, self._endpoint)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.close()

    def add(self, row: Row) -> None:
        """Takes the next row."""
        if not math.isnan(row.value):
            self.values.add(row.value)
        if self._sink is not None:
            self._sink.add(row)


def measure(measurement: Measuring, target: str, rows: Rows) -> None:
    """Runs it to the end or Ctrl-C, then writes and reports; the report goes to stderr when the rows have stdout."""
    with rows, contextlib.suppress(KeyboardInterrupt):
        measurement.run()
    counts, quantiles = measurement.counts.as_dict(), rows.values.quantiles()
    text = _summary(counts, rows.metric, quantiles)
    for reason, count in measurement.channel.unreachable.items():
        note(f"`{target}` was not reached {count} times ({reason}): start the responder there, or correct `--target`")
    if rows.on_stdout:
        note(text)
    else:
        name = rows.metric + UNITS[rows.metric]
        emit({"target": target, **counts, name: quantiles, "output": rows.out}, text)


def respond(responder: Responder, what: str, place: str, count: str = "answered") -> None:
    """Answers until Ctrl-C, and says where and how often, and how much was not answered."""
    note(f"answering {what} on {place}; Ctrl-C ends")
    with contextlib.suppress(KeyboardInterrupt):
        responder.run()
    refused = {"refused": responder.refused} if responder.refused else {}
    text = f"{count} {responder.answered} messages" + "".join(f", refused {number}" for number in refused.values())
    emit({"address": place, count: responder.answered, **refused}, text)


def _quantile(ordered: list[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _summary(counts: dict[str, int], metric: str, quantiles: dict[str, float] | None) -> str:
    values = ", ".join(f"{name} {value:.4g}" for name, value in (quantiles or {}).items()) or "none measured"
    happened = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
    return f"{happened or 'nothing sent'}; {KINDS[metric]}: {values}"
