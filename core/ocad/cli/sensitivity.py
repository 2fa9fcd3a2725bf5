"""`--sensitivity`, `--on K/N` and `--instant`: another alarm rule for any detector, without training it again."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ocad.errors import UsageError

if TYPE_CHECKING:
    from ocad.detection.rule import AlarmRule

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class AskedRule:
    """What was asked for; None where the version's own rule holds."""

    sensitivity: str | None = None
    of_rows: tuple[int, int] | None = None
    instant: float | None = None

    def applied(self, rule: AlarmRule) -> AlarmRule:
        """`rule` as it was asked for; raises `UsageError` for a sensitivity that is none."""
        if self == AskedRule():
            return rule
        from ocad.detection.units import alarm_level

        level = None if self.sensitivity is None else alarm_level(self.sensitivity)
        return rule.at(level, self.of_rows, self.instant)


def sensitivity_options(command: Command) -> Command:
    """Adds the options, which the command is given as `asked_rule`."""

    @wraps(command)
    def asked(**values: Any) -> Any:
        sensitivity, on, instant = (values.pop(name) for name in ("sensitivity", "on_rows", "instant"))
        return command(**values, asked_rule=AskedRule(sensitivity, _rows(on), instant))

    decorated: Any = asked
    for option in (
        click.option(
            "--instant", type=click.FloatRange(min=0, min_open=True), metavar="UNITS", help="One row of it is an alarm."
        ),
        click.option("--on", "on_rows", metavar="K/N", help="K of the last N rows must reach the level, as 2/3."),
        click.option(
            "--sensitivity", metavar="LEVEL", help="low, normal, high, or the noise units of an alarm (normal: 8)."
        ),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _rows(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    k, n = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= k <= n:
        raise UsageError(f"cannot read `--on {text}`", "write how many of how many rows, such as `--on 2/3`")
    return k, n
