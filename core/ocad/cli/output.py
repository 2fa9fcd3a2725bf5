"""What commands print: data on stdout (JSON under `--json`), everything else on stderr, errors as one line.

A command is declared with `@output_options`, which adds `--json` and `--debug`, and ends by calling `emit`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from ocad.errors import printable, printable_json, printable_lines

Command = TypeVar("Command", bound=Callable[..., Any])


def output_options(command: Command) -> Command:
    """Adds `--json` and `--debug` to a command; the command itself does not receive them."""
    as_json = click.option("--json", is_flag=True, expose_value=False, help="One JSON value on stdout, nothing else.")
    debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of a failure.")
    return as_json(debug(command))


def wants(flag: str) -> bool:
    """Whether `flag` (`--json`, `--debug`) stands on the command line, before any `--`."""
    arguments = sys.argv[1:]
    return flag in (arguments[: arguments.index("--")] if "--" in arguments else arguments)


def emit(value: object, text: str | Callable[[], str] = "") -> None:
    """Prints `value` as JSON under `--json`, else `text` (called only when needed)."""
    if wants("--json"):
        click.echo(printable_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str)))
    else:
        click.echo(printable_lines(text() if callable(text) else text))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """`rows` under `headings`, columns aligned; numbers right, the rest left."""
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in cells) and bool(cells) for i in range(len(headings))]
    widths = [max(len(heading), *(len(row[i]) for row in cells), 0) for i, heading in enumerate(headings)]
    lines = [headings, *cells]
    aligned = (
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )
    return "\n".join(aligned)


def note(message: str) -> None:
    """One line on stderr for a person; never part of the answer."""
    click.echo(printable(message), err=True)


def tell_warnings() -> None:
    """Lets what is logged reach stderr as `note` writes it, where nobody else listens."""
    import logging

    class LastResort(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage())

    logging.lastResort = LastResort(logging.WARNING)


def fail(code: str, message: str, hint: str) -> None:
    """A failure: `{"error": …}` on stdout under `--json`, else one line on stderr."""
    if wants("--json"):
        told = {"error": {"code": code, "message": message, "hint": hint}}
        click.echo(printable_json(json.dumps(told, ensure_ascii=False)))
    else:
        click.echo(printable(f"error: {message}" + (f": {hint}" if hint else "")), err=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return printable(", ".join(map(str, value))) or "-"
    return printable(str(value))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "-"
    return True
