"""`ocad registry`: the versions, their evidence and the aliases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ocad.cli.options import open_registry, registry_option
from ocad.cli.output import emit, note, output_options, table

if TYPE_CHECKING:
    from ocad_registry import AliasEntry, Entry


@click.group()
def registry() -> None:
    """List, query, promote and verify versions."""


@registry.command("list")
@click.argument("name", required=False)
@registry_option
@output_options
def list_versions(name: str | None, registry: str | None) -> None:
    """All versions, or those of the model NAME, newest first; broken ones with their cause."""
    _emit_entries(open_registry(registry).list(name))


@registry.command()
@click.argument("expression")
@registry_option
@output_options
def query(expression: str, registry: str | None) -> None:
    """The versions for which EXPRESSION is true, as "task = 'forecast' and metrics.val_loss < 0.1"."""
    _emit_entries(open_registry(registry).query(expression))


@registry.command()
@click.argument("reference")
@registry_option
@output_options
def show(reference: str, registry: str | None) -> None:
    """The metadata of a version, with its aliases and its path."""
    store = open_registry(registry)
    version = store.resolve(reference)
    aliases = sorted(alias for alias, target in store.aliases(version.name).items() if target == version.version)
    answer = version.manifest.model_dump(mode="json") | {"aliases": aliases, "path": version.location}
    emit(answer, lambda: json.dumps(answer, indent=2, ensure_ascii=False))


@registry.command()
@click.argument("reference")
@click.argument("alias")
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
@click.argument("name")
@click.argument("alias")
@click.option("--reason", default="", help="Why; stays in the alias's history.")
@registry_option
@output_options
def rollback(name: str, alias: str, reason: str, registry: str | None) -> None:
    """Point ALIAS of the model NAME at the version that was live before; again goes one further back."""
    _moved(name, alias, open_registry(registry).rollback(name, alias, reason=reason))


@registry.command()
@click.argument("name")
@click.argument("alias")
@click.option("--reason", default="", help="Why; stays in the alias's history.")
@registry_option
@output_options
def unset(name: str, alias: str, reason: str, registry: str | None) -> None:
    """Let ALIAS of the model NAME point nowhere."""
    _moved(name, alias, open_registry(registry).unset(name, alias, reason=reason))


@registry.command()
@click.argument("name")
@click.argument("alias")
@registry_option
@output_options
def history(name: str, alias: str, registry: str | None) -> None:
    """Every move of ALIAS of the model NAME, oldest first."""
    entries = open_registry(registry).history(name, alias)
    rows = [(e.number, e.kind, e.version, e.moved_at, e.by, e.forced, e.reason) for e in entries]
    headings = ("number", "kind", "version", "moved at", "by", "forced", "reason")
    emit([entry.to_json() for entry in entries], lambda: table(headings, rows))


@registry.command()
@click.argument("reference", required=False)
@registry_option
@output_options
def verify(reference: str | None, registry: str | None) -> int:
    """Check the digests and the format of one version, or of the whole registry."""
    findings = open_registry(registry).verify(reference)
    answer: list[dict[str, Any]] = [finding.to_json() for finding in findings]
    rows = [(finding.severity, finding.kind, finding.reference, finding.message) for finding in findings]
    headings = ("severity", "kind", "reference", "finding")
    emit(answer, lambda: table(headings, rows) if rows else "everything is whole")
    return 3 if any(finding.severity == "error" for finding in findings) else 0


def _emit_entries(entries: Sequence[Entry]) -> None:
    headings = ("version", "plugin", "task", "metric", "created", "aliases", "passed", "broken")
    emit(
        [entry.to_json() for entry in entries],
        lambda: table(
            headings,
            [(e.ref, e.plugin, e.task, e.metric, e.created_at, e.aliases, e.passed, e.broken or "") for e in entries],
        ),
    )


def _moved(name: str, alias: str, entry: AliasEntry) -> None:
    from ocad.host import Host

    Host(warn=note).fire("ocad_alias_moved", name=name, alias=alias, entry=entry)
    emit(
        entry.to_json(), lambda: f"{name}@{alias} -> {entry.version or 'nothing'} (entry {entry.number}, {entry.kind})"
    )
