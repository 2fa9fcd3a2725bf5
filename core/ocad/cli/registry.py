"""`ocad registry`: the versions, their evidence and the aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ocad.cli import completing, registry_lifecycle
from ocad.cli.listing import Listing, listing_options, show_listing
from ocad.cli.options import existing_registry, registry_option
from ocad.cli.output import emit, note, output_options, table
from ocad.cli.pages import describe_version
from ocad.cli.signatures import Signatures, SignedCommand, key_option, signature_options

if TYPE_CHECKING:
    from ocad_registry import AliasEntry, Registry


@click.group()
def registry() -> None:
    """List, query, promote, verify, copy, sign and delete versions."""


for command in registry_lifecycle.COMMANDS:
    registry.add_command(command)


@registry.command("list")
@click.argument("name", required=False, shell_complete=completing.models)
@listing_options
@registry_option
@output_options
def list_versions(name: str | None, registry: str | None, **options: Any) -> int:
    """All versions, or those of the model NAME, newest first; broken ones with their cause."""
    return show_listing(existing_registry(registry), name, None, Listing(**options))


@registry.command()
@click.argument("expression")
@listing_options
@registry_option
@output_options
def query(expression: str, registry: str | None, **options: Any) -> int:
    """The versions for which EXPRESSION is true, as "task = 'forecast' and metrics.val_loss < 0.1"."""
    return show_listing(existing_registry(registry), None, expression, Listing(**options))


@registry.command()
@click.argument("reference", shell_complete=completing.references)
@registry_option
@output_options
def show(reference: str, registry: str | None) -> None:
    """A version on one page; with --json its whole metadata, its aliases and its path."""
    answer = existing_registry(registry).describe(reference)
    emit(answer, lambda: describe_version(answer))


@registry.command()
@click.argument("reference", shell_complete=completing.references)
@click.argument("alias", shell_complete=completing.aliases)
@click.option("--force", is_flag=True, help="Promote although the version did not pass; needs --reason.")
@click.option("--reason", default="", help="Why; stays in the alias's history.")
@click.option("--expect", metavar="VERSION", help="Fail unless the alias points at this version now.")
@key_option
@registry_option
@output_options
def promote(
    reference: str,
    alias: str,
    force: bool,
    reason: str,
    expect: str | None,
    key: str | None,
    registry: str | None,
) -> None:
    """Point ALIAS at the version REFERENCE."""
    store = existing_registry(registry, key)
    entry = store.promote(reference, alias, force=force, reason=reason, expect=expect)
    _moved(store, reference.partition("@")[0], alias, entry)


@registry.command()
@click.argument("name", shell_complete=completing.models)
@click.argument("alias", shell_complete=completing.aliases)
@click.option("--reason", default="", help="Why; stays in the alias's history.")
@key_option
@registry_option
@output_options
def rollback(name: str, alias: str, reason: str, key: str | None, registry: str | None) -> None:
    """Point ALIAS of the model NAME at the version that was live before; again goes one further back."""
    store = existing_registry(registry, key)
    _moved(store, name, alias, store.rollback(name, alias, reason=reason))


@registry.command()
@click.argument("name", shell_complete=completing.models)
@click.argument("alias", shell_complete=completing.aliases)
@click.option("--reason", default="", help="Why; stays in the alias's history.")
@key_option
@registry_option
@output_options
def unset(name: str, alias: str, reason: str, key: str | None, registry: str | None) -> None:
    """Let ALIAS of the model NAME point nowhere."""
    store = existing_registry(registry, key)
    _moved(store, name, alias, store.unset(name, alias, reason=reason))


@registry.command()
@click.argument("name", shell_complete=completing.models)
@click.argument("alias", shell_complete=completing.aliases)
@registry_option
@output_options
def history(name: str, alias: str, registry: str | None) -> None:
    """Every move of ALIAS of the model NAME, oldest first."""
    entries = existing_registry(registry).history(name, alias)
    rows = [(e.number, e.kind, e.version, e.moved_at, e.by, e.forced, e.reason) for e in entries]
    headings = ("number", "kind", "version", "moved at", "by", "forced", "reason")
    emit([entry.to_json() for entry in entries], lambda: table(headings, rows))


@registry.command(cls=SignedCommand)
@click.argument("reference", required=False, shell_complete=completing.references)
@signature_options
@registry_option
@output_options
def verify(reference: str | None, signatures: Signatures, registry: str | None) -> int:
    """Check the digests and the format of one version, or of the whole registry, and signatures if required."""
    store = existing_registry(registry)
    findings = store.verify(reference, signatures.keys, signed_aliases=signatures.aliases)
    answer: list[dict[str, Any]] = [finding.to_json() for finding in findings]
    rows = [(finding.severity, finding.kind, finding.reference, finding.message) for finding in findings]
    headings = ("severity", "kind", "reference", "finding")
    emit(answer, lambda: table(headings, rows) if rows else "everything is whole")
    return 3 if any(finding.severity == "error" for finding in findings) else 0


def _moved(store: Registry, name: str, alias: str, entry: AliasEntry) -> None:
    """Tells of a move, and of those of the children, which go along."""
    from ocad.host import Host

    host = Host(warn=note)
    host.fire("ocad_alias_moved", name=name, alias=alias, entry=entry)
    for child in store.children(f"{name}@{entry.version}") if entry.version else []:
        if store.aliases(child.name).get(alias) == child.version:
            along = store.history(child.name, alias)[-1]
            host.fire("ocad_alias_moved", name=child.name, alias=alias, entry=along)
            note(f"{child.name}@{alias} -> {along.version} goes along")
    emit(
        entry.to_json(), lambda: f"{name}@{alias} -> {entry.version or 'nothing'} (entry {entry.number}, {entry.kind})"
    )
