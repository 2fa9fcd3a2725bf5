"""`ocad data describe`: a stranger's table looked at, and the catalogue entry that reads it."""

from __future__ import annotations

from pathlib import Path

import click

from ocad.cli.output import emit, note, output_options


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="The entry's name (default: the file's).")
@click.option("--write", is_flag=True, help="Write configs/data/NAME.yaml; an entry that is there is not replaced.")
@click.option("--separator", help="Of a CSV file, where it is not found rightly.")
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal sign of a CSV file.")
@click.option("--encoding", help="Of a CSV file, as latin-1.")
@output_options
def describe(
    file: Path, *, name: str | None, write: bool, separator: str | None, decimal: str | None, encoding: str | None
) -> None:
    """Find out what FILE holds: separator, times, links, metrics and their units; print its catalogue entry.

    Look it through before you use it: units come from the columns' names.
    """
    from ocad.catalogue import DataSource
    from ocad.errors import DataError
    from ocad.project import CATALOGUE, own_root
    from ocad.tables import Dialect
    from ocad.timeseries.frame import read_frame
    from ocad.timeseries.sniff import dump_entry, sniff

    if not file.is_file():
        raise DataError(f"there is no file `{file}`", "check the path")
    chosen = name or file.name.partition(".")[0]
    entry = sniff(file, Dialect(separator, decimal, encoding))
    frame = read_frame(DataSource.model_validate({"name": chosen, **entry}))  # the proposal must read the file
    target = own_root() / CATALOGUE / f"{chosen}.yaml"
    text = dump_entry(entry)
    if write:
        if target.exists():
            raise DataError(f"`{target}` exists", "choose another `--name`, or remove it")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write `{target}` ({error.strerror})", "check the folder") from None
    counts = frame.counts
    note(f"{counts.rows} rows of {counts.endpoints} endpoints; metrics {', '.join(frame.metrics)}")
    note(f"written to `{target}`; next `ocad data show {chosen}`" if write else f"`--write` keeps it as `{target}`")
    emit({"name": chosen, "entry": entry, "path": str(target) if write else None}, text.rstrip())
