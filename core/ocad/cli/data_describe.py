"""`ocad data describe`: a stranger's table looked at, and the catalogue entry that reads it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocad.cli.output import emit, note, output_options

if TYPE_CHECKING:
    from ocad.tables import Dialect


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="The entry's name (default: the file's).")
@click.option("--write", is_flag=True, help="Write configs/data/NAME.yaml; an entry that is there is not replaced.")
@click.option(
    "--kind", type=click.Choice(["timeseries", "clicks"]), help="What a file is, where it is not found rightly."
)
@click.option("--separator", help="Of a CSV file, where it is not found rightly.")
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal sign of a CSV file.")
@click.option("--encoding", help="Of a CSV file, as latin-1.")
@output_options
def describe(
    file: Path,
    *,
    name: str | None,
    write: bool,
    kind: str | None,
    separator: str | None,
    decimal: str | None,
    encoding: str | None,
) -> None:
    """Find out what FILE holds: separator, times, links, metrics and their units; print its catalogue entry.

    Look it through before you use it: units come from the columns' names. Of a click log (a column `click` and nothing
    that names a link, or a label and no times) the columns are listed with their kinds.
    """
    from ocad.errors import DataError
    from ocad.project import CATALOGUE, own_root
    from ocad.tables import Dialect
    from ocad.timeseries.sniff import dump_entry

    if not file.is_file():
        raise DataError(f"there is no file `{file}`", "check the path")
    chosen = name or file.name.partition(".")[0]
    entry, found = _proposal(file, chosen, Dialect(separator, decimal, encoding), kind)
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
    note(found)
    note(f"written to `{target}`; next `ocad data show {chosen}`" if write else f"`--write` keeps it as `{target}`")
    emit({"name": chosen, "entry": entry, "path": str(target) if write else None}, text.rstrip())


def _proposal(file: Path, name: str, dialect: Dialect, kind: str | None) -> tuple[dict[str, Any], str]:
    """The entry, with which the file has been read, and what it holds; what is no table of times may be a click log."""
    from ocad.errors import DataError

    if kind == "clicks" or (kind is None and _is_click_log(file, dialect)):
        return _clicks(file, dialect)
    try:
        return _series(file, name, dialect)
    except DataError:
        if kind is None:
            with suppress(DataError):
                return _clicks(file, dialect)
        raise


def _series(file: Path, name: str, dialect: Dialect) -> tuple[dict[str, Any], str]:
    from ocad.catalogue import DataSource
    from ocad.timeseries.frame import read_frame
    from ocad.timeseries.sniff import sniff

    entry = sniff(file, dialect)
    frame = read_frame(DataSource.model_validate({"name": name, **entry}))
    counts = frame.counts
    return entry, f"{counts.rows} rows of {counts.endpoints} endpoints; metrics {', '.join(frame.metrics)}"


def _clicks(file: Path, dialect: Dialect) -> tuple[dict[str, Any], str]:
    from ocad.tabular.sniff import sniff_clicks

    entry = sniff_clicks(file, dialect)
    return entry, f"a click log of {len(entry['columns'])} columns beside its label `{entry['label']}`"


def _is_click_log(file: Path, dialect: Dialect) -> bool:
    """Whether the file can be nothing else: by its format, or a column `click` and none that names a link."""
    from ocad.catalogue import CLICK_SUFFIXES
    from ocad.tables import column_names

    if file.name.lower().endswith(CLICK_SUFFIXES):
        return True
    names = column_names(file, dialect)
    return "click" in names and not {"label", "endpoint"} & {*names}
