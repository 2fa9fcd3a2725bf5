"""Writes the reference of the command line, docs/cli.md, from the commands themselves: `python -m ocad.cli.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc

import click

from ocad.cli.main import cli

HEADER = """# The command line

`ocad` and `python -m ocad` are the same. Data goes to stdout, everything else to stderr. Every command takes `--json` (one
JSON value on stdout and nothing else; a failure is `{"error": {"code", "message", "hint"}}`) and `--debug` (the traceback of
a failure). Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a gate, parity or verification said no.

This page is written by `python -m ocad.cli.reference > docs/cli.md` from the commands themselves.
"""


def write_reference() -> str:
    """The whole page as markdown."""
    return HEADER + "".join(_describe(cli, click.Context(cli, info_name="ocad")))


def _describe(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _describe(child, click.Context(child, info_name=name, parent=context))
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n## {context.command_path}\n\n`{context.command_path} {usage}`\n\n{cleandoc(command.help or '')}\n"
    options = [record for option in command.params if (record := option.get_help_record(context))]
    if options:
        yield "\n| option | meaning |\n| --- | --- |\n"
        for record in options:
            name, meaning = (" ".join(cell.split()).replace("|", r"\|") for cell in record)
            yield f"| `{name}` | {meaning} |\n"


if __name__ == "__main__":
    click.echo(write_reference(), nl=False)
