"""`ocad registry`: the versions, their evidence and the aliases."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ocad.cli import completing, registry_lifecycle
from ocad.cli.options import open_registry, registry_option
from ocad.cli.output import emit, note, output_options, table, wants

if TYPE_CHECKING:
    from ocad_registry import AliasEntry, Page
    from ocad_registry.signing import Keys

Command = TypeVar("Command", bound=Callable[..., Any])
PAGE = 50
"""How many entries a person is shown where nothing else is asked for."""


def page_options(command: Command) -> Command:
    """Adds `--limit`, `--offset` and `--all` (received as `everything`)."""
    counts = click.IntRange(min=0)
    limit = click.option("--limit", type=counts, help=f"Show at most so many (default: {PAGE}, with --json all).")
    offset = click.option(
        "--offset", type=counts, default=0, show_default=True, help="Leave out so many of the newest."
    )
    return limit(offset(click.option("--all", "everything", is_flag=True, help="Show all.")(command)))


@click.group()
def registry() -> None:
    """List, query, promote, verify, copy, sign and delete versions."""


for command in registry_lifecycle.COMMANDS:
    registry.add_command(command)


@registry.command("list")
@click.argument("name", required=False, shell_complete=completing.models)
@page_options
@registry_option
@output_options
def list_versions(name: str | None, limit: int | None, offset: int, everything: bool, registry: str | None) -> None:
    """All versions, or those of the model NAME, newest first; broken ones with their cause."""
    bound = _bound(limit, everything)
    _emit_page(open_registry(registry).page(name, limit=bound, offset=offset), offset)


@registry.command()
@click.argument("expression")
@page_options
@registry_option
@output_options
def query(expression: str, limit: int | None, offset: int, everything: bool, registry: str | None) -> None:
    """The versions for which EXPRESSION is true, as "task = 'forecast' and metrics.val_loss < 0.1"."""
    bound = _bound(limit, everything)
    _emit_page(open_registry(registry).page(expression=expression, limit=bound, offset=offset), offset)


@registry.command()
@click.argument("reference", shell_complete=completing.references)
@registry_option
@output_options
def show(reference: str, registry: str | None) -> None:
    """The metadata of a version, with its aliases and its path."""
    answer = open_registry(registry).describe(reference)
    emit(answer, lambda: json.dumps(answer, indent=2, ensure_ascii=False))


@registry.command()
@click.argument("reference", shell_complete=completing.references)
@click.argument("alias", shell_complete=completing.aliases)
@click.option("--force", is_flag=True, help="Promote although the version did not pass; needs --reason.")
@click.option("--reason", default="", help="Why; stays in the alias's history.")
@click.option("--expect", metavar="VERSION", help="Fail unless the alias points at this version now.")
@registry_option
@output_options
def promote(reference: str, alias: str, force: bool, reason: str, expect: str | None, registry: str | None) -> None:
    """Point ALIAS at the version REFERENCE."""
    store = open_registry(registry)
    entry = store.promote(reference, alias, force=force, reason=reason, expect=expect)
    _moved(reference.partition("@")[0], alias, entry)


@registry.command()
@click.argument("name", shell_complete=completing.models)
@click.argument("alias", shell_complete=completing.aliases)
@click.option("--reason", default="", help="Why; stays in the alias's history.")
@registry_option
@output_options
def rollback(name: str, alias: str, reason: str, registry: str | None) -> None:
    """Point ALIAS of the model NAME at the version that was live before; again goes one further back."""
    _moved(name, alias, open_registry(registry).rollback(name, alias, reason=reason))


@registry.command()
@click.argument("name", shell_complete=completing.models)
@click.argument("alias", shell_complete=completing.aliases)
@click.option("--reason", default="", help="Why; stays in the alias's history.")
@registry_option
@output_options
def unset(name: str, alias: str, reason: str, registry: str | None) -> None:
    """Let ALIAS of the model NAME point nowhere."""
    _moved(name, alias, open_registry(registry).unset(name, alias, reason=reason))


@registry.command()
@click.argument("name", shell_complete=completing.models)
@click.argument("alias", shell_complete=completing.aliases)
@registry_option
@output_options
def history(name: str, alias: str, registry: str | None) -> None:
    """Every move of ALIAS of the model NAME, oldest first."""
    entries = open_registry(registry).history(name, alias)
    rows = [(e.number, e.kind, e.version, e.moved_at, e.by, e.forced, e.reason) for e in entries]
    headings = ("number", "kind", "version", "moved at", "by", "forced", "reason")
    emit([entry.to_json() for entry in entries], lambda: table(headings, rows))


@registry.command()
@click.argument("reference", required=False, shell_complete=completing.references)
@click.option("--require-signature", is_flag=True, help="Each version must be signed by a key in --keys.")
@click.option("--keys", type=click.Path(dir_okay=False), help="The public keys that are trusted, a PEM file.")
@registry_option
@output_options
def verify(reference: str | None, require_signature: bool, keys: str | None, registry: str | None) -> int:
    """Check the digests and the format of one version, or of the whole registry, and signatures if required."""
    if require_signature != (keys is not None):
        raise click.UsageError("`--require-signature` and `--keys FILE` go together")
    findings = open_registry(registry).verify(reference, _trusted(keys))
    answer: list[dict[str, Any]] = [finding.to_json() for finding in findings]
    rows = [(finding.severity, finding.kind, finding.reference, finding.message) for finding in findings]
    headings = ("severity", "kind", "reference", "finding")
    emit(answer, lambda: table(headings, rows) if rows else "everything is whole")
    return 3 if any(finding.severity == "error" for finding in findings) else 0


def _bound(limit: int | None, everything: bool) -> int | None:
    """How many entries are shown: what a person reads at once, or all that a program asks for."""
    if limit is not None and everything:
        raise click.UsageError("`--all` and `--limit` exclude each other")
    return None if everything else limit if limit is not None else None if wants("--json") else PAGE


def _emit_page(page: Page, offset: int) -> None:
    headings = ("version", "plugin", "task", "metric", "created", "aliases", "passed", "broken")
    emit(
        [entry.to_json() for entry in page.entries],
        lambda: table(
            headings,
            [
                (e.ref, e.plugin, e.task, e.metric, e.created_at, e.aliases, e.passed, e.broken or "")
                for e in page.entries
            ],
        ),
    )
    left = page.total - offset - len(page.entries)
    if left > 0:
        note(f"{left} more of {page.total}: see `--offset {offset + len(page.entries)}`, or all with `--all`")


def _trusted(keys: str | None) -> Keys | None:
    if keys is None:
        return None
    from ocad_registry.signing import Keys

    return Keys.read(keys)


def _moved(name: str, alias: str, entry: AliasEntry) -> None:
    from ocad.host import Host

    Host(warn=note).fire("ocad_alias_moved", name=name, alias=alias, entry=entry)
    emit(
        entry.to_json(), lambda: f"{name}@{alias} -> {entry.version or 'nothing'} (entry {entry.number}, {entry.kind})"
    )
