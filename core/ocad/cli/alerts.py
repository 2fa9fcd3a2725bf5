"""`ocad alerts`: what fires, what was told of it, and the two things a person says to it: seen, and over."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ocad.cli.output import emit, output_options, table

if TYPE_CHECKING:
    from ocad.detection.alerts.episodes import Episodes

Command = TypeVar("Command", bound=Callable[..., Any])


def alerts_option(command: Command) -> Command:
    """Adds `--alerts`."""
    return click.option(
        "--alerts", envvar="OCAD_ALERTS", help="The folder of alerts.db (default: OCAD_ALERTS, then ./alerts)."
    )(command)


def word_options(command: Command) -> Command:
    """Adds `--by` and `--note`."""
    by = click.option("--by", help="Who says so (default: the user's name).")
    note = click.option("--note", default="", help="Why; stays with the alert and goes out with its notifications.")
    return by(note(command))


@click.group()
def alerts() -> None:
    """List, acknowledge and resolve alerts."""


@alerts.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are resolved.")
@click.option("--undelivered", is_flag=True, help="Instead: the notifications that have not arrived, and why.")
@alerts_option
@output_options
def list_alerts(everything: bool, undelivered: bool, alerts: str | None) -> None:
    """The alerts that are not resolved, the oldest first."""
    from ocad.detection.alerts.store import Alert

    with opened(alerts) as episodes:
        if undelivered:
            _show_undelivered(episodes.outbox.undelivered())
            return
        found = episodes.store.find(Alert, "true" if everything else "state != 'resolved'")
        answer = [episodes.describe(alert) for alert in sorted(found, key=lambda alert: (alert.opened_us, alert.id))]
    show(answer, "no alerts" if everything else "no open alerts")


@alerts.command()
@click.argument("names", metavar="ALERT...", nargs=-1, required=True)
@word_options
@alerts_option
@output_options
def ack(names: tuple[str, ...], by: str | None, note: str, alerts: str | None) -> None:
    """Silence alerts, by their id, fingerprint or group, until they are resolved."""
    with opened(alerts) as episodes:
        with episodes.store.transaction():
            found = episodes.acknowledge(names, by or getpass.getuser(), note, episodes.store.now_us())
        answer = [episodes.describe(alert) for alert in found]
    show(answer)


@alerts.command()
@click.argument("names", metavar="ALERT...", nargs=-1, required=True)
@word_options
@alerts_option
@output_options
def resolve(names: tuple[str, ...], by: str | None, note: str, alerts: str | None) -> None:
    """End alerts, by their id, fingerprint or group, now; what comes up there later is a new alert."""
    with opened(alerts) as episodes:
        with episodes.store.transaction():
            found = episodes.resolve_by_hand(names, by or getpass.getuser(), note, episodes.store.now_us())
        answer = [episodes.describe(alert) for alert in found]
    show(answer)


@alerts.command()
@click.argument("name", metavar="[ALERT]", default="")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, the newest.")
@alerts_option
@output_options
def history(name: str, limit: int, alerts: str | None) -> None:
    """The notifications, or those about one alert or group, the oldest first, and whether they arrived at each sink."""
    with opened(alerts) as episodes:
        answer = episodes.outbox.history(limit, name)
    headings = ("at", "status", "severity", "endpoint", "alerts", "delivered", "waiting", "refused", "group")
    rows = [
        (
            *(told["at"], told["status"], told["severity"], told["endpoint"], len(told["alerts"])),
            *(_sinks(told, state) for state in ("delivered", "waiting", "refused")),
            told["group"],
        )
        for told in answer
    ]
    emit(answer, lambda: table(headings, rows) if rows else "no notifications")


@contextmanager
def opened(folder: str | None) -> Iterator[Episodes]:
    """The alerts in `folder`, which must exist."""
    from ocad.detection.alerts import alerts_folder
    from ocad.detection.alerts.episodes import Episodes
    from ocad.detection.alerts.store import AlertStore

    store = AlertStore(alerts_folder(folder), create=False)
    try:
        yield Episodes(store)
    finally:
        store.close()


def show(answer: Sequence[dict[str, Any]], nothing: str = "") -> None:
    """Alerts as a table, or as JSON."""
    headings = ("id", "endpoint", "metrics", "kind", "severity", "status", "start", "end", "score", "by", "note")
    keys = (*headings[:-2], "acknowledged_by", "note")
    rows = [[alert[key] for key in keys] for alert in answer]
    emit(answer, lambda: table(headings, rows) if rows else nothing)


def _show_undelivered(answer: Sequence[dict[str, Any]]) -> None:
    keys = ("at", "status", "severity", "endpoint", "sink", "state", "attempts", "cause", "group")
    emit(answer, lambda: table(keys, [[told[key] for key in keys] for told in answer]) if answer else "all arrived")


def _sinks(told: dict[str, Any], state: str) -> list[str]:
    return [sink for sink, delivery in told["deliveries"].items() if delivery["state"] == state]
