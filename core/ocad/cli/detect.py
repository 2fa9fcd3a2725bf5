"""`ocad detect`: the rows of a frame scored by a registered version."""

from __future__ import annotations

from pathlib import Path

import click

from ocad.cli.options import open_session, registry_option
from ocad.cli.output import emit, output_options


@click.command()
@click.argument("reference")
@click.option("--data", required=True, help="A name of the catalogue, or a parquet or CSV file.")
@click.option("--output", type=click.Path(path_type=Path), help="Write rows and scores to this parquet file.")
@registry_option
@output_options
def detect(reference: str, data: str, output: Path | None, registry: str | None) -> None:
    """Score every row of the data with the version REFERENCE; higher is more anomalous."""
    from ocad.cli.predict import write_parquet
    from ocad.versions import detect_rows

    session = open_session(registry)
    version = session.registry.resolve(reference)
    frame = detect_rows(version, session, data)
    if output:
        write_parquet(frame, output)
    answer = {"ref": version.ref, "rows": len(frame), "scores": str(output) if output else None}
    emit(answer, lambda: frame.nlargest(10, "score").to_string(index=False))
