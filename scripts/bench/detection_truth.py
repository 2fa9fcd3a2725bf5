"""What the runners on injected incidents share: links drawn by name, cases, scores by link, and the tables."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import pandas as pd
from detection_methods import Method, method_named, unlabelled
from detection_results import write_section
from numpy.typing import NDArray
from report import machine

from ocad.catalogue import find_data
from ocad.detection.events import incidents_of
from ocad.detection.inject import KINDS, InjectedIncident, Injection, inject
from ocad.detection.truth.backgrounds import quiet_rows, seeded, stationary_bootstrap
from ocad.detection.truth.intervals import Estimate, event_f1, f1_difference
from ocad.detection.truth.limit import LikelihoodRatio
from ocad.detection.truth.natural import NaturalEvents, natural_events, natural_tails
from ocad.detection.truth.scoring import TruthCounts, detectable, score_link
from ocad.timeseries.frame import read_frame

METRIC = "udp_echo"
SETS = ("ripe_rtt", "cicv5g")
METHODS = ("median_mad", "auto", "changepoint", "rule_based", "residual", "isolation_forest")
CLEAN = 0.5
PREVALENCE = 0.1
LEAST_ROWS = 2000
"""Rows that a link must have."""
ORACLE_ROWS = 20_000
"""Clean rows that the oracle knows a link's noise from."""

Floats = NDArray[np.float64]
Found = list[TruthCounts]
"""Counts of one method by link, in the case's order of links."""
Bench = Callable[[str, str, int, int, dict[str, Method]], tuple[list[str], list[str]]]
"""Set, metric, links at most, seed and methods → rows of the table, and remarks on them."""


@dataclass(frozen=True, slots=True)
class Link:
    """The truth about the test rows of one link."""

    endpoint: str
    places: NDArray[np.int64]
    """Where its test rows stand in the case's `test`."""
    labels: NDArray[np.int8]
    kinds: NDArray[np.object_]
    natural: NaturalEvents
    apart: NDArray[np.bool_]
    """Whether each of its incidents is detectable."""
    values: Floats
    """Of all its rows, training rows first."""
    incidents: tuple[InjectedIncident, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """Training rows, the test rows that follow, and what is true of them; the frames have no label."""

    train: pd.DataFrame
    test: pd.DataFrame
    metric: str
    links: tuple[Link, ...]

    def score(self, method: Method) -> Found:
        """The counts of `method` by link."""
        found = method(self.train, self.test, (self.metric,))
        return [
            score_link(one.labels, one.kinds, found.alarm[one.places], one.natural, one.apart, found.rest)
            for one in self.links
        ]


def make_case(before: pd.DataFrame, real: pd.DataFrame, metric: str, how: Injection) -> Case:
    """Incidents in the links of `before` after their clean part; `real` are the links that natural spikes are known from."""
    changed, incidents = inject(before, (metric,), how)
    number = changed.groupby("endpoint", sort=False).cumcount().to_numpy()
    size = changed.groupby("endpoint", sort=False)["endpoint"].transform("size").to_numpy()
    tested = number >= np.ceil(how.clean * size)
    place = np.cumsum(tested) - 1
    natural_values = {str(name): part[metric].to_numpy(np.float64) for name, part in real.groupby("endpoint")}
    links = []
    for name, rows in changed.groupby("endpoint", sort=False).indices.items():
        endpoint, own = str(name), np.asarray(rows)
        values, unchanged = (table[metric].to_numpy(np.float64)[own] for table in (changed, before))
        labels, kinds = changed["label"].to_numpy()[own], changed["kind"].to_numpy(object)[own]
        tails = natural_tails(natural_values[endpoint], natural_events(natural_values[endpoint]))
        apart = detectable(incidents_of(labels, kinds), unchanged, values, tails)
        after = own[tested[own]]
        first = len(own) - len(after)
        links.append(
            Link(
                endpoint, place[after], labels[first:], kinds[first:], natural_events(unchanged).since(first), apart, values,
                tuple(one for one in incidents if one.endpoint == endpoint),
            )
        )  # fmt: skip
    return Case(unlabelled(changed[~tested], (metric,)), unlabelled(changed[tested], (metric,)), metric, tuple(links))


def read_links(name: str, metric: str, most: int, least_rows: int = LEAST_ROWS) -> pd.DataFrame:
    """The rows of the links of the data `name` that `drawn_links` draws, without label."""
    frame = read_frame(find_data(name), (metric,)).data
    drawn = drawn_links(frame, most, least_rows)
    return unlabelled(frame[frame["endpoint"].isin(drawn)], (metric,))


def drawn_links(frame: pd.DataFrame, most: int, least_rows: int) -> list[str]:
    """At most `most` links with at least `least_rows` rows, drawn by a hash of their names, so that nobody chooses."""
    sizes = frame.groupby("endpoint").size()
    names = [str(endpoint) for endpoint in sizes[sizes >= least_rows].index]
    return sorted(names, key=lambda endpoint: hashlib.sha256(endpoint.encode()).hexdigest())[:most]


def known_noise(real: pd.DataFrame, metric: str, seed: int) -> dict[str, LikelihoodRatio]:
    """The oracle of each link of `real`, from clean rows drawn anew."""
    oracles = {}
    for name, part in real.groupby("endpoint"):
        values = part[metric].to_numpy(np.float64)
        clean = stationary_bootstrap(values, quiet_rows(values), ORACLE_ROWS, 50.0, seeded(seed, str(name), 1))
        oracles[str(name)] = LikelihoodRatio(clean)
    return oracles


def oracle_recall(case: Case, oracles: Mapping[str, LikelihoodRatio], rate: float) -> float:
    """Of the detectable incidents the share that the oracles find at `rate` false alarms a row."""
    found = [
        oracles[link.endpoint].finds(link.values, incident, rate)
        for link in case.links
        for incident, apart in zip(link.incidents, link.apart, strict=True)
        if apart
    ]
    return float(np.mean(found)) if found else 0.0


def total(found: Found) -> TruthCounts:
    """The sum over links."""
    return reduce(add, found, TruthCounts())


def false_alarm_rate(counts: TruthCounts) -> float:
    """Wrong alerts a normal row."""
    return counts.events.wrong / max(counts.events.normal, 1)


HEADER = (
    "| data | magnitude | method | precision | recall | F1 (95 %) | FPR | FPR past deadlines | oracle's recall | share of it | "
    + " | ".join(KINDS)
    + " | hidden spikes | natural: sustained told | spikes told | ignored alerts |\n"
    + "| --- " * (14 + len(KINDS))
    + "|"
)


def table_row(data: str, magnitude: float, method: str, found: Found, oracle: float | None) -> str:
    """One row of `HEADER`'s table."""
    counts, f1 = total(found), event_f1([one.events for one in found])
    metrics = counts.metrics()
    limit = (
        ("–", "–") if oracle is None else (f"{oracle:.3f}", f"{metrics.event_recall / oracle:.2f}" if oracle else "–")
    )
    kinds = (f"{counts.found[kind]} of {counts.all[kind]}" for kind in KINDS)
    away = counts.quiet_alarmed / max(counts.quiet, 1)
    cells = [
        f"`{data}`", f"{magnitude:g}", f"`{method}`", f"{metrics.event_precision:.3f}", f"{metrics.event_recall:.3f}", str(f1),
        f"{metrics.point_fpr:.4f}", f"{away:.4f}", *limit, *kinds,
        f"{counts.hidden_found} of {counts.hidden}", f"{counts.sustained_told} of {counts.sustained}",
        f"{counts.spikes_told} of {counts.spikes}", str(counts.ignored),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def comparison(data: str, magnitude: float, results: Mapping[str, Found]) -> list[str]:
    """Every method but the first against the first, on the same rows."""
    (reference, base), *others = results.items()
    lines = []
    for name, found in others:
        difference = f1_difference([one.events for one in found], [one.events for one in base])
        lines.append(f"- `{data}`, magnitude {magnitude:g}: {versus(name, reference, difference, 'F1')}")
    return lines


def versus(name: str, reference: str, difference: Estimate, what: str) -> str:
    """The wording of every comparison."""
    figures = f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
    return f"`{name}` is {difference.verdict} than `{reference}`: {what} {figures}."


def options(description: str | None, methods: Sequence[str] = METHODS) -> argparse.ArgumentParser:
    """The options that every runner has."""
    logging.getLogger("ocad.data").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--methods", nargs="+", default=list(methods), help="baselines, or PLUGIN[:CONFIG.yaml][ key=value …]"
    )
    parser.add_argument("--no-write", action="store_true", help="print the section, leave docs/results alone")
    return parser


def run_sets(doc: str | None, section: str, introduction: str, links: int, bench: Bench) -> None:
    """The command of a runner that scores every method on every set by `bench` and writes `section`."""
    parser = options(doc)
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="data sets of the catalogue, or files")
    parser.add_argument("--metric", default=METRIC)
    parser.add_argument("--links", type=int, default=links, help="links of each set at most")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    methods = methods_of(chosen.methods)
    lines, notes = list[str](), list[str]()
    for name in chosen.sets:
        rows, remarks = bench(name, chosen.metric, chosen.links, chosen.seed, methods)
        lines, notes = lines + rows, notes + remarks
    text = "\n".join([introduction.format(machine=machine(), seed=chosen.seed), "", HEADER, *lines, "", *notes])
    print(text)
    if not chosen.no_write:
        write_section(section, text)


def verdict(bars: Mapping[str, bool]) -> str:
    """Which of the bars are met."""
    return ", ".join(f"{what} {'meets' if met else 'misses'} its bar" for what, met in bars.items())


def methods_of(names: Sequence[str]) -> dict[str, Method]:
    """The methods by what the tables call them."""
    return {name: method_named(name) for name in names}
