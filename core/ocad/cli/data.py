"""`ocad data`: what the catalogue holds, what a data set looks like, click logs prepared or simulated, incidents injected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ocad.cli import completing
from ocad.cli.data_clicks import prepare, simulate
from ocad.cli.data_describe import describe as describe_file
from ocad.cli.data_inject import inject
from ocad.cli.data_label import label
from ocad.cli.mapping import mapping_options
from ocad.cli.output import emit, note, output_options, table

if TYPE_CHECKING:
    from ocad.catalogue import DataSource
    from ocad.timeseries.frame import Frame


@click.group()
def data() -> None:
    """List, describe, prepare and simulate data sets, and inject incidents into them."""


data.add_command(prepare)
data.add_command(simulate)
data.add_command(inject)
data.add_command(describe_file, "describe")
data.add_command(label)


@data.command("list")
@output_options
def list_sets() -> None:
    """Every data set of the catalogue (`configs/data/`), and whether its files are here."""
    from ocad.catalogue import read_catalogue

    sources, broken = read_catalogue()
    rows: list[dict[str, Any]] = [
        {
            "name": source.name,
            "kind": source.kind,
            "metrics": list(source.columns),
            "description": source.description,
            "path": str(source.path),
            "missing": source.missing(),
        }
        for source in sources
    ]
    rows += [
        {"name": path.stem, "kind": None, "metrics": [], "description": "", "path": str(path), "missing": str(error)}
        for path, error in broken.items()
    ]
    for error in broken.values():
        note(f"an entry is left out: {error}")
    cells = [(row["name"], row["kind"], "no" if row["missing"] else "yes", row["description"]) for row in rows]
    emit(rows, lambda: table(("name", "kind", "here", "description"), cells))


@data.command("show")
@click.argument("name", shell_complete=completing.data)
@click.option(
    "--kind", type=click.Choice(["timeseries", "clicks"]), help="What a file is, where it is not found rightly."
)
@mapping_options("name")
@output_options
def show(name: str, *, kind: str | None) -> None:
    """Rows, columns, endpoints, time span, step, gaps and duplicates of NAME.

    NAME is a data set of the catalogue (`NAME:PATTERN` for some of its endpoints), a file, or an iPinYou campaign's folder.
    A file that has no times, or a column `click`, is a click log.
    """
    from ocad.catalogue import find_data

    source = find_data(name)
    if kind or _is_click_log(source):
        source = source.model_copy(update={"kind": kind or "clicks"})
    value = describe(source)
    emit(value, lambda: "\n".join(_lines(value)))


def _is_click_log(source: DataSource) -> bool:
    """Whether a file that no entry describes holds clicks: no times, or a click and nothing that names a link."""
    from ocad.catalogue import column_names
    from ocad.project import catalogue_file
    from ocad.tables import is_table

    if source.kind == "clicks" or source.columns or not source.path.is_file() or not source.path.stat().st_size:
        return False
    if catalogue_file(source.name.partition(":")[0].partition("?")[0]) or not is_table(source.path):
        return False
    names = column_names(source)
    return (source.label is not None and source.timestamp not in names) or (
        source.label == "click" and not source.endpoint
    )


def describe(source: DataSource) -> dict[str, Any]:
    """What `ocad data show --json` prints."""
    about = {
        "name": source.name,
        "kind": source.kind,
        "description": source.description,
        "path": str(source.path),
        "source": source.source,
        "licence": source.licence,
    }
    return {**about, **(_describe_series(source) if source.kind == "timeseries" else _describe_tables(source))}


def _describe_series(source: DataSource) -> dict[str, Any]:
    from ocad.timeseries.frame import read_frame

    frame = read_frame(source)
    times = frame.data["timestamp"]
    counts = frame.counts.as_dict()
    return {
        **{name: count for name, count in counts.items() if name != "missing"},
        "labelled": int(frame.data["label"].sum()) if "label" in frame.data else None,
        "start": times.min().isoformat(),
        "end": times.max().isoformat(),
        "step_s": _median_step(frame),
        "metrics": [_describe_metric(source, frame, metric) for metric in frame.metrics],
        "endpoint_names": [endpoint for endpoint in frame.data["endpoint"].unique().tolist() if endpoint],
    }


def _describe_metric(source: DataSource, frame: Frame, metric: str) -> dict[str, Any]:
    values = frame.data[metric].dropna()
    levels = {"min": 0.0, "p50": 0.5, "p95": 0.95, "max": 1.0}
    quantiles = {name: float(values.quantile(level)) if len(values) else None for name, level in levels.items()}
    return {"name": metric, "unit": source.unit_of(metric), "missing": frame.counts.missing[metric], **quantiles}


def _median_step(frame: Frame) -> float | None:
    """The median over endpoints of each one's median step, in seconds; None when no endpoint has two rows."""
    steps = frame.data.groupby("endpoint")["timestamp"].diff().dt.total_seconds()
    medians = steps.groupby(frame.data["endpoint"]).median().dropna()
    return float(medians.median()) if len(medians) else None


def _describe_tables(source: DataSource) -> dict[str, Any]:
    from ocad.errors import DataError
    from ocad.tabular.sources import Log
    from ocad.tabular.spec import Features

    if reason := source.missing():
        raise DataError(f"data `{source.name}` is not here: {reason}", "check the path, or set `OCAD_SHARED_DATA`")
    tables = []
    for name, path in {"": source.path, **source.files}.items():
        log = Log(source, path, Features())
        tables.append({"name": name or path.stem, "rows": log.count_rows(), "columns": log.schema.names})
    return {"label": source.label, "rows": tables[0]["rows"], "tables": tables}


def _lines(value: dict[str, Any]) -> list[str]:
    """`value` for a person: scalars one a line, then the tables."""
    scalars = {key: item for key, item in value.items() if not isinstance(item, list) and item not in ("", None)}
    width = max(map(len, scalars))
    lines = [f"{key.ljust(width)}  {item}" for key, item in scalars.items()]
    if "metrics" in value:
        headings = tuple(value["metrics"][0])
        lines += ["", table(headings, [tuple(metric.values()) for metric in value["metrics"]])]
    for entry in value.get("tables", ()):
        columns = entry["columns"]
        shown = ", ".join(columns[:12]) + (f", … ({len(columns)} columns)" if len(columns) > 12 else "")
        lines += ["", f"{entry['name']}: {entry['rows']} rows: {shown}"]
    return lines
