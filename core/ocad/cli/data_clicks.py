"""`ocad data prepare` and `ocad data simulate`: click logs as prepared files, and logs whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ocad.cli.output import emit, output_options, table

if TYPE_CHECKING:
    from ocad.contexts import PreparedData

DEFAULT_DATA = "clicks_simulated"


@click.command()
@click.option(
    "--data", default=DEFAULT_DATA, show_default=True, help="A set of the catalogue, a file, or a campaign's folder."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("data/processed"),
    show_default=True,
    help="The folder to fill.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A YAML file with `features`, `split` and `data`, such as a model's.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, as split.kind=time.")
@click.option("--max-bad-lines", type=click.IntRange(min=0), help="Lines of a text log that may fail to parse.")
@output_options
def prepare(data: str, out: Path, config: Path | None, overrides: tuple[str, ...], max_bad_lines: int | None) -> None:
    """Split and encode a click log: train_data, val_data and test_data.parquet, preprocess, vocab and stats.json.

    Without `features` in a configuration every column is used by its type.
    """
    from ocad.catalogue import find_data
    from ocad.config import load_config
    from ocad.progress import console_progress
    from ocad.tabular.prepare import prepare as prepare_data
    from ocad.tabular.settings import PrepareConfig

    if max_bad_lines is not None:
        overrides = (*overrides, f"data.max_bad_lines={max_bad_lines}")
    settings = load_config(PrepareConfig, config, overrides)
    prepared = prepare_data(
        find_data(data),
        settings.features,
        settings.split,
        settings.data,
        seed=settings.seed,
        folder=out,
        progress=console_progress(),
    )
    value = {"name": prepared.name, "out": str(out), "rows": prepared.rows, "fingerprint": prepared.fingerprint}
    emit({**value, "statistics": prepared.statistics}, lambda: _describe(prepared, out))


@click.group()
def simulate() -> None:
    """Write data whose truth is known."""


@simulate.command()
@click.option("--rows", type=click.IntRange(min=100), required=True, help="How many shown adverts.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="F.parquet, F.yzx, or a folder for an iPinYou campaign.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The same seed gives the same bytes."
)
@output_options
def ctr(rows: int, out: Path, seed: int) -> None:
    """A click log: users, items, pages, prices, conversions, and in parquet each click's `true_probability`."""
    from ocad.progress import console_progress
    from ocad.tabular.simulate import simulate_clicks

    log = simulate_clicks(rows, out, seed, console_progress())
    value = {
        "path": str(log.path),
        "rows": log.rows,
        "seed": log.seed,
        "click_rate": log.click_rate,
        "mean_probability": log.mean_probability,
    }
    emit(
        value,
        lambda: (
            f"{log.path}: {log.rows} rows, {log.click_rate:.2%} clicked; next `ocad data prepare --data {log.path}`"
        ),
    )


def _describe(prepared: PreparedData, out: Path) -> str:
    """A row for each split, then the size of the embedding table and what was odd."""
    statistics = prepared.statistics
    rows = [(part, count, statistics["click_rate"][part]) for part, count in prepared.rows.items()]
    lines = [table(("part", "rows", "click rate"), rows), ""]
    fields = len(statistics["fields"])
    lines.append(f"{fields} categorical fields, {statistics['table_rows']} embedding rows; see {out / 'stats.json'}")
    for name, entry in statistics["vocabularies"].items():
        if "collision_rate" in entry:
            share = f"{entry['collision_rate']:.1%} share one"
            lines.append(f"{name}: {entry['values']} values hashed into {entry['buckets']} buckets, {share}")
    if bad := sum(statistics["bad_lines"].values()):
        lines.append(f"{bad} lines did not parse and are left out")
    lines.append(f"fingerprint {prepared.fingerprint}")
    return "\n".join(lines)
