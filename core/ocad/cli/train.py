"""`ocad train`: from data to a registered version."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocad.cli import completing
from ocad.cli.mapping import mapping_options
from ocad.cli.options import open_session, registry_option
from ocad.cli.output import emit, note, output_options, table
from ocad.cli.pages import evidence
from ocad.layout import LAYOUTS, PROCESSED, keep_prepared, write_poc_layout

if TYPE_CHECKING:
    from ocad.pipeline import TrainResult


class TrainCommand(click.Command):
    """Shows the options of the plugin that `--plugin` names below its own help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keeps the plugin's name for the help before click consumes the arguments."""
        for position, argument in enumerate(args):
            if argument.startswith("--plugin"):
                value = argument.partition("=")[2] or "".join(args[position + 1 : position + 2])
                ctx.meta["ocad.plugin"] = value
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The plugin's configuration keys, if a plugin is named."""
        name = ctx.meta.get("ocad.plugin")
        if not name:
            formatter.write_paragraph()
            formatter.write_text("`ocad train --plugin P --help` shows the settings of the plugin P.")
            return
        from ocad.cli.settings import describe_settings
        from ocad.host import Host

        plugin = Host().plugin(name)
        with formatter.section(f"Settings of {name} ({plugin.info.summary}), changed by --set KEY=VALUE"):
            formatter.write_dl(describe_settings(plugin.info.config))


@click.command(cls=TrainCommand)
@click.option(
    "--plugin", shell_complete=completing.plugins, help="The plugin to train with; `ocad plugins list` shows them."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    shell_complete=completing.metrics,
    help="The column to model; repeat it to train several in parallel.",
)
@click.option(
    "--data",
    shell_complete=completing.data,
    help="A data set of the catalogue (`ocad data list`) or a parquet or CSV file.",
)
@click.option("--config", help="A YAML file of settings (default: configs/PLUGIN/METRIC.yaml or default.yaml).")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, as train.epochs=5.")
@click.option("--name", help="The model's name (default: PLUGIN-METRIC).")
@click.option("--version", help="The version to publish (default: 1.0.0, then the next minor).")
@click.option("--promote", metavar="ALIAS", help="Point this alias at the version if it passes.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with an interrupted run folder.")
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="run",
    help="`poc` also writes models/checkpoints, logs and results under the current folder.",
)
@click.option("--prepare-data", is_flag=True, help=f"Keep the prepared splits in {PROCESSED} as well.")
@click.option("--runs", default="runs", show_default=True, help="Where run folders are made.")
@mapping_options()
@registry_option
@output_options
def train(
    plugin: str | None,
    metrics: tuple[str, ...],
    resume: Path | None,
    layout: str,
    prepare_data: bool,
    registry: str | None,
    **request: Any,
) -> int:
    """Train a model, prove it and register it: prepare, train, evaluate, export, verify, gate, register, promote."""
    from ocad.errors import UsageError
    from ocad.pipeline import train as run_pipeline
    from ocad.runs import TrainRequest, read_run

    if len(metrics) > 1:
        if resume or request["name"]:
            option = "--resume" if resume else "--name"
            raise UsageError(f"`{option}` stands for one model, not {len(metrics)}", "give one `--metric`")
        return _train_several(metrics)
    if resume:
        asked = read_run(resume)
    elif plugin:
        asked = TrainRequest(plugin=plugin, metric=metrics[0] if metrics else None, registry=registry, **request)
    else:
        raise UsageError("no plugin is named", f"give `--plugin`: {_names()}")
    session = open_session(registry or asked.registry)
    result = run_pipeline(asked, session, resume)
    if prepare_data:
        keep_prepared(result.run, Path(PROCESSED))
    if layout == "poc":
        write_poc_layout(result.version, result.run, Path.cwd())
    emit(result.to_json(), lambda: describe(result))
    if result.version.manifest.passed:
        return 0
    causes = "; ".join(result.version.manifest.failures())
    note(f"`{result.version.ref}` is registered but did not pass ({causes}): promoting it needs `--force --reason`")
    return 3


def describe(result: TrainResult) -> str:
    """The result for a person: the reference, the verdict, each gate, the metrics that matter, and what to do next."""
    manifest = result.version.manifest
    lines = [f"{result.version.ref}  {'passed' if manifest.passed else 'did not pass'}"]
    lines += [manifest.description] if manifest.description else []
    gates = [gate.model_dump() for gate in manifest.gates]
    parity = manifest.parity.model_dump() if manifest.parity else None
    lines += evidence(gates, parity, manifest.metrics, result.version.ref)
    lines += ["", f"version  {result.version.location}"]
    lines += [f"also     {other.ref}{'' if other.manifest.passed else ' (did not pass)'}" for other in result.also]
    lines.append(f"run      {result.run}")
    if manifest.passed:
        lines.append(f"next     {_next(result)}")
    return "\n".join(lines)


def _next(result: TrainResult) -> str:
    """The command that a person types after this."""
    if not result.promoted:
        return f"ocad registry promote {result.version.ref} production"
    manifest = result.version.manifest
    command = "detect" if manifest.task == "detect" else "predict"
    data = f" --data {shlex.quote(manifest.data.name)}" if manifest.data else ""
    return f"ocad {command} {result.version.name}@{result.promoted}{data}"


def _train_several(metrics: tuple[str, ...]) -> int:
    """Hands everything on the command line but `--metric` and `--json` to one process for each metric."""
    from ocad.parallel import train_each

    results = train_each(metrics, _without_metrics(sys.argv[sys.argv.index("train") + 1 :]))
    rows = [(r.get("ref", r.get("metric")), r.get("passed"), r.get("error", {}).get("message", "")) for r in results]
    emit({"results": results}, lambda: table(("version", "passed", "error"), rows))
    if any("error" in result for result in results):
        return 1
    return 0 if all(result["passed"] for result in results) else 3


def _without_metrics(arguments: list[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if skip or argument == "--json" or argument.startswith("--metric="):
            skip = False
        elif argument == "--metric":
            skip = True
        else:
            kept.append(argument)
    return kept


def _names() -> str:
    from ocad.host import Host

    return ", ".join(f"`{name}`" for name in Host().entries) or "none is installed"
