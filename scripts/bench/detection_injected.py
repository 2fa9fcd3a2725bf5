"""Incidents injected into real series, tuned on some links and tested on others; see `docs/results/detection_protocol.md`."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from detection_results import write_section
from numpy.typing import NDArray
from report import machine

from ocad.catalogue import find_data
from ocad.detection.detector import SeriesDetector
from ocad.detection.ensemble import Ensemble, watched
from ocad.detection.events import EventCounts, alerts_of, count_events, incidents_of
from ocad.detection.hold import REST
from ocad.detection.inject import KINDS, Injection, inject
from ocad.detection.rule import AlarmRule
from ocad.host import Host
from ocad.pipeline import train
from ocad.progress import console_progress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad.timeseries.frame import read_frame
from ocad_registry import Registry

METRIC = "udp_echo"
SETS = ("ripe_rtt", "cicv5g")
RULE_LEVELS = (4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0)
"""Noise units."""
LEAST_ROWS = 2000
CLEAN, SEED = 0.6, 7
BAR = (6.0, 0.1)
CASES = ((4.0, 0.1), BAR, (10.0, 0.1), (6.0, 0.05))
"""Magnitude and prevalence."""
PRECISION, RECALL, POINT_FPR = 0.95, 0.85, 0.05
MEMBERS = {
    "rule_based": "configs/rule_based/default.yaml",
    "changepoint": "configs/changepoint/default.yaml",
    "isolation_forest": "configs/isolation_forest/default.yaml",
}
NEAR_ROWS = 8
"""Half an hour of `ripe_rtt`."""
HEADER = """| data | magnitude | prevalence | by | precision | recall | F1 | point FPR | spike | shift | drift | jitter | loss |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


@dataclass
class Outcome:
    """What one model did on one set of links."""

    counts: EventCounts = field(default_factory=EventCounts)
    found: Counter[str] = field(default_factory=Counter)
    all: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    at_changes: int = 0
    """Wrong alerts that begin within half an hour of a hand-labelled change point."""


def main() -> None:
    """Trains, tunes and scores for each data set, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tuning", action="store_true", help="score the tuning links, under another seed; write nothing"
    )
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    options = parser.parse_args()
    logging.getLogger("ocad.data").setLevel(logging.ERROR)
    lines, notes = [], []
    for name in options.sets:
        with tempfile.TemporaryDirectory() as folder:
            rows, remarks = bench(name, Path(folder), options.tuning)
        lines += rows
        notes += remarks
        print("\n".join([*rows, *remarks]), flush=True)
    if not options.tuning:
        write_section("injected", "\n".join([INTRODUCTION.format(machine=machine()), "", HEADER, *lines, "", *notes]))


INTRODUCTION = """## Injected incidents

`scripts/bench/detection_injected.py` on {machine}. Incidents by `ocad data inject` in links that nothing was tuned on; what
happens naturally in the links counts as a false alarm. Bars at magnitude 6 and prevalence 0.1: precision ≥ 0.95,
recall ≥ 0.85, point FPR < 0.05. The last columns are incidents found of each kind. The composite searches its rule on the
tuning links."""


def bench(name: str, folder: Path, tuning: bool) -> tuple[list[str], list[str]]:
    """The rows of the table for the set `name`, and remarks on them."""
    frame = read_frame(find_data(name), (METRIC,)).data
    tune, test = links(frame)
    session = Session(Host(), Registry(folder / "models"), console_progress())
    members = train_members(session, frame[frame["endpoint"].isin([*tune, *test])], folder)
    tuning_rows = injected(frame, tune, BAR, SEED)
    models = {
        "searched": train_composite(session, members, tuning_rows, folder),
        "rules alone": best_rules(session, members[0], tuning_rows),
    }
    lines, remarks = [], []
    for case in CASES:
        rows = injected(frame, tune if tuning else test, case, SEED + tuning)
        outcomes = {by: score(model, rows) for by, model in models.items()}
        lines += [table_row(name, case, by, outcome) for by, outcome in outcomes.items()]
        if case == BAR:
            links_used = f"`{name}`, {len(tune)} links tuned on and {len(test)} tested"
            remarks.append(f"- {links_used}, magnitude {case[0]:g}: {verdict(name, outcomes['searched'])}")
    return lines, remarks


def links(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Of the endpoints with enough rows, in the order of their names, every second one to tune on and the others to test."""
    sizes = frame.groupby("endpoint").size()
    names = sorted(sizes[sizes >= LEAST_ROWS].index)
    return names[0::2], names[1::2]


def injected(frame: pd.DataFrame, names: list[str], case: tuple[float, float], seed: int) -> pd.DataFrame:
    """The rows of the links `names` with incidents after their clean part; `change` keeps the hand-labelled changes."""
    chosen = frame[frame["endpoint"].isin(names)].reset_index(drop=True)
    how = Injection(magnitude=case[0], prevalence=case[1], seed=seed, clean=CLEAN)
    rows, _ = inject(chosen, (METRIC,), how)
    return rows.assign(change=chosen.get("label", 0))


def train_members(session: Session, frame: pd.DataFrame, folder: Path) -> list[str]:
    """The references of the members, each fitted and calibrated on the clean part of every link, without labels."""
    path = folder / "clean.parquet"
    frame[["timestamp", "endpoint", METRIC]].to_parquet(path, index=False)
    references = []
    for plugin, config in MEMBERS.items():
        request = TrainRequest(plugin, METRIC, str(path), config, name=f"{plugin}-delays", runs=str(folder / "runs"))
        references.append(train(request, session).version.ref)
    return references


def train_composite(session: Session, members: list[str], rows: pd.DataFrame, folder: Path) -> Ensemble:
    """The composite, tuned on the injected `rows` of the tuning links."""
    path = folder / "tuning.parquet"
    rows.drop(columns="change").to_parquet(path, index=False)
    request = TrainRequest(
        "composite", METRIC, str(path), "configs/composite/default.yaml", (f"members=[{','.join(members)}]",),
        name="composite-delays", runs=str(folder / "runs"),
    )  # fmt: skip
    composite = session.load(train(request, session).version.ref)
    assert isinstance(composite, Ensemble)
    return composite


def best_rules(session: Session, reference: str, rows: pd.DataFrame) -> Ensemble:
    """The rules with the plain hold-down, at the level that has the best F1 on the tuning `rows`."""
    detector = session.load(reference)
    assert isinstance(detector, SeriesDetector)
    models = [watched("rule_based", detector, {METRIC: "µs"}, AlarmRule.plain().at(level)) for level in RULE_LEVELS]
    return max(models, key=lambda model: score(model, rows).counts.metrics().event_f1)


def score(model: Ensemble, rows: pd.DataFrame) -> Outcome:
    """Event counts after the clean part of each link, from a fresh state at its beginning."""
    model.forget()
    alarms, outcome = model.detect(rows).alarms, Outcome()
    for places in rows.groupby("endpoint", sort=False).indices.values():
        tested = np.asarray(places)[int(np.ceil(CLEAN * len(places))) :]
        part = rows.iloc[tested]
        add(outcome, part["label"].to_numpy(), part["kind"].to_numpy(), part["change"].to_numpy(), alarms[tested])
    return outcome


def add(
    outcome: Outcome,
    label: NDArray[np.int8],
    kinds: NDArray[np.object_],
    changes: NDArray[np.int8],
    alarm: NDArray[np.bool_],
) -> None:
    """Adds one link to `outcome`."""
    outcome.counts += count_events(label, alarm, kinds, REST)
    free = alerts_of(alarm, REST)
    for incident in incidents_of(label, kinds):
        kind = str(kinds[incident.start])
        match = next((alert for alert in free if incident.start <= alert.start <= incident.deadline), None)
        outcome.all[kind] += 1
        if match is not None:
            free.remove(match)
            outcome.found[kind] += 1
    changed = np.flatnonzero(changes == 1)
    outcome.wrong += len(free)
    outcome.at_changes += sum(bool((abs(changed - alert.start) <= NEAR_ROWS).any()) for alert in free)


def table_row(name: str, case: tuple[float, float], by: str, outcome: Outcome) -> str:
    """One row of the table."""
    metrics = outcome.counts.metrics()
    kinds = " | ".join(f"{outcome.found[kind]} of {outcome.all[kind]}" for kind in KINDS)
    shares = (metrics.event_precision, metrics.event_recall, metrics.event_f1, metrics.point_fpr)
    return (
        f"| `{name}` | {case[0]:g} | {case[1]:g} | {by} | {' | '.join(f'{share:.3f}' for share in shares)} | {kinds} |"
    )


def verdict(name: str, outcome: Outcome) -> str:
    """Which bars are met at the bar's magnitude, and what the wrong alerts are."""
    metrics = outcome.counts.metrics()
    met = {
        f"precision {metrics.event_precision:.3f}": metrics.event_precision >= PRECISION,
        f"recall {metrics.event_recall:.3f}": metrics.event_recall >= RECALL,
        f"point FPR {metrics.point_fpr:.3f}": metrics.point_fpr < POINT_FPR,
    }
    text = ", ".join(f"{what} {'meets' if good else 'misses'} its bar" for what, good in met.items())
    found, everything = sum(outcome.found.values()), sum(outcome.all.values())
    spikes = outcome.found["spike"], outcome.all["spike"]
    rest = f"without spikes recall is {(found - spikes[0]) / (everything - spikes[1]):.3f}"
    wrong = f"{outcome.wrong} alerts match no injected incident"
    if name == "ripe_rtt":
        real = outcome.counts.right / (outcome.counts.right + outcome.counts.wrong - outcome.at_changes)
        wrong += f", {outcome.at_changes} of them within half an hour of a hand-labelled change point"
        wrong += f" (leaving those out, precision is {real:.3f})"
    return f"{text}; {rest}; {wrong}."


if __name__ == "__main__":
    main()
