"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ocad.errors import UsageError

if TYPE_CHECKING:
    from ocad.cli.signatures import Signatures
    from ocad.session import Session
    from ocad_registry import Registry

Command = TypeVar("Command", bound=Callable[..., Any])


def registry_option(command: Command) -> Command:
    """Adds `--registry`."""
    return click.option(
        "--registry",
        envvar="OCAD_REGISTRY",
        help="The registry's folder or URL (default: OCAD_REGISTRY, then ./models).",
    )(command)


def zone_named(name: str) -> tzinfo:
    """The time zone; raises `UsageError` where there is none of that name."""
    from zoneinfo import ZoneInfo

    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise UsageError(f"there is no time zone `{name}` here", "give a name such as `Europe/Berlin`") from None


def open_registry(root: str | None, key: str | None = None) -> Registry:
    """The registry at `root`, else at `OCAD_REGISTRY`, else `./models`; the secret `key` signs moves of aliases."""
    from ocad_registry import Registry

    return Registry(root, key=key)


def existing_registry(root: str | None, key: str | None = None) -> Registry:
    """As `open_registry`, where an empty answer would hide that there is none; raises `NotFound`."""
    store = open_registry(root, key)
    store.require()
    return store


def open_session(root: str | None, signatures: Signatures | None = None) -> Session:
    """The installed plugins with that registry, of which only what is signed is believed where `signatures` says so.

    Broken extensions and progress are shown on stderr."""
    from ocad.cli.output import note
    from ocad.host import Host
    from ocad.progress import console_progress
    from ocad.session import Session

    return Session(
        Host(warn=note), signatures.registry(root) if signatures else open_registry(root), console_progress()
    )
