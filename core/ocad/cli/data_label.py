"""`ocad data label`: incidents that people know of, put on the rows of a series."""

from __future__ import annotations

from pathlib import Path

import click

from ocad.cli import completing
from ocad.cli.mapping import mapping_options
from ocad.cli.output import emit, note, output_options, table


@click.command()
@click.argument("file", shell_complete=completing.data)
@click.option(
    "--incidents",
    type=click.Path(path_type=Path),
    required=True,
    help="A list with the columns link, from, to and perhaps kind.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="F.parquet (default: FILE-labelled.parquet in this folder)."
)
@mapping_options("file")
@output_options
def label(file: str, *, incidents: Path, out: Path | None) -> None:
    """Write the rows of FILE with `label` and `kind` from a list of incidents, both ends of each included.

    Times in the list are ISO 8601, or written as `--time-format` says; those without a zone are in `--time-zone`. Next:
    `ocad train --data F.parquet`.
    """
    from ocad.catalogue import find_data
    from ocad.cli.predict import write_parquet
    from ocad.errors import UsageError
    from ocad.timeseries.frame import read_frame
    from ocad.timeseries.labels import put_labels, read_incidents

    source = find_data(file)
    target = out or Path(f"{source.path.name.partition('.')[0]}-labelled.parquet")
    if target.suffix != ".parquet":
        raise UsageError(f"`--out` names `{target.name}`", "rows are a parquet file: end its name in `.parquet`")
    if target.exists() and target.resolve() == source.path:
        raise UsageError("`--out` is the file itself", "name another")
    listed = read_incidents(incidents, source.clock())
    frame = read_frame(source, varying=False)
    if "label" in frame.data and (before := int(frame.data["label"].sum())):
        note(f"data `{file}`: {before} labelled rows are replaced by the list")
    labelled = put_labels(source, frame.data, listed)
    write_parquet(labelled.data, target)
    rows = int(labelled.data["label"].sum())
    value = {
        "path": str(target),
        "rows": len(labelled.data),
        "labelled": rows,
        "incidents": [
            {"line": one.line, "link": one.link, "kind": one.kind, "rows": count}
            for one, count in zip(listed, labelled.rows, strict=True)
        ],
    }
    kinds = sorted({one.kind for one in listed})
    cells = [
        (kind, sum(one.kind == kind for one in listed), int((labelled.data["kind"] == kind).sum())) for kind in kinds
    ]
    share = f"{target}: {rows} of {len(labelled.data)} rows in {len(listed)} incidents"
    emit(value, lambda: f"{table(('kind', 'incidents', 'rows'), cells)}\n{share}; next `ocad train --data {target}`")
