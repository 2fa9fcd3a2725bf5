"""Options of commands that believe only what is signed, and of those that sign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ocad_registry import Registry
    from ocad_registry.signing import Keys

Command = TypeVar("Command", bound=Callable[..., Any])
_FLAG = "--require-signature"


class SignedCommand(click.Command):
    """A command in which `--require-signature` alone takes no argument away, as `--require-signature=aliases` has one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(
            ctx, [f"{_FLAG}=versions" if arg == _FLAG and place < end else arg for place, arg in enumerate(args)]
        )


@dataclass(frozen=True, slots=True)
class Signatures:
    """What must be signed, and by one of which keys; nothing where `keys` is None."""

    keys: Keys | None
    aliases: bool

    def registry(self, root: str | None) -> Registry:
        """The registry at `root` that answers only what is signed."""
        from ocad_registry import Registry

        return Registry(root, keys=self.keys, signed_aliases=self.aliases)


def signature_options(command: Command) -> Command:
    """Adds `--require-signature` and `--keys`, which become `signatures`; for a `SignedCommand`."""
    from functools import wraps

    @wraps(command)
    def with_signatures(*args: Any, require_signature: str | None, keys: str | None, **options: Any) -> Any:
        return command(*args, signatures=_signatures(require_signature, keys), **options)

    required = click.option(
        _FLAG,
        type=click.Choice(["versions", "aliases"]),
        metavar="[=aliases]",
        help="Versions must be signed by a key in --keys; with `=aliases`, where aliases point as well.",
    )
    trusted = click.option(
        "--keys", type=click.Path(dir_okay=False), help="The public keys that are trusted, a PEM file."
    )
    return required(trusted(with_signatures))  # type: ignore[return-value]


def key_option(command: Command) -> Command:
    """Adds `--key`."""
    return click.option(
        "--key", type=click.Path(dir_okay=False), help="Sign the entry with this secret ed25519 key, a PEM file."
    )(command)


def _signatures(required: str | None, keys: str | None) -> Signatures:
    if (required is None) != (keys is None):
        raise click.UsageError("`--require-signature` and `--keys FILE` go together")
    if keys is None:
        return Signatures(None, False)
    from ocad_registry.signing import Keys

    return Signatures(Keys.read(keys), required == "aliases")
