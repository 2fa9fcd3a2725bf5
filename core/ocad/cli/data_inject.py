"""`ocad data inject`: incidents of known kind, place and size put into a real series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ocad.cli import completing
from ocad.cli.mapping import mapping_options
from ocad.cli.output import emit, note, output_options, table

if TYPE_CHECKING:
    import pandas as pd

    from ocad.detection.inject import InjectedIncident


@click.command()
@click.argument("data", shell_complete=completing.data)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="F.parquet; the list goes to F.json.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    shell_complete=completing.metrics,
    help="What to change (default: all metrics of DATA).",
)
@click.option("--magnitude", type=float, default=6.0, show_default=True, help="Size in units of robust local noise.")
@click.option(
    "--prevalence", type=float, default=0.05, show_default=True, help="At most this share of rows, up to 0.1."
)
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True, help="The same seed, the same bytes.")
@click.option("--kinds", default="spike,shift,drift,jitter,loss", show_default=True, help="Kinds, between commas.")
@click.option("--clean", type=float, default=0.0, show_default=True, help="First share of each endpoint left as it is.")
@click.option(
    "--direction", type=click.Choice(["up", "both"]), default="up", show_default=True, help="Sign of changes."
)
@click.option("--correlated", is_flag=True, help="Each incident hits all metrics of its endpoint, not one of them.")
@mapping_options()
@output_options
def inject(
    data: str,
    out: Path,
    metrics: tuple[str, ...],
    magnitude: float,
    prevalence: float,
    seed: int,
    kinds: str,
    clean: float,
    direction: Literal["up", "both"],
    correlated: bool,
) -> None:
    """Put incidents into DATA, with `label` and `kind` as the truth.

    DATA is a set of the catalogue (`NAME:PATTERN` for some of its endpoints) or a file. Incidents do not overlap; rows
    outside them keep their values. Next: `ocad detect REF --data F.parquet`.
    """
    from ocad.catalogue import find_data
    from ocad.detection.inject import Injection, check_out, inject, write
    from ocad.timeseries.frame import read_frame

    check_out(out)
    chosen = tuple(kind.strip() for kind in kinds.split(",") if kind.strip())
    how = Injection(magnitude, prevalence, seed, chosen, correlated, clean, direction)
    frame = read_frame(find_data(data), metrics or None, varying=False)
    if "label" in frame.data and (labelled := int(frame.data["label"].sum())):
        note(f"data `{data}`: {labelled} labelled rows count as normal; `label` holds what is injected")
    result, incidents = inject(frame.data, frame.metrics, how)
    truth = write(result, incidents, out)
    value = {
        "path": str(out),
        "rows": len(result),
        "prevalence": float(result["label"].mean()),
        "magnitude": magnitude,
        "seed": seed,
        "metrics": list(frame.metrics),
        "truth": str(truth),
        "incidents": [incident.to_json() for incident in incidents],
    }
    emit(value, lambda: describe(result, incidents, out))


def describe(result: pd.DataFrame, incidents: list[InjectedIncident], out: Path) -> str:
    """Incidents and rows by kind, and what to do next."""
    rows = []
    for kind in sorted({incident.kind for incident in incidents}):
        found = [incident for incident in incidents if incident.kind == kind]
        rows.append((kind, len(found), sum(incident.end - incident.start + 1 for incident in found)))
    lines = [table(("kind", "incidents", "rows"), rows), ""]
    share = f"{int(result['label'].sum())} of {len(result)} rows ({result['label'].mean():.2%}) in {len(incidents)} incidents"
    return "\n".join([*lines, f"{out}: {share}; next `ocad detect REF --data {out}`"])
