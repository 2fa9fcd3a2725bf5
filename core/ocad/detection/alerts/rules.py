"""The rules that turn incidents into alerts: families, fingerprints, severities, and how incidents add up to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

from ocad.detection.alerts.settings import AlertSettings, Impact
from ocad.detection.incidents import Deviation, Incident

SEVERITIES = ("info", "warning", "critical")
SECOND = 1_000_000
FEW_ROWS = 3
"""Fewer expected rows say nothing of the share that is lost."""


def micros(seconds: float) -> int:
    """Seconds as µs."""
    return round(seconds * SECOND)


def digest(*parts: str) -> str:
    """16 hex digits that stand for `parts`."""
    return sha256("\0".join(parts).encode()).hexdigest()[:16]


def family_of(metrics: Iterable[str], settings: AlertSettings) -> str:
    """The family of `metrics`; several are joined by `+`."""
    homes = {metric: name for name, members in settings.families.items() for metric in members}
    return "+".join(sorted({homes.get(metric, metric) for metric in metrics}))


def group_key(incident: Incident, family: str, settings: AlertSettings) -> str:
    """What incidents must have in common to be told together, as `family=delay`; empty when nothing."""
    values = {"endpoint": incident.endpoint, "family": family, "kind": incident.kind}
    return " ".join(f"{name}={values[name]}" for name in settings.group_by)


def worse(left: str, right: str) -> str:
    """The graver of two severities."""
    return max(left, right, key=SEVERITIES.index)


def severity_of(incident: Incident, elapsed_us: int, settings: AlertSettings) -> str:
    """The gravest severity that the incident reaches by its impact within `elapsed_us`: see `SeveritySettings`."""
    for name, lines in _gravest_first(settings):
        if any(_holds(line, incident) and elapsed_us >= micros(line.seconds or 0) for line in lines):
            return name
    return SEVERITIES[0]


def rated(incident: Incident, now_us: int, settings: AlertSettings) -> Incident:
    """The incident with its severity, at its end or, while it is open, at `now_us`."""
    end_us = now_us if incident.end_us is None else incident.end_us
    return replace(incident, severity=severity_of(incident, end_us - incident.start_us, settings))


def next_escalation_us(
    incident: Incident, opened_us: int, severity: str, now_us: int, settings: AlertSettings
) -> int | None:
    """When duration alone next lifts an alert that opened at `opened_us` above `severity`, after `now_us`."""
    moments = [
        opened_us + micros(line.seconds)
        for name, lines in _gravest_first(settings)
        for line in lines
        if line.seconds is not None and worse(name, severity) != severity and _holds(line, incident)
    ]
    return min((moment for moment in moments if moment > now_us), default=None)


def merge(incidents: Iterable[Incident], identity: str) -> Incident:
    """Several incidents of one endpoint as one: from the first start to the last end, the worst of every figure.

    The kind is that of the highest score; it is open while one of them is.
    """
    parts = sorted(incidents, key=lambda incident: incident.start_us)
    lead = max(parts, key=lambda incident: incident.score)
    deviations: dict[str, Deviation] = {}
    detectors: dict[str, float] = {}
    for part in parts:
        for metric, found in part.deviations.items():
            if metric not in deviations or abs(found.sigmas) > abs(deviations[metric].sigmas):
                deviations[metric] = found
        for name, score in part.detectors.items():
            detectors[name] = max(score, detectors.get(name, score))
    ends = [part.end_us for part in parts if part.end_us is not None]
    return replace(
        lead,
        id=identity,
        metrics=tuple(dict.fromkeys(metric for part in (lead, *parts) for metric in part.metrics)),
        start_us=parts[0].start_us,
        end_us=max(ends) if len(ends) == len(parts) else None,
        detectors=dict(sorted(detectors.items(), key=lambda item: -item[1])),
        deviations=dict(sorted(deviations.items(), key=lambda item: -abs(item[1].sigmas))),
        rows=sum(part.rows for part in parts),
    )


def _gravest_first(settings: AlertSettings) -> tuple[tuple[str, Sequence[Impact]], ...]:
    return ("critical", settings.severity.critical), ("warning", settings.severity.warning)


def _holds(line: Impact, incident: Incident) -> bool:
    """Whether the incident reaches all of `line` but its duration, which a spike has none of: only its hold-down lasts."""
    if line.seconds and incident.kind == "spike":
        return False
    found = incident.deviations.values()
    lost = max((one.lost_share for one in found if one.expected >= FEW_ROWS), default=0.0)
    times = max((one.times for one in found if one.times is not None), default=0.0)
    sigmas = max((abs(one.sigmas) for one in found), default=0.0)
    reached = ((line.lost, lost), (line.times, times), (line.score, incident.score), (line.sigmas, sigmas))
    return line.kind in (None, incident.kind) and all(level is None or value >= level for level, value in reached)
