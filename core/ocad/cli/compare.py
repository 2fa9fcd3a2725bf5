"""`ocad compare`: two registered versions on the same rows."""

from __future__ import annotations

import click

from ocad.cli import completing
from ocad.cli.evaluate import PARTS
from ocad.cli.options import open_session, registry_option
from ocad.cli.output import emit, output_options, table


@click.command()
@click.argument("first", shell_complete=completing.references)
@click.argument("second", shell_complete=completing.references)
@click.option(
    "--data",
    help="The rows that both are asked for; a name of the catalogue or a file (default: SECOND's own data).",
    shell_complete=completing.data,
)
@click.option(
    "--part", type=click.Choice(PARTS), help="Which rows (default: all of --data, test of the second's own data)."
)
@registry_option
@output_options
def compare(first: str, second: str, data: str | None, part: str | None, registry: str | None) -> None:
    """Say whether the version SECOND is better than FIRST, both asked for the same rows, with 95 % intervals.

    `better` and `worse` mean that an interval says so, for AUC or for log loss; anything less is `not shown better`.
    """
    from ocad.comparison import compare_versions

    session = open_session(registry)
    found = compare_versions(session.registry.resolve(first), session.registry.resolve(second), session, data, part)

    def text() -> str:
        rows = [
            (one.metric, one.first, one.second, one.difference, f"{one.low:+.4g} .. {one.high:+.4g}", one.verdict)
            for one in found.differences
        ]
        headings = ("metric", found.first.ref, found.second.ref, "difference", "95 % interval", "verdict")
        place = f"{found.rows} rows of `{found.data}` ({'all' if found.part == 'all' else f'{found.part} part'})"
        return f"{table(headings, rows)}\n\n`{found.second.ref}` is {found.verdict} on {place}"

    emit(found.to_json(), text)
