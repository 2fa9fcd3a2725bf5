"""`ocad plugins`: what is installed, what it is, whether it keeps the contract, and how to begin a new one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ocad.cli import completing
from ocad.cli.output import emit, note, output_options, table
from ocad.scaffold import TASKS, write_plugin


@click.group()
def plugins() -> None:
    """List, describe, check and begin plugins."""


@plugins.command("list")
@output_options
def list_plugins() -> None:
    """Every installed plugin and extension; one that does not load, with its package and cause."""
    from ocad.host import Host, Plugin, package_of

    broken: list[str] = []
    host = Host(warn=broken.append)
    answer: list[dict[str, object]] = []
    for entry, found in host.survey():
        row: dict[str, object] = {"name": entry.name, "kind": "plugin", "package": package_of(entry)}
        if isinstance(found, Plugin):
            row |= {"task": found.info.task, "summary": found.info.summary, "broken": None}
        else:
            row |= {"task": None, "summary": None, "broken": found.message}
        answer.append(row)
    for guest in host.extensions:
        answer.append({"name": guest.name, "kind": "extension", "package": guest.package, "broken": None})
    answer += [{"name": None, "kind": "extension", "broken": line} for line in broken]
    headings = ("name", "kind", "package", "task", "summary", "broken")
    emit(answer, lambda: table(headings, [[row.get(key) for key in headings] for row in answer]))


@plugins.command()
@click.argument("name", shell_complete=completing.plugins)
@output_options
def show(name: str) -> None:
    """One plugin: its task, hooks and settings."""
    from ocad.cli.settings import describe_settings
    from ocad.hookspecs import PluginHooks
    from ocad.host import Host

    plugin = Host(warn=note).plugin(name)
    hooks = [hook for hook in vars(PluginHooks) if hook.startswith("ocad_") and plugin.implements(hook)]
    settings = describe_settings(plugin.info.config)
    answer = {
        "name": name,
        "package": plugin.package,
        "task": plugin.info.task,
        "summary": plugin.info.summary,
        "api_version": plugin.info.api_version,
        "hooks": hooks,
        "settings": dict(settings),
    }
    head = [(key, answer[key]) for key in ("name", "package", "task", "summary", "hooks")]
    emit(answer, lambda: f"{table(('key', 'value'), head)}\n\n{table(('setting', 'meaning'), settings)}")


@plugins.command()
@click.argument("name", shell_complete=completing.plugins)
@click.option(
    "--data",
    shell_complete=completing.data,
    help="The data to check with (default: a seeded series that the check makes).",
)
@click.option("--metric", shell_complete=completing.metrics, help="The column to check with (default: udp_echo).")
@click.option("--work", type=click.Path(path_type=Path), help="Keep the check's files in this folder.")
@output_options
def check(name: str, data: str | None, metric: str | None, work: Path | None) -> int:
    """Run the conformance suite over the plugin NAME: every promise of the contract, one line each."""
    from ocad.testing import check_plugin

    findings = check_plugin(name, data=data, metric=metric, folder=work)
    emit(
        [finding.to_json() for finding in findings],
        lambda: table(("check", "verdict", "detail"), [(f.check, f.verdict, f.detail) for f in findings]),
    )
    return 0 if all(finding.verdict != "failed" for finding in findings) else 3


@plugins.command()
@click.argument("name")
@click.option("--task", type=click.Choice(TASKS), default="forecast", show_default=True, help="What the model does.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write it (default: ocad-NAME).")
@output_options
def new(name: str, task: str, folder: Path | None) -> None:
    """Write a package for a new plugin NAME: a small working model with its settings, graph and tests."""
    made = write_plugin(name, task, folder)
    written = "\n".join(str(made.folder / file) for file in made.files)
    follows = f"pip install --no-deps -e {made.folder} && ocad plugins check {made.name}"
    emit(asdict(made), lambda: f"{written}\nnext     {follows}")
