"""The further recordings of the testbed, scored once with frozen settings; see `docs/results/detection_protocol.md`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from detection_methods import Method, method_named, plugin_method, train_plugin, unlabelled
from detection_results import write_section
from numpy.typing import NDArray
from report import machine

from ocad.catalogue import find_data
from ocad.detection.detector import SeriesDetector
from ocad.detection.events import EventCounts, alerts_of, count_events, incidents_of
from ocad.detection.labelled import gather
from ocad.detection.rule import AlarmRule
from ocad.detection.search import Found, search
from ocad.timeseries.frame import read_frame

METRICS = ("udp_echo", "ecpri", "lbm", "ccm")
FIRST, FURTHER = "oran_testbed", ("oran_testbed_2", "oran_testbed_3")
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "changepoint" / "oran.yaml"
FITTED = 0.4
"""The share of each link's rows, the first, that detectors are fitted on without labels; what follows is scored."""
PRECISION, RECALL, F1, POINT_FPR = 0.95, 0.85, 0.90, 0.05
FOLDS, SEED = 4, 7
TUNED = "changepoint, rule of the first recording"
HEADER = """| recording | by | incidents | precision | recall | F1 | point FPR | found by kind |
| --- | --- | --- | --- | --- | --- | --- | --- |"""
INTRODUCTION = """## The further recordings

`scripts/bench/detection_recordings.py` on {machine}.
The last {scored:.0%} of each link's rows; detectors saw the first {fitted:.0%} without labels. Settings and the alarm rule were
chosen on the first recording alone ({rule}).
Bars: precision > 0.95, recall > 0.85, F1 > 0.90, point FPR < 0.05."""


def main() -> None:
    """Scores every method on each recording, and writes the section."""
    logging.getLogger("ocad.data").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", nargs="+", default=list(FURTHER), help="names of the catalogue, or files")
    parser.add_argument("--no-write", action="store_true", help="print the section, leave docs/results alone")
    chosen = parser.parse_args()
    found = rule_of_the_first()
    methods: dict[str, Method] = {TUNED: plugin_method("changepoint", config=CONFIG, rule=found.rule)}
    methods |= {name: method_named(name) for name in ("auto", "changepoint", "rule_based", "median_mad")}
    lines = [line for name in chosen.recordings for line in scored(name, methods)]
    rule = f"{found.rule.k} of {found.rule.n} rows at {found.rule.on:g}, or one at {found.rule.instant:g}"
    head = INTRODUCTION.format(machine=machine(), scored=1 - FITTED, fitted=FITTED, rule=rule)
    text = "\n".join([head, "", HEADER, *lines])
    print(text)
    if not chosen.no_write:
        write_section("recordings", text)


def rule_of_the_first() -> Found:
    """The alarm rule that the labels of the first recording lead to, for one detector; nothing of the others is seen."""
    frame, first = read(FIRST)
    model = train_plugin("changepoint", frame[first], METRICS, (), CONFIG)
    assert isinstance(model, SeriesDetector)
    rows = frame.drop(columns="kind")
    labelled = gather([model], rows, np.ones(len(rows), dtype=bool), FOLDS)
    return search(labelled, AlarmRule.plain(), FOLDS, SEED)


def read(name: str) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """The rows of a recording by link and time with `label` and `kind`, and which of them detectors are fitted on."""
    source = find_data(name)
    frame = read_frame(source, METRICS, varying=False, lost=True).data
    kinds = pd.read_parquet(source.path, columns=["timestamp", "endpoint", "kind"])
    frame = frame.merge(kinds, on=["timestamp", "endpoint"], how="left", validate="one_to_one")
    place = frame.groupby("endpoint", sort=False).cumcount()
    size = frame.groupby("endpoint", sort=False)["endpoint"].transform("size")
    return frame, (place < FITTED * size).to_numpy()


def scored(name: str, methods: dict[str, Method]) -> list[str]:
    """A row of the table for each method."""
    frame, first = read(name)
    train, test = frame[first].reset_index(drop=True), frame[~first].reset_index(drop=True)
    label, kinds = test["label"].to_numpy(), test["kind"].to_numpy(object)
    lines = []
    for title, method in methods.items():
        said = method(unlabelled(train, METRICS), unlabelled(test, METRICS), METRICS)
        counts, found, everything = EventCounts(), Counter[str](), Counter[str]()
        for places in test.groupby("endpoint", sort=False).indices.values():
            alarm = said.alarm[places]
            counts += count_events(label[places], alarm, rest=said.rest)
            free = alerts_of(alarm, said.rest)
            for incident in incidents_of(label[places]):
                kind = str(kinds[places][incident.start])
                match = next((one for one in free if incident.start <= one.start <= incident.deadline), None)
                everything[kind] += 1
                if match is not None:
                    free.remove(match)
                    found[kind] += 1
        lines.append(row(name, title, counts, found, everything))
    return lines


def row(name: str, title: str, counts: EventCounts, found: Counter[str], everything: Counter[str]) -> str:
    """One line; a figure that meets its bar is bold."""
    metrics = dataclasses.asdict(counts.metrics())
    bars = {
        "event_precision": metrics["event_precision"] > PRECISION,
        "event_recall": metrics["event_recall"] > RECALL,
        "event_f1": metrics["event_f1"] > F1,
        "point_fpr": metrics["point_fpr"] < POINT_FPR,
    }
    figures = [f"**{metrics[bar]:.3f}**" if met else f"{metrics[bar]:.3f}" for bar, met in bars.items()]
    kinds = ", ".join(f"{kind} {found[kind]} of {number}" for kind, number in sorted(everything.items()))
    return f"| `{name}` | {title} | {counts.found + counts.missed} | {' | '.join(figures)} | {kinds} |"


if __name__ == "__main__":
    main()
