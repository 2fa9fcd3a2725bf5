"""What a notification says: its JSON form, and one line for a person."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocad.detection.alerts.rules import SEVERITIES
from ocad.detection.alerts.store import Alert, Group
from ocad.detection.incidents import Incident, iso_time
from ocad.detection.wording import agreed, far_from_normal

_NAMED_ENDPOINTS = 5


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification on its way to a sink: `key` is the same at every attempt and names it for good."""

    seq: int
    key: str
    body: Mapping[str, Any]
    attempts: int = 0


def alert_json(alert: Alert, incident: Incident) -> dict[str, Any]:
    """An alert as JSON: its incidents as one, and what became of it; `labels` name it for Alertmanager."""
    labels = {
        "endpoint": incident.endpoint,
        "metric": ",".join(incident.metrics),
        "severity": alert.severity,
        "kind": incident.kind,
    }
    value: dict[str, Any] = _finite(incident.to_json()) | {
        "status": status_of(alert),
        "severity": alert.severity,
        "fingerprint": alert.fingerprint,
        "group": alert.group_id,
        "family": alert.family,
        "incidents": alert.incidents,
        "acknowledged_by": alert.acknowledged_by or None,
        "note": alert.note or None,
        "labels": labels,
    }
    return value | {"text": text_of(value)}


def notification_json(
    group: Group, status: str, at_us: int, alerts: Sequence[Mapping[str, Any]], key: str
) -> dict[str, Any]:
    """A notification as JSON: the worst alert's own fields, those of the whole, and every alert under `alerts`."""
    lead = max(alerts, key=lambda alert: (SEVERITIES.index(alert["severity"]), alert["score"] or 0))
    body = dict(lead) | {
        "key": key,
        "status": status,
        "at": iso_time(at_us),
        "repeat": group.repeats,
        "group_key": group.key,
        "alerts": [dict(alert) for alert in alerts],
    }
    return body | {"text": text_of(body)}


def status_of(alert: Alert) -> str:
    """`resolved`, `acknowledged` or `firing`."""
    if alert.state == "resolved":
        return "resolved"
    return "firing" if alert.acknowledged_us is None else "acknowledged"


def text_of(body: Mapping[str, Any]) -> str:
    """One line: severity, status, where, which metrics, since when, how far from normal, kind, who agreed, how many more."""
    incident = Incident.from_json(_figures(body))
    until = f" until {_second(body['end'])}" if body["status"] == "resolved" and body["end"] else ""
    members = agreed(incident.detectors.items())
    parts = [
        f"{body['severity']} {body['status']}: {incident.endpoint or 'the link'} {far_from_normal(incident)}",
        f"since {_second(body['start'])}{until}, {incident.kind}, score {body['score'] or 0:.1f}",
    ]
    parts += [f"({members})"] if members else []
    parts += [_others(body)] if len(body.get("alerts", ())) > 1 else []
    return " ".join(" ".join([*parts, f"[{body['id']}]"]).split())


def dump(value: object) -> str:
    """JSON on one line; equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _others(body: Mapping[str, Any]) -> str:
    names = [alert["endpoint"] or "the link" for alert in body["alerts"] if alert["id"] != body["id"]]
    more = f" and {len(names) - _NAMED_ENDPOINTS} more" if len(names) > _NAMED_ENDPOINTS else ""
    return f"and at {', '.join(names[:_NAMED_ENDPOINTS])}{more}"


def _second(moment: str) -> str:
    return moment.partition(".")[0] + "Z"


def _finite(value: Any) -> Any:
    """JSON has no infinity: such a figure becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _figures(body: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse, as far as an incident has no null there."""
    deviations = {metric: _known(found, ("value", "normal", "sigmas")) for metric, found in body["deviations"].items()}
    detectors = {name: score for name, score in body["detectors"].items() if score is not None}
    return _known(body, ("score",)) | {"deviations": deviations, "detectors": detectors}


def _known(found: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return dict(found) | {name: math.nan for name in names if found[name] is None}
