"""The eight sets of the leave-one-set-out table: each with its rows, its metrics and its own figure between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import detection_truth as truth
import numpy as np
import pandas as pd
from detection_export import halves, judge
from detection_methods import Detected, Method, unlabelled
from nab_score import NabSeries, read_corpus, score_series
from numpy.typing import NDArray

from ocad.catalogue import find_data
from ocad.detection.events import EventCounts, Interval, count_events
from ocad.detection.inject import Injection
from ocad.detection.truth.intervals import Estimate, event_f1, f1_difference, mean, mean_difference
from ocad.detection.truth.operator import OperatorExport, operator_export
from ocad.detection.truth.scoring import score_link
from ocad.metrics.ranking import average_precision
from ocad.timeseries.frame import read_frame

LINKS, SEED = 8, 7
TESTBED = ("udp_echo", "ecpri", "lbm", "ccm")
FITTED_ROWS = 400
"""Rows of a SKAB file that the benchmark's own notebooks fit on."""
SIMULATED = 301
"""The seed of the simulator's export."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The figure of one method on one set, by group (link, file, machine): counts for F1, or values for their mean."""

    counts: tuple[EventCounts, ...] = ()
    values: tuple[float, ...] = ()

    @property
    def value(self) -> Estimate:
        """The figure with its interval over groups."""
        return event_f1(self.counts) if self.counts else mean(self.values)

    def less(self, other: Scored) -> Estimate:
        """What it is above `other`, on the same groups."""
        return f1_difference(self.counts, other.counts) if self.counts else mean_difference(self.values, other.values)


@dataclass(frozen=True, slots=True)
class Task:
    """One set."""

    name: str
    measure: str
    metrics: tuple[str, ...]
    train: pd.DataFrame
    test: pd.DataFrame
    judge: Callable[[Detected], Scored]

    def score(self, method: Method) -> Scored:
        """What `method`, shown no label, is worth on this set."""
        train, test = (unlabelled(rows, self.metrics) for rows in (self.train, self.test))
        return self.judge(method(train, test, self.metrics))


def oran_testbed() -> Task:
    """The recording: the last 40 % of each link, events without kinds."""
    frame = read_frame(find_data("oran_testbed"), TESTBED, varying=False).data
    number, size = frame.groupby("endpoint").cumcount(), frame.groupby("endpoint")["endpoint"].transform("size")
    train, test = (frame[mask].reset_index(drop=True) for mask in (number < 0.6 * size, number >= 0.6 * size))
    label, places = test["label"].to_numpy(), _places(test)

    def judged(found: Detected) -> Scored:
        return Scored(tuple(count_events(label[rows], found.alarm[rows]) for rows in places))

    return Task("oran_testbed", "event F1", TESTBED, train, test, judged)


def natural(name: str) -> Task:
    """Real links with incidents of magnitude 6, natural events ignored."""
    how = Injection(prevalence=truth.PREVALENCE, seed=SEED, clean=truth.CLEAN)
    real = truth.read_links(name, truth.METRIC, LINKS)
    return _of_case(name, truth.make_case(real, real, truth.METRIC, how))


def tsn_bridge() -> Task:
    """The three scenarios of a bridge, likewise."""
    real = truth.read_links("tsn_bridge", "ecpri", LINKS, least_rows=500)
    how = Injection(prevalence=truth.PREVALENCE, seed=SEED, clean=truth.CLEAN)
    return _of_case("tsn_bridge", truth.make_case(real, real, "ecpri", how))


def nab() -> Task:
    """NAB's files: its own score / 100, a detection where an alarm begins; fitted on the rows that do not count."""
    corpus = {series.name: series for series in read_corpus(find_data("nab").path)}
    rows = pd.concat([_numbered(series) for series in corpus.values()], ignore_index=True)
    counted = rows["row"] >= rows["endpoint"].map({name: series.probation for name, series in corpus.items()})
    test = rows[counted].reset_index(drop=True)
    places, names = _places(test), list(dict.fromkeys(test["endpoint"]))
    windows = float(np.mean([len(corpus[name].windows) for name in names]))

    def judged(found: Detected) -> Scored:
        values = []
        for name, own in zip(names, places, strict=True):
            series, alarm = corpus[name], found.alarm[own]
            begins = alarm & ~np.concatenate([[False], alarm[:-1]])
            whole = np.concatenate([np.zeros(series.probation, dtype=bool), begins])
            values.append((score_series(series, whole) + len(series.windows)) / (2 * windows))
        return Scored(values=tuple(values))

    return Task("nab", "NAB score / 100", ("value",), rows[~counted].reset_index(drop=True), test, judged)


def skab() -> Task:
    """SKAB's files with anomalies, all eight sensors: F1 of rows after the 400th, never point-adjusted."""
    read = read_frame(find_data("skab"), varying=False)
    frame = read.data[read.data.groupby("endpoint")["label"].transform("max") == 1].reset_index(drop=True)
    number = frame.groupby("endpoint", sort=False).cumcount()
    train, test = (frame[mask].reset_index(drop=True) for mask in (number < FITTED_ROWS, number >= FITTED_ROWS))
    label, places = test["label"].to_numpy() == 1, _places(test)

    def judged(found: Detected) -> Scored:
        return Scored(tuple(_row_counts(label[rows], found.alarm[rows]) for rows in places))

    return Task("skab", "row F1", read.metrics, train, test, judged)


def smd() -> Task:
    """The machines: average precision of the score, never point-adjusted."""
    source = find_data("smd")
    read = read_frame(source, varying=False)
    split = pd.read_parquet(source.path, columns=["machine", "split"])
    fitted = read.data["endpoint"].map(split[split["split"] == "train"].groupby("machine").size())
    number = read.data.groupby("endpoint", sort=False).cumcount()
    train, test = (read.data[mask].reset_index(drop=True) for mask in (number < fitted, number >= fitted))
    label, places = test["label"].to_numpy(), _places(test)

    def judged(found: Detected) -> Scored:
        return Scored(values=tuple(average_precision(label[rows], found.score[rows]) for rows in places))

    return Task("smd", "average precision", read.metrics, train, test, judged)


def simulator() -> Task:
    """A made export of an operator: F1 of incidents told of and false alerts."""
    how = OperatorExport(links=6, seed=SIMULATED)
    frame, incidents = operator_export(how)
    train, test = halves(frame, how)

    def judged(found: Detected) -> Scored:
        counts = []
        for name, rows in test.groupby("endpoint", sort=True).indices.items():
            mine = [
                Interval(one.start - how.parts[0], one.end - how.parts[0], one.kind == "spike")
                for one in incidents
                if one.endpoint == name and one.start >= how.parts[0]
            ]
            told, false = judge(found.alarm[rows], mine)
            hits = sum(late is not None for late in told)
            counts.append(EventCounts(found=hits, missed=len(told) - hits, right=hits, wrong=false))
        return Scored(tuple(counts))

    return Task("simulator", "incident F1", how.metrics, train, test, judged)


SETS: Mapping[str, Callable[[], Task]] = {
    "oran_testbed": oran_testbed,
    "ripe_rtt": lambda: natural("ripe_rtt"),
    "cicv5g": lambda: natural("cicv5g"),
    "nab": nab,
    "skab": skab,
    "smd": smd,
    "tsn_bridge": tsn_bridge,
    "simulator": simulator,
}


def _of_case(name: str, case: truth.Case) -> Task:
    def judged(found: Detected) -> Scored:
        links = case.links
        return Scored(
            tuple(
                score_link(one.labels, one.kinds, found.alarm[one.places], one.natural, one.apart).events
                for one in links
            )
        )

    return Task(name, "event F1, natural events ignored", (case.metric,), case.train, case.test, judged)


def _places(frame: pd.DataFrame) -> list[NDArray[np.int64]]:
    """Where the rows of each endpoint stand, in the order of the frame."""
    groups = frame.groupby("endpoint", sort=False).indices
    return [np.asarray(groups[name]) for name in dict.fromkeys(frame["endpoint"])]


def _numbered(series: NabSeries) -> pd.DataFrame:
    """Rows are numbered, not timed: NAB counts rows, and repeated times must not lose any."""
    rows = np.arange(len(series.values))
    times = pd.to_datetime(rows * 300, unit="s", utc=True)
    return pd.DataFrame({"timestamp": times, "endpoint": series.name, "value": series.values, "row": rows})


def _row_counts(label: NDArray[np.bool_], alarm: NDArray[np.bool_]) -> EventCounts:
    """Rows counted as if each were an event, so that F1 is that of rows."""
    hits = int((label & alarm).sum())
    false = int((~label & alarm).sum())
    return EventCounts(hits, int(label.sum()) - hits, hits, false, int((~label).sum()), false)
