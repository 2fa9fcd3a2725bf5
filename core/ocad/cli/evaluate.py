"""`ocad evaluate`: a registered version measured again."""

from __future__ import annotations

from pathlib import Path

import click

from ocad.cli import completing
from ocad.cli.options import open_session, registry_option
from ocad.cli.output import emit, note, output_options, table

PARTS = ("all", "train", "validation", "test")


@click.command()
@click.argument("reference", shell_complete=completing.references)
@click.option(
    "--data",
    help="Other data than it was trained on; a name of the catalogue or a file.",
    shell_complete=completing.data,
)
@click.option(
    "--part",
    type=click.Choice(PARTS),
    help="The rows that are measured (default: test of its own data, all of other data).",
)
@click.option("--output", type=click.Path(path_type=Path), help="Keep prepared splits and plots in this folder.")
@registry_option
@output_options
def evaluate(reference: str, data: str | None, part: str | None, output: Path | None, registry: str | None) -> None:
    """Measure the version REFERENCE again: on the test part of its data, or on all rows of other data.

    Rows are encoded as the version was fitted to; the answer says which rows they were.
    """
    from ocad.versions import evaluate_version

    session = open_session(registry)
    version = session.registry.resolve(reference)
    measured = evaluate_version(version, session, data, output, part)
    rows = measured.rows
    note(str(rows))
    answer = {
        "ref": version.ref,
        "data": {"name": rows.context.data.name, "part": rows.part, "rows": rows.count, "as_fitted": rows.own},
        "metrics": dict(measured.metrics),
        "plots": [str(plot) for plot in measured.evaluation.plots],
    }
    if output is None:
        del answer["plots"]
    emit(answer, lambda: table(("metric", "value"), sorted(measured.metrics.items())))
