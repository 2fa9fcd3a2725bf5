"""`ocad evaluate`: a registered version measured again."""

from __future__ import annotations

from pathlib import Path

import click

from ocad.cli import completing
from ocad.cli.options import open_session, registry_option
from ocad.cli.output import emit, output_options, table


@click.command()
@click.argument("reference", shell_complete=completing.references)
@click.option(
    "--data",
    help="Other data than it was trained on; a name of the catalogue or a file.",
    shell_complete=completing.data,
)
@click.option("--output", type=click.Path(path_type=Path), help="Keep prepared splits and plots in this folder.")
@registry_option
@output_options
def evaluate(reference: str, data: str | None, output: Path | None, registry: str | None) -> None:
    """Measure the version REFERENCE again on the test part of its data."""
    from ocad.versions import evaluate_version

    session = open_session(registry)
    version = session.registry.resolve(reference)
    evaluation = evaluate_version(version, session, data, output)
    answer = {
        "ref": version.ref,
        "metrics": dict(evaluation.metrics),
        "plots": [str(plot) for plot in evaluation.plots],
    }
    if output is None:
        del answer["plots"]
    emit(answer, lambda: table(("metric", "value"), sorted(evaluation.metrics.items())))
