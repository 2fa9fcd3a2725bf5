"""What the documentation must name: every hook, every command, every option; and no file that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ocad.cli.main import cli
from ocad.cli.reference import write_reference
from ocad.hookspecs import EventHooks, PluginHooks

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("hooks", [PluginHooks, EventHooks])
def test_every_hook_is_in_the_plugin_guide(hooks: type) -> None:
    guide = read("plugins.md")
    specified = [name for name in vars(hooks) if name.startswith("ocad_")]
    assert specified
    assert [name for name in specified if f"`{name}`" not in guide] == [], "missing in docs/plugins.md"


def test_the_plugin_guide_names_no_hook_that_does_not_exist() -> None:
    specified = {*vars(PluginHooks), *vars(EventHooks)}
    assert (
        set(re.findall(r"`(ocad_[a-z_]+)`", read("plugins.md"))) - specified - {"ocad_hello", "ocad_registry"} == set()
    )


def commands(command: click.Command, path: tuple[str, ...] = ("ocad",)) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its whole name."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, (*path, name))
    else:
        yield " ".join(path), command


def test_every_command_and_option_is_in_the_reference() -> None:
    sections = dict(re.findall(r"^## (ocad .*)\n((?:(?!## ).*\n)*)", read("cli.md"), flags=re.MULTILINE))
    missing = []
    for name, command in commands(cli):
        section = sections.get(name, "")
        missing += [] if section else [name]
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        missing += [f"{name} {option}" for option in options if f"`{option}" not in section]
        assert {"--json", "--debug"} <= set(options), f"`{name}` must take `--json` and `--debug`"
    assert missing == [], "missing in docs/cli.md: run `python -m ocad.cli.reference > docs/cli.md`"


def test_the_reference_is_what_the_commands_say() -> None:
    assert read("cli.md") == write_reference(), "run `python -m ocad.cli.reference > docs/cli.md`"


@pytest.mark.parametrize("page", sorted(page.relative_to(ROOT).as_posix() for page in DOCS.rglob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    dead = [target for target in targets if "://" not in target and not (ROOT / page).parent.joinpath(target).exists()]
    assert dead == []
