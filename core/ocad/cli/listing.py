"""Lists of versions for a person and for a program: which part, which columns, in which order, and what nobody has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ocad.cli.output import emit, note, table, wants
from ocad.errors import UsageError, nearest

if TYPE_CHECKING:
    from ocad_registry import Entry, Page, Registry

Command = TypeVar("Command", bound=Callable[..., Any])
PAGE = 50
"""How many entries a person is shown where nothing else is asked for."""
NOTHING = 3
"""The exit code of an empty answer under `--exit-code`: the registry was asked, and said no."""
FIELDS: Mapping[str, Callable[[Entry], Any]] = {
    "version": lambda entry: entry.ref,
    "plugin": lambda entry: entry.plugin,
    "task": lambda entry: entry.task,
    "metric": lambda entry: entry.metric,
    "created": lambda entry: entry.created_at,
    "aliases": lambda entry: entry.aliases,
    "passed": lambda entry: entry.passed,
    "broken": lambda entry: entry.broken or "",
}
"""What a column may be beside `metrics.NAME`; all of them are shown where none is asked for."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What the options of `listing_options` ask for."""

    limit: int | None
    offset: int
    everything: bool
    columns: tuple[str, ...]
    sort: str | None
    lowest: bool
    exit_code: bool

    @property
    def bound(self) -> int | None:
        """How many entries are shown: what a person reads at once, or all that a program asks for."""
        if self.limit is not None and self.everything:
            raise click.UsageError("`--all` and `--limit` exclude each other")
        return None if self.everything else self.limit if self.limit is not None else None if wants("--json") else PAGE


def listing_options(command: Command) -> Command:
    """Adds the options of `Listing`; the command receives them as keywords."""
    counts = click.IntRange(min=0)
    options = (
        click.option("--limit", type=counts, help=f"Show at most so many (default: {PAGE}, with --json all)."),
        click.option("--offset", type=counts, default=0, show_default=True, help="Leave out so many of the first."),
        click.option("--all", "everything", is_flag=True, help="Show all."),
        click.option(
            "--columns",
            default="",
            callback=_names,
            metavar="NAME,…",
            help=f"What to show: {', '.join(FIELDS)}, metrics.NAME (default: these, and the metrics that are asked for).",
        ),
        click.option("--sort", metavar="NAME", help="Order by a column, as metrics.auc, the highest first."),
        click.option("--lowest", is_flag=True, help="With --sort: the lowest first."),
        click.option("--exit-code", is_flag=True, help=f"End with {NOTHING} where no version is shown."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def show_listing(store: Registry, name: str | None, expression: str | None, listing: Listing) -> int:
    """Prints the versions of `name`, or those that `expression` chooses, and returns the exit code.

    Raises `UsageError` for a column or a metric that no version has.
    """
    bound, asked = listing.bound, _asked(expression)
    named = [column for column in (*listing.columns, *([listing.sort] if listing.sort else [])) if column not in FIELDS]
    refuse_unknown(store, dict.fromkeys([*map(metric_path, named), *asked]))
    page = _sorted(store, name, expression, listing, bound)
    metrics = dict.fromkeys([*map(metric_path, named), *(path for path in asked if path[0] == "metrics")])
    shown = listing.columns or (*FIELDS, *map(".".join, metrics))
    emit(
        [entry.to_json() for entry in page.entries],
        lambda: table(shown, [[value_of(entry, column) for column in shown] for entry in page.entries]),
    )
    left = page.total - listing.offset - len(page.entries)
    if left > 0:
        note(f"{left} more of {page.total}: see `--offset {listing.offset + len(page.entries)}`, or all with `--all`")
    if listing.exit_code and not page.entries:
        note("no version is like that" if expression else "there is no version")
        return NOTHING
    return 0


def refuse_unknown(store: Registry, paths: Mapping[tuple[str, ...], None]) -> None:
    """Raises `UsageError` for a metric or parameter among `paths` that no version has, unless there is no version at all."""
    from ocad_registry.query import field_name

    for path in paths:
        if len(path) < 2 or path[0] not in ("metrics", "params"):
            continue
        if store.page(expression=f"{field_name(*path)} is not null", limit=1).total:
            continue
        entries = store.page(limit=200).entries
        if not entries:
            return
        kind, known = ("metric", {metric for entry in entries for metric in entry.metrics})
        if path[0] == "params":
            kind, known = "parameter", set()
        hint = nearest(".".join(path[1:]), known) if known else "`ocad registry show REF --json` has their names"
        raise UsageError(f"no version has the {kind} `{'.'.join(path[1:])}`", hint)


def metric_path(column: str) -> tuple[str, ...]:
    """`metrics.auc`, or `auc` alone, as a path of the query grammar; a metric may have a dot in its name."""
    return "metrics", column.removeprefix("metrics.")


def value_of(entry: Entry, column: str) -> Any:
    """What `entry` has in a column; None where it has no such metric."""
    return FIELDS[column](entry) if column in FIELDS else entry.metrics.get(metric_path(column)[1])


def _asked(expression: str | None) -> list[tuple[str, ...]]:
    """The metrics and parameters that a query names."""
    if expression is None:
        return []
    from ocad_registry.query import parse_query

    return sorted(path for path in parse_query(expression).paths if path[0] in ("metrics", "params") and len(path) > 1)


def _sorted(store: Registry, name: str | None, expression: str | None, listing: Listing, bound: int | None) -> Page:
    if listing.sort is None:
        return store.page(name, expression=expression, limit=bound, offset=listing.offset)
    from ocad_registry import Page

    column = listing.sort
    entries = store.page(name, expression=expression).entries
    having = [entry for entry in entries if value_of(entry, column) not in (None, "", [])]
    having.sort(key=lambda entry: value_of(entry, column), reverse=not listing.lowest)
    ordered = [*having, *(entry for entry in entries if value_of(entry, column) in (None, "", []))]
    end = None if bound is None else listing.offset + bound
    return Page(ordered[listing.offset : end], len(ordered))


def _names(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))
