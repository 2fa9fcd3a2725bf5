"""What people read of an incident: figures with their units, counts, and times in the zone that they live in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo

from ocad.detection.incidents import SHARE, Deviation, Incident

_UNITS = {"us": "µs", SHARE: "%"}
_FEW_TIMES = 1.5
"""A level or peak is told as a multiple of normal from here on."""


def local_time(moment_us: int, zone: tzinfo = UTC) -> str:
    """µs since 1970 to the second, with the zone's offset: `2026-01-02T03:04:05Z`, `2026-01-02T04:04:05+01:00`."""
    return datetime.fromtimestamp(moment_us // 1_000_000, zone).isoformat().replace("+00:00", "Z")


def far_from_normal(incident: Incident, zone: tzinfo = UTC) -> str:
    """How far each metric is from normal; of a silent endpoint that it sends nothing."""
    if incident.kind == "silent":
        return "sends no rows"
    told = (f"{metric} {distance(found, incident.start_us, zone)}" for metric, found in incident.deviations.items())
    return ", ".join(told) or ", ".join(incident.metrics)


def distance(found: Deviation, since_us: int, zone: tzinfo = UTC) -> str:
    """`value` with what is normal and how far that is, then the peak with its time and what was lost."""
    unit = _UNITS.get(found.unit, found.unit)
    factor = 100 if found.unit == SHARE else 1
    value, normal = (_with_unit(figure * factor, unit) for figure in (found.value, found.normal))
    counted = found.expected and (found.measure == "lost" or found.unit != SHARE)
    counts = f"{_figure(found.lost)} of {found.expected} rows" if counted and found.lost else ""
    ratio = 0.0 if found.times is None or found.measure == "spread" else found.value / found.normal
    times = f"{ratio:.3g} times, " if ratio >= _FEW_TIMES else ""
    aside = f"(normal {normal}, {times}{found.sigmas:+.1f} sigmas)"
    peak = "" if found.peak is None else f"{_with_unit(found.peak * factor, unit)}{_at(found.peak_us, since_us, zone)}"
    if found.measure == "lost" and found.peak is None and counts:
        return f"lost {counts}, {value} {aside}"
    words = {"lost": f"{value} lost", "spread": f"spread {value}", "peak": f"peak {peak or value}"}
    parts = [f"{words.get(found.measure, value)} {aside}"]
    parts += [f"peak {peak}"] if peak and found.measure != "peak" and found.peak != found.value else []
    parts += [f"as {counts}" if found.measure == "lost" else f"lost {counts}"] if counts else []
    return ", ".join(parts)


def agreed(detectors: Iterable[tuple[str, float | None]]) -> str:
    """The detectors with their scores."""
    return ", ".join(f"{name} {score:.1f}" for name, score in detectors if score is not None)


def incident_line(incident: Incident, zone: tzinfo = UTC) -> str:
    """An incident in one line for a person."""
    until = "open" if incident.end_us is None else f"until {local_time(incident.end_us, zone)}"
    said = ", ".join(word for word in (incident.severity, until) if word)
    where, since = incident.endpoint or "the link", local_time(incident.start_us, zone)
    members = agreed(incident.detectors.items())
    line = f"{incident.kind} on {where} since {since} ({said}): {far_from_normal(incident, zone)}"
    return f"{line}; {members}" if members else line


def _at(moment_us: int | None, since_us: int, zone: tzinfo) -> str:
    """The time of day, with its date where that is not the incident's first."""
    if moment_us is None:
        return ""
    begin, moment = (datetime.fromtimestamp(one // 1_000_000, zone) for one in (since_us, moment_us))
    return f" at {moment:%H:%M:%S}" if moment.date() == begin.date() else f" at {moment:%Y-%m-%d %H:%M:%S}"


def _with_unit(value: float, unit: str) -> str:
    return f"{_figure(value)} {unit}".rstrip()


def _figure(value: float) -> str:
    """Four digits that count, and no exponent for what is large and can be true."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
