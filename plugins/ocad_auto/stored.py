"""The choice as it is stored: `auto.json` holds the detectors whole, the rule, and in words why it was chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ocad.contexts import Artifact, Export
from ocad.detection.calibration import Calibration
from ocad.detection.ensemble import Ensemble
from ocad.detection.rule import AlarmRule
from ocad.errors import DataError, OcadError, UsageError, in_one_line
from ocad.runs import write_json

if TYPE_CHECKING:
    from ocad.contexts import HostContext, RunContext, Trained
    from ocad.detection.detector import SeriesDetector
    from ocad_registry import Version

AUTO_FILE = "auto.json"


@dataclass(frozen=True, slots=True)
class Choice:
    """Why these detectors: `told` in words, a line each, and the figures that it rests on."""

    told: tuple[str, ...]
    measured: Mapping[str, float] = field(default_factory=dict)


class Auto(Ensemble):
    """An ensemble whose members are its own; each member's name is that of the plugin that made it."""

    def __init__(
        self,
        members: Mapping[str, SeriesDetector],
        rule: AlarmRule,
        units: Mapping[str, str],
        calibration: Calibration | None,
        choice: Choice,
    ) -> None:
        super().__init__(members, rule, units, calibration)
        self.choice = choice

    def to_json(self) -> dict[str, Any]:
        """Everything but the streaming state."""
        return {
            "members": {name: member.to_json() for name, member in self.members.items()},
            "rule": self.rule.to_json(),
            "units": self.units,
            "calibration": self.calibration.to_json() if self.calibration else None,
            "told": list(self.choice.told),
            "measured": dict(self.choice.measured),
        }


def export(context: RunContext, trained: Trained) -> Export:
    """Writes `auto.json`; the description says what was chosen."""
    auto: Auto = trained.model
    folder = context.run / "export"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / AUTO_FILE, auto.to_json())
    artifact = Artifact(folder / AUTO_FILE, "estimator", "application/json")
    return Export([artifact], signature=None, description="; ".join(auto.choice.told))


def load(context: HostContext, version: Version) -> Auto:
    """The registered choice, its state fresh.

    Raises `DataError` for a file that is none of ours, `UsageError` naming a detector that is not installed any more.
    """
    try:
        value = json.loads(version.file("estimator").read_text(encoding="utf-8"))
        plugins = {str(name): _plugin(context, version, str(name)) for name in value["members"]}
        members = {
            name: plugin.ask("ocad_read_detector", value=value["members"][name]) for name, plugin in plugins.items()
        }
        rule, calibration = AlarmRule.from_json(value["rule"]), Calibration.from_json(value["calibration"])
        choice = Choice(tuple(value["told"]), dict(value["measured"]))
        return Auto(members, rule, dict(value["units"]), calibration, choice)
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OcadError) as error:
        reason = in_one_line(error)
        raise DataError(f"`{version.ref}` does not hold a choice ({reason})", "train and register it again") from None


def _plugin(context: HostContext, version: Version, name: str) -> Any:
    try:
        return context.other_plugin(name)
    except UsageError as error:
        message = f"`{version.ref}` needs the plugin `{name}`, which is not installed"
        raise UsageError(message, f"install it, or train again ({error.hint})") from None
