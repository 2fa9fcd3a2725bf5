"""The composite as it is stored: `composite.json` with its members' exact versions, and `report.json` of the search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ocad.contexts import Artifact, Export
from ocad.detection.calibration import Calibration
from ocad.detection.ensemble import Ensemble
from ocad.detection.rule import AlarmRule
from ocad.detection.search import summary
from ocad.errors import DataError, OcadError
from ocad.runs import write_json
from ocad_composite.members import Member, recorded_member

if TYPE_CHECKING:
    from ocad.contexts import HostContext, RunContext, Trained
    from ocad.detection.search import Found
    from ocad_registry import Version

COMPOSITE_FILE, REPORT_FILE = "composite.json", "report.json"


class Composite(Ensemble):
    """An ensemble of registered members; `estimates` are the event metrics of blocks of time that did not decide."""

    def __init__(
        self,
        members: Sequence[Member],
        rule: AlarmRule,
        units: Mapping[str, str],
        calibration: Calibration | None,
        estimates: Mapping[str, float],
    ) -> None:
        super().__init__({member.name: member.detector for member in members}, rule, units, calibration)
        self.versions = {member.name: member.version for member in members}
        """The registered version of each member."""
        self.estimates = dict(estimates)

    def to_json(self) -> dict[str, Any]:
        """All but the members themselves, which the registry holds."""
        members = [
            {"ref": version.ref, "metadata_sha256": version.metadata_sha256} for version in self.versions.values()
        ]
        return {
            "metrics": list(self.metrics),
            "units": self.units,
            "members": members,
            "rule": self.rule.to_json(),
            "calibration": self.calibration.to_json() if self.calibration else None,
            "estimates": self.estimates,
        }


def export(context: RunContext, trained: Trained) -> Export:
    """Writes `composite.json` and `report.json`; the members' exact versions are the parents."""
    composite, found = trained.model
    folder = context.run / "export"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / COMPOSITE_FILE, composite.to_json())
    write_json(folder / REPORT_FILE, _report(composite, found))
    artifacts = [
        Artifact(folder / COMPOSITE_FILE, "estimator", "application/json"),
        Artifact(folder / REPORT_FILE, "report", "application/json"),
    ]
    references = [version.ref for version in composite.versions.values()]
    return Export(artifacts, signature=None, description=f"members: {', '.join(references)}", parents=references)


def load(context: HostContext, version: Version) -> Composite:
    """The registered composite with the members that it was trained with, its state fresh.

    Raises `VerificationError` naming a member that is gone, damaged or another, `DataError` for a file that is none of ours.
    """
    path = version.file("estimator")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        members = value["members"]
        references = [(str(member["ref"]), str(member["metadata_sha256"])) for member in members]
        rule = AlarmRule.from_json(value["rule"])
        calibration = Calibration.from_json(value["calibration"])
        units, estimates = dict(value["units"]), dict(value["estimates"])
    except (ValueError, KeyError, TypeError, AttributeError, OcadError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"`{version.ref}` does not hold a composite ({reason})", "train and register it again"
        ) from None
    loaded = [recorded_member(context, version.ref, *reference) for reference in references]
    return Composite(loaded, rule, units, calibration, estimates)


def _report(composite: Composite, found: Found) -> dict[str, Any]:
    """How the rule was chosen: its values, what it does where it was chosen and elsewhere, and the best random rules."""
    return {
        "weights": dict(zip(composite.versions, composite.rule.weights, strict=True)),
        "rule": composite.rule.to_json(),
        "chosen_on": summary(found.counts),
        "cross_validated": summary(found.held_out),
        "plain_rule_replaced": found.replaced,
        "gain_over_plain_rule": dict(zip(("mean", "low", "high"), found.gain, strict=True)),
        "search": found.table,
    }
