"""`ocad completion`: the script that makes a shell complete commands, options and references."""

from __future__ import annotations

import click

from ocad.cli.output import emit, output_options

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@output_options
def completion(shell: str) -> None:
    """Print the script that completes commands, options, references, plugins, data and metrics in SHELL.

    In ~/.bashrc: eval "$(ocad completion bash)"; in ~/.zshrc, after compinit: eval "$(ocad completion zsh)"; in
    ~/.config/fish/config.fish: ocad completion fish | source
    """
    from click.shell_completion import get_completion_class

    from ocad.cli.completing import VARIABLE, prepare
    from ocad.cli.main import cli

    prepare()
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, "ocad", VARIABLE).source()
    emit({"shell": shell, "script": script}, script.rstrip("\n"))
