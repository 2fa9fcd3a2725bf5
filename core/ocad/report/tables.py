"""The report's tables as HTML: goals, detectors side by side, weights, incidents, the state of the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, tzinfo
from html import escape
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ocad.detection.alerts.rules import SEVERITIES
from ocad.detection.events import count_frame
from ocad.detection.incidents import Incident
from ocad.detection.rule import AlarmRule
from ocad.detection.wording import agreed, far_from_normal, local_time

if TYPE_CHECKING:
    from ocad.detection.ensemble import Ensemble
    from ocad.monitoring import Findings
    from ocad.report.settings import Figure, ReportSettings

MOST_INCIDENTS = 500
"""Incidents in the table: those with the highest scores."""


def goals(findings: Findings, settings: ReportSettings) -> str:
    """Each measured figure next to its goal; those of incidents only where every row has a label."""
    unlabelled = findings.quality.unlabelled
    measured = dict(findings.metrics() or {}) if not unlabelled else {}
    measured["latency_p99_us"] = findings.latency_us["p99"]
    rows = [
        (name.replace("_", " "), f"{value:.4g}", goal or "-", _verdict(goal.met(value)) if goal else "")
        for name, value in measured.items()
        for goal in [settings.goals.get(cast("Figure", name))]
    ]
    left = f"{unlabelled} rows have no label: nobody knows what was found there and what was missed."
    return table(("figure", "measured", "goal", ""), rows) + (f'<p class="muted">{left}</p>' if unlabelled else "")


def links(findings: Findings) -> str:
    """Each endpoint in one line, the gravest first."""
    found: dict[str, list[Incident]] = {}
    for one in findings.detection.incidents:
        found.setdefault(one.endpoint, []).append(one)
    metrics = list(findings.watch.metrics) if findings.watch else []
    rows = []
    for endpoint, places in findings.frame.groupby("endpoint", sort=True).indices.items():
        here = found.get(str(endpoint), [])
        kinds = [one.kind for one in here]
        gravest = max((one.severity or "info" for one in here), key=SEVERITIES.index, default="-")
        lost = findings.frame[metrics].iloc[places].isna().mean().max() if metrics else 0.0
        listed = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        share = findings.detection.alarms[places].mean()
        rows.append(
            (str(endpoint) or "-", len(places), f"{lost:.1%}", len(here), listed or "-", gravest, f"{share:.1%}")
        )
    rows.sort(key=lambda row: (-SEVERITIES.index(row[5]) if row[5] in SEVERITIES else 1, -row[3]))
    return table(("endpoint", "rows", "lost", "incidents", "kinds", "gravest", "in alarm"), rows)


def side_by_side(findings: Findings, watch: Ensemble) -> str:
    """Each member alone under the plain alarm rule, and all together: counts of incidents and alerts."""
    rows = [_counted("all together", findings.detection.alarms, findings)]
    for name, scores in findings.detection.members.items():
        rows.append(_counted(name, _alone(findings, scores), findings) if len(watch.members) > 1 else rows[0])
    names = ("detector", "found", "missed", "right alerts", "wrong alerts", "precision", "recall", "F1", "FPR")
    return table(names, list(dict.fromkeys(rows)))


def weights(watch: Ensemble) -> str:
    """What each member weighs, and the hold-down."""
    rule = watch.rule
    rows = list(zip(watch.members, rule.weights, strict=True))
    hold = (
        f"An alarm begins when {rule.k} of {rule.n} rows reach {rule.on:.2f} noise units, or one reaches "
        f"{rule.instant:.2f}; it ends after {rule.m} rows below {rule.off:.2f}. One that comes back within {rule.rest} rows "
        "is the same incident."
    )
    return table(("detector", "weight"), rows) + f"<p>{escape(hold)}</p>"


def incidents(found: Sequence[Incident], zone: tzinfo = UTC) -> str:
    """The incidents: where, since when, how grave, what it looks like, how far from normal, who agreed."""
    if not found:
        return "<p>None.</p>"
    worst = sorted(found, key=lambda one: -one.score)[:MOST_INCIDENTS]
    shown = sorted(worst, key=lambda one: (one.start_us, one.endpoint))
    left = len(found) - len(shown)
    rows = [
        (
            one.endpoint or "-",
            local_time(one.start_us, zone)[:19].replace("T", " ").rstrip("Z"),
            "open" if one.end_us is None else f"{(one.end_us - one.start_us) / 1e6:.0f} s",
            one.kind,
            one.severity or "-",
            far_from_normal(one, zone),
            agreed(one.detectors.items()),
            one.score,
        )
        for one in shown
    ]
    since = f"since ({getattr(zone, 'key', 'UTC')})"
    told = table(("endpoint", since, "lasted", "kind", "severity", "how far from normal", "agreed", "score"), rows)
    return told + (f'<p class="muted">{left} with lower scores are not listed.</p>' if left else "")


def quality(findings: Findings) -> str:
    """What reading the data met, and endpoints that nobody was trained on."""
    counts = findings.quality.as_dict()
    missing = counts.pop("missing")
    rows = [(name, value) for name, value in counts.items()]
    rows += [(f"missing {metric}", count) for metric, count in missing.items()]
    unseen = sorted(findings.watch.unseen) if findings.watch else []
    rows.append(("endpoints never seen in training", ", ".join(unseen) or "0"))
    return table(("", "rows"), rows)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """`rows` under `headings`."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _alone(findings: Findings, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    alarms = np.zeros(len(scores), dtype=bool)
    for places in findings.frame.groupby("endpoint", sort=False).indices.values():
        alarms[places] = AlarmRule.plain().hold().run(scores[places])
    return alarms


def _counted(name: str, alarms: NDArray[np.bool_], findings: Findings) -> tuple[object, ...]:
    counts = count_frame(findings.frame, alarms)
    shares = counts.metrics()
    measured = (shares.event_precision, shares.event_recall, shares.event_f1, shares.point_fpr)
    return name, counts.found, counts.missed, counts.right, counts.wrong, *(f"{value:.3f}" for value in measured)


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def _cell(value: object) -> str:
    if value in ("met", "missed"):
        return f'<span class="{value}">{value}</span>'
    return escape(f"{value:.3f}" if isinstance(value, float) else str(value))
