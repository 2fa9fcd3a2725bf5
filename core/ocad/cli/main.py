"""The `ocad` command group; a subcommand's module is imported when it is called, so that `ocad --help` stays fast."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "train": "Train, prove and register a model.",
    "evaluate": "Measure a registered version again.",
    "compare": "Say which of two versions is better on the same rows.",
    "verify": "Check parity and gates again from the stored artifacts.",
    "predict": "Ask a registered version for predictions.",
    "detect": "Score a frame with a registered detector.",
    "alerts": "List, acknowledge and resolve alerts.",
    "registry": "List, query, promote, verify, copy, sign and delete versions.",
    "data": "List, describe, prepare and simulate data sets.",
    "plugins": "List, describe, check and begin plugins.",
    "probe": "Measure a link: round-trip times in µs.",
    "serve": "Serve the registry over the Open Inference Protocol.",
    "doctor": "Show versions, machine, registry health and what is missing.",
    "completion": "Print the script that completes words in bash, zsh or fish.",
}
"""Every command with its one line; command `x` is the attribute `x` of the module `ocad.cli.x`."""


class LazyGroup(click.Group):
    """A group that knows its commands' names and help lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the pipeline."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the module of `cmd_name`."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"ocad.cli.{cmd_name}"), cmd_name)
        import_module("ocad.cli.output").tell_warnings()
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list of commands, written without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands and the options, without importing any command."""
        from click.shell_completion import CompletionItem

        known = [CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)]
        return [*known, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but an unknown command names its nearest neighbour."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS and not ctx.resilient_parsing:
            from ocad.errors import UsageError, nearest

            raise UsageError(f"unknown command `{args[0]}`", nearest(args[0], COMMANDS))
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from ocad import __version__

        click.echo(f"ocad {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """From raw data to a served model, with the proof kept."""
