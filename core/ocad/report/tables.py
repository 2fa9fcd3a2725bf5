"""The report's tables as HTML: goals, detectors side by side, weights, incidents, the state of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ocad.detection.events import EventCounts, count_events
from ocad.detection.incidents import Incident, iso_time
from ocad.detection.rule import AlarmRule

if TYPE_CHECKING:
    from ocad.detection.ensemble import Ensemble
    from ocad.monitoring import Findings

GOALS: Mapping[str, tuple[str, float]] = {
    "event_precision": (">", 0.95),
    "event_recall": (">", 0.85),
    "event_f1": (">", 0.90),
    "point_fpr": ("<", 0.05),
}
"""What is asked of a detector in operation, and in which direction."""
LATENCY_GOAL_US = 1_000.0
MOST_INCIDENTS = 500
"""Incidents in the table: those with the highest scores."""


def goals(findings: Findings) -> str:
    """Each measured figure next to its goal."""
    rows: list[tuple[object, ...]] = []
    for name, value in (findings.metrics() or {}).items():
        sign, level = GOALS[name]
        met = value > level if sign == ">" else value < level
        rows.append((name.replace("_", " "), f"{value:.3f}", f"{sign} {level:.2f}", _verdict(met)))
    p99 = findings.latency_us["p99"]
    goal = f"≤ {LATENCY_GOAL_US / 1000:.0f} ms"
    rows.append(("one arriving row, p99", f"{p99 / 1000:.3f} ms", goal, _verdict(p99 <= LATENCY_GOAL_US)))
    return table(("figure", "measured", "goal", ""), rows)


def side_by_side(findings: Findings, watch: Ensemble) -> str:
    """Each member alone under the plain alarm rule, and all together: counts of incidents and alerts."""
    rows = [_counted("all together", findings.detection.alarms, findings)]
    for name, surprises in findings.detection.members.items():
        rows.append(_counted(name, _alone(findings, surprises), findings) if len(watch.members) > 1 else rows[0])
    names = ("detector", "found", "missed", "right alerts", "wrong alerts", "precision", "recall", "F1", "FPR")
    return table(names, list(dict.fromkeys(rows)))


def weights(watch: Ensemble) -> str:
    """What each member weighs, from which surprise it agrees, and the hold-down."""
    rule = watch.rule
    rows = list(zip(watch.members, rule.weights, rule.thresholds, rule.caps, strict=True))
    hold = (
        f"An alarm begins when {rule.k} of {rule.n} rows reach {rule.on:.2f}, or one reaches {rule.instant:.2f}, and at "
        f"least {rule.agreement} of {len(rows)} detectors agree; it ends after {rule.m} rows below {rule.off:.2f}."
    )
    return table(("detector", "weight", "agrees from", "counts up to"), rows) + f"<p>{escape(hold)}</p>"


def incidents(found: Sequence[Incident]) -> str:
    """The incidents: where, since when, what it looks like, how far from normal, who agreed."""
    if not found:
        return "<p>None.</p>"
    worst = sorted(found, key=lambda one: -one.score)[:MOST_INCIDENTS]
    shown = sorted(worst, key=lambda one: (one.start_us, one.endpoint))
    left = len(found) - len(shown)
    rows = [
        (
            one.endpoint or "-",
            iso_time(one.start_us)[:19].replace("T", " "),
            "open" if one.end_us is None else f"{(one.end_us - one.start_us) / 1e6:.0f} s",
            one.kind,
            "; ".join(
                f"{metric} {far.value:.4g} {far.unit}, normal {far.normal:.4g} ({far.sigmas:+.1f}σ)"
                for metric, far in one.deviations.items()
            ),
            ", ".join(f"{name} {surprise:.1f}" for name, surprise in one.detectors.items()),
            one.score,
        )
        for one in shown
    ]
    told = table(("endpoint", "since (UTC)", "lasted", "kind", "how far from normal", "agreed", "score"), rows)
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


def _alone(findings: Findings, surprises: NDArray[np.float64]) -> NDArray[np.bool_]:
    alarms = np.zeros(len(surprises), dtype=bool)
    for places in findings.frame.groupby("endpoint", sort=False).indices.values():
        alarms[places] = AlarmRule.plain().hold().run(surprises[places])
    return alarms


def _counted(name: str, alarms: NDArray[np.bool_], findings: Findings) -> tuple[object, ...]:
    label, counts = findings.frame["label"].to_numpy(), EventCounts()
    for places in findings.frame.groupby("endpoint", sort=False).indices.values():
        counts += count_events(label[places], alarms[places])
    shares = counts.metrics()
    measured = (shares.event_precision, shares.event_recall, shares.event_f1, shares.point_fpr)
    return name, counts.found, counts.missed, counts.right, counts.wrong, *(f"{value:.3f}" for value in measured)


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def _cell(value: object) -> str:
    if value in ("met", "missed"):
        return f'<span class="{value}">{value}</span>'
    return escape(f"{value:.3f}" if isinstance(value, float) else str(value))
