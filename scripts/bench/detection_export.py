"""An operator's export without labels: what is found, how late, and how often in vain; see `docs/results/detection_protocol.md`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import detection_truth as truth
import numpy as np
import pandas as pd
from detection_methods import Detected, median_mad
from detection_results import write_section
from numpy.typing import NDArray
from report import machine

from ocad.detection.events import Interval, alerts_of
from ocad.detection.truth.intervals import Estimate, mean, mean_difference
from ocad.detection.truth.operator import DAY, KINDS, METRICS, ExportIncident, OperatorExport, operator_export

SEEDS = (101, 102)
LINKS = 12
FOUND, FALSE_A_WEEK, LATE = 0.95, 1.0, 2
GRACE = 60
"""Rows after an incident in which an alert, or what is left of one, belongs to it: a level that was new has to become old again."""
HEADER = (
    "| method | found (95 %) | false alarms a link and week (95 %) | told within 2 rows of the rule | rows later than it, median | "
    + " | ".join(KINDS)
    + " |\n"
    + "| --- " * (5 + len(KINDS))
    + "|"
)
INTRODUCTION = """## The operator's export

`scripts/bench/detection_export.py` on {machine}.
{links} links of {days} days at one row a minute, metrics {metrics}, seeds {seeds}; trained on the first 60 % with unlabelled
incidents in it, scored on the rest. Bars: ≥ 95 % found, ≤ 1 false alarm a link and week, first told within 2 rows of the rule
median/MAD 8."""


@dataclass
class Outcome:
    """What one method did; lists have an entry for each link."""

    found: list[float] = field(default_factory=list)
    """Share of the link's incidents."""
    false: list[float] = field(default_factory=list)
    """A week."""
    first: dict[tuple[int, str, int], int] = field(default_factory=dict)
    """(seed, link, first row) of each incident found → rows until it was told of."""
    kinds: Counter[str] = field(default_factory=Counter)
    all: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Scores every method on new exports, and writes the section."""
    parser = truth.options(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--links", type=int, default=LINKS)
    parser.add_argument("--metrics", nargs="+", default=["udp_echo"], choices=METRICS)
    chosen = parser.parse_args()
    methods = truth.methods_of(chosen.methods)
    outcomes = {name: Outcome() for name in methods}
    rule = Outcome()
    for seed in chosen.seeds:
        how = OperatorExport(links=chosen.links, seed=seed, metrics=tuple(chosen.metrics))
        frame, incidents = operator_export(how)
        train, test = halves(frame, how)
        add(rule, median_mad(8.0)(train, test, how.metrics), test, incidents, how)
        for name, method in methods.items():
            add(outcomes[name], method(train, test, how.metrics), test, incidents, how)
    text = describe(outcomes, rule, chosen.metrics, chosen.seeds, chosen.links)
    print(text)
    if not chosen.no_write:
        write_section("export" if chosen.metrics == ["udp_echo"] else "export-metrics", text)


def halves(frame: pd.DataFrame, how: OperatorExport) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows and the rows after them."""
    number = frame.groupby("endpoint", sort=False).cumcount()
    return tuple(frame[mask].reset_index(drop=True) for mask in (number < how.parts[0], number >= how.parts[0]))  # type: ignore[return-value]


def add(
    outcome: Outcome, detected: Detected, test: pd.DataFrame, incidents: Sequence[ExportIncident], how: OperatorExport
) -> None:
    """Adds the links of one export to `outcome`."""
    first = how.parts[0]
    for endpoint, places in test.groupby("endpoint", sort=True).indices.items():
        mine = [one for one in incidents if one.endpoint == endpoint and one.start >= first]
        rows_of = [Interval(one.start - first, one.end - first, one.kind == "spike") for one in mine]
        told, false = judge(detected.alarm[places], rows_of)
        for one, rows in zip(mine, told, strict=True):
            outcome.all[one.kind] += 1
            if rows is not None:
                outcome.kinds[one.kind] += 1
                outcome.first[how.seed, str(endpoint), one.start] = rows
        outcome.found.append(sum(rows is not None for rows in told) / max(len(told), 1))
        outcome.false.append(false * 7 * DAY / len(places))


def judge(alarm: NDArray[np.bool_], incidents: Sequence[Interval]) -> tuple[list[int | None], int]:
    """Rows from each incident's begin to the first alert that tells of it, None where there is none, and the false alerts.

    An alert tells of an incident in which, or until whose deadline, it begins. One that overlaps an incident or the `GRACE`
    rows after it is not false.
    """
    alerts = alerts_of(alarm)
    told = [
        min(
            (one.start - incident.start for one in alerts if incident.start <= one.start <= incident.deadline),
            default=None,
        )
        for incident in incidents
    ]
    near = [(incident.start, incident.end + GRACE) for incident in incidents]
    return told, sum(not any(one.start <= last and one.end >= first for first, last in near) for one in alerts)


def describe(
    outcomes: Mapping[str, Outcome], rule: Outcome, metrics: Sequence[str], seeds: Sequence[int], links: int
) -> str:
    """The section."""
    head = INTRODUCTION.format(
        machine=machine(), links=links, days=OperatorExport().days, metrics=", ".join(metrics), seeds=", ".join(map(str, seeds))
    )  # fmt: skip
    lines, notes = [], []
    for name, outcome in outcomes.items():
        found, false = mean(outcome.found), mean(outcome.false)
        late = [outcome.first.get(key, 10**6) - rows for key, rows in rule.first.items()]
        prompt = float(np.mean([rows <= LATE for rows in late])) if late else 0.0
        median = float(np.median(late)) if late else 0.0
        kinds = " | ".join(f"{outcome.kinds[kind]} of {outcome.all[kind]}" for kind in KINDS)
        shown = "never" if median > 10**5 else f"{median:+g}"
        lines.append(f"| `{name}` | {found} | {false} | {prompt:.0%} of {len(late)} | {shown} | {kinds} |")
        notes.append(f"- `{name}`: {verdict(found, false, prompt)}.")
    (reference, base), *others = outcomes.items()
    for name, outcome in others:
        notes.append(f"- {truth.versus(name, reference, mean_difference(outcome.found, base.found), 'share found')}")
        fewer = mean_difference(base.false, outcome.false)
        notes.append(f"- {truth.versus(name, reference, fewer, 'false alarms fewer a link and week')}")
    return "\n".join([head, "", HEADER, *lines, "", *notes])


def verdict(found: Estimate, false: Estimate, prompt: float) -> str:
    """Which bars are met."""
    bars = {
        f"found {found.value:.1%}": found.value >= FOUND,
        f"{false.value:.2f} false alarms a link and week": false.value <= FALSE_A_WEEK,
        f"{prompt:.0%} told within {LATE} rows of the rule": prompt >= FOUND,
    }
    return truth.verdict(bars)


if __name__ == "__main__":
    main()
