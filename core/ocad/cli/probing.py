"""What the commands of `ocad probe` share: options, where rows go, the summary."""

from __future__ import annotations

import contextlib
from array import array
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import click

from ocad.cli.output import Command, emit, note, wants
from ocad.errors import UsageError

if TYPE_CHECKING:
    from ocad.probe.measurement import Row
    from ocad.probe.responder import Responder
    from ocad.probe.rows import Sink

LEVELS = (0, 50, 90, 99, 100)


class Counts(Protocol):
    """What became of the messages."""

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""


class Measuring(Protocol):
    """A measurement that can be run and interrupted."""

    @property
    def counts(self) -> Counts:
        """What became of the messages."""

    def run(self) -> None:
        """Measures to the end or KeyboardInterrupt."""


def pace_options(command: Command) -> Command:
    """Adds `--rate`, `--duration` and `--timeout`."""
    rate = click.option("--rate", type=float, default=10.0, show_default=True, help="Requests a second.")
    duration = click.option("--duration", type=float, default=60.0, show_default=True, help="Seconds to measure.")
    timeout = click.option(
        "--timeout", type=float, default=1.0, show_default=True, help="Seconds after which a reply is lost."
    )
    return rate(duration(timeout(command)))


def measuring_options(command: Command) -> Command:
    """Adds `--out` and `--endpoint`."""
    out = click.option(
        "--out", metavar="FILE", help="Write the rows there (.parquet, .csv, .jsonl; `-`: JSON lines on stdout)."
    )
    endpoint = click.option("--endpoint", metavar="NAME", help="Give each row this `endpoint`.")
    return out(endpoint(command))


def require_one(command: str, *, target: object, respond: object) -> None:
    """Raises `UsageError` unless exactly one of both is given."""
    if (target is None) == (respond is None):
        raise UsageError(f"`{command}` needs either `--target` or `--respond`", "give one of the two")


class Rows:
    """A context manager that takes the rows of `metric`, writes them to `out` if given, and keeps their values."""

    def __init__(self, out: str | None, metric: str, endpoint: str | None) -> None:
        from ocad.probe.rows import STANDARD_OUTPUT, open_sink

        self.out, self.metric = out, metric
        self.on_stdout = out == STANDARD_OUTPUT
        if self.on_stdout and wants("--json"):
            raise UsageError("`--out -` and `--json` both write to stdout", "leave one of the two out")
        self._values = array("d")
        self._sink: Sink | None = open_sink(out, metric, endpoint) if out is not None else None

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, row: Row) -> None:
        """Takes the next row."""
        if row.value == row.value:  # not lost
            self._values.append(row.value)
        if self._sink is not None:
            self._sink.add(row)

    def close(self) -> None:
        """Writes what is left to write."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.close()

    def quantiles(self) -> dict[str, float] | None:
        """The quantiles of the values by name, interpolated linearly; None when there are none."""
        values = sorted(self._values)
        return {f"p{level}": round(_quantile(values, level / 100), 3) for level in LEVELS} if values else None


def measure(measurement: Measuring, target: str, rows: Rows) -> None:
    """Runs it to the end or Ctrl-C, then writes and reports; the report goes to stderr when the rows have stdout."""
    with contextlib.suppress(KeyboardInterrupt):
        measurement.run()
    rows.close()
    counts, quantiles = measurement.counts.as_dict(), rows.quantiles()
    text = _summary(counts, quantiles)
    if rows.on_stdout:
        note(text)
    else:
        key = rows.metric if rows.metric == "ccm" else f"{rows.metric}_us"
        emit({"target": target, **counts, key: quantiles, "output": rows.out}, text)


def respond(responder: Responder, what: str, place: str, count: str = "answered") -> None:
    """Answers until Ctrl-C, and says where and how often."""
    note(f"answering {what} on {place}; Ctrl-C ends")
    with contextlib.suppress(KeyboardInterrupt):
        responder.run()
    emit({"address": place, count: responder.answered}, f"{count} {responder.answered} messages")


def _quantile(ordered: list[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _summary(counts: dict[str, int], quantiles: dict[str, float] | None) -> str:
    values = ", ".join(f"{name} {value:.4g}" for name, value in (quantiles or {}).items()) or "none measured"
    happened = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
    return f"{happened or 'nothing sent'}; {values}"
