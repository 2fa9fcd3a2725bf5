"""`--time Time --endpoint Link --map "udp_echo=RTT (ms) [ms]"`: how the columns of somebody else's table are read."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = ("time", "endpoint", "time_zone", "time_format", "time_unit", "max_bad_lines")


def mapping_options(argument: str = "data", streams: bool = False) -> Callable[[Command], Command]:
    """Adds the options to a command; they become part of the reference in its parameter `argument`.

    With `streams` the reference may be `-`, and the command is told the `time_zone` as well, in which it tells times.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def mapped(**values: Any) -> Any:
            options = {name: values.pop(name) for name in OPTIONS}
            columns = values.pop("mapped")
            if columns or any(value is not None for value in options.values()):
                values[argument] = _reference(values.get(argument), options, columns, streams)
            if streams:
                values["time_zone"] = options["time_zone"]
            return command(**values)

        decorated: Any = mapped
        for option in reversed(_options()):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _reference(data: str | None, options: dict[str, Any], columns: tuple[str, ...], streams: bool) -> str:
    from ocad.catalogue import mapped_reference
    from ocad.errors import UsageError

    if not data or (data == "-" and not streams):
        raise UsageError("`--map`, `--time` and the like say how a file is read", "give one with `--data`")
    fields = {name: value for name, value in options.items() if name != "time"}
    return mapped_reference(data, {"timestamp": options["time"], **fields}, columns)


def _options() -> list[Callable[[Any], Any]]:
    return [
        click.option("--time", metavar="COLUMN", help="The column of times (default: timestamp)."),
        click.option("--endpoint", metavar="COLUMN", help="The column that names the link (default: endpoint)."),
        click.option(
            "--map", "mapped", multiple=True, metavar="METRIC=COLUMN", help='As "udp_echo=RTT (ms) [ms]"; repeat it.'
        ),
        click.option("--time-zone", metavar="ZONE", help="Of times without a zone, as Europe/Madrid (default: UTC)."),
        click.option("--time-format", metavar="FORMAT", help="Of times that are not ISO 8601, as %d.%m.%Y %H:%M:%S."),
        click.option("--time-unit", type=click.Choice(["s", "ms", "us", "ns"]), help="Of times that are numbers."),
        click.option(
            "--max-bad-lines",
            type=click.IntRange(min=0),
            metavar="N",
            help="Rows that may be left out: they do not parse.",
        ),
    ]
