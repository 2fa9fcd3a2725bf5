"""The hand-labelled change points of `ripe_rtt`, found as they happen and by PELT; see `docs/results/detection_protocol.md`."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from detection_injected import CLEAN, METRIC, links
from detection_results import write_section
from numpy.typing import NDArray
from report import machine

from ocad.catalogue import find_data
from ocad.detection.events import alerts_of
from ocad.detection.hold import default_hold
from ocad.detection.pelt import change_points
from ocad.detection.units import ALARM
from ocad.host import Host
from ocad.pipeline import train
from ocad.progress import console_progress
from ocad.protocols import Detector
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad.timeseries.frame import read_frame
from ocad_registry import Registry

DATA = "ripe_rtt"
FOLDS = 5
NEAR_US = 30 * 60_000_000
DETECTORS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "changepoint, changes.yaml (streaming)": ("changepoint", "configs/changepoint/changes.yaml", ()),
    "changepoint, default.yaml in both directions (streaming)": (
        "changepoint",
        "configs/changepoint/default.yaml",
        ("cusum.direction=both",),
    ),
    "rules alone (streaming)": ("rule_based", "configs/rule_based/default.yaml", ()),
}
LEVELS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 17.0, 20.0, 25.0, 30.0)
"""Noise units of which an alarm is made."""
PENALTIES = (28.0, 300.0, 3000.0, 10_000.0, 20_000.0, 40_000.0, 80_000.0)
"""What a change point must save, in squared deviations; PELT's own default is about 28 here."""

Found = Mapping[str, Sequence[int]]
"""Link → times (µs) at which a change is told of."""


@dataclass
class Tally:
    """Labelled changes that were told of in time, of how many, and what was told of in all."""

    found: int = 0
    labelled: int = 0
    told: int = 0

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(self.found + other.found, self.labelled + other.labelled, self.told + other.told)

    @property
    def precision(self) -> float:
        """Share of what was told that is a labelled change."""
        return self.found / self.told if self.told else 0.0

    @property
    def recall(self) -> float:
        """Share of the labelled changes that were told of."""
        return self.found / self.labelled if self.labelled else 0.0

    @property
    def f1(self) -> float:
        """Their harmonic mean."""
        return 2 * self.found / (self.told + self.labelled) if self.found else 0.0


def main() -> None:
    """Scores each fold of links at the level that the other folds choose, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-write", action="store_true", help="print the section, leave docs/results alone")
    options = parser.parse_args()
    logging.getLogger("ocad.data").setLevel(logging.ERROR)
    frame = read_frame(find_data(DATA), (METRIC,)).data
    names = sorted(name for part in links(frame) for name in part)
    parts = {str(name): part.reset_index(drop=True) for name, part in frame.groupby("endpoint") if name in names}
    rows = []
    for name, (levels, shipped, tell) in methods(frame[frame["endpoint"].isin(names)], parts).items():
        tallies = {level: {link: tally(parts, [link], tell(level, [link])) for link in names} for level in levels}
        total, chosen = Tally(), []
        for fold in range(FOLDS):
            others = [link for place, link in enumerate(names) if place % FOLDS != fold]
            best = max(levels, key=lambda level: total_of(tallies[level], others).f1)
            total = total.plus(total_of(tallies[best], names[fold::FOLDS]))
            chosen.append(best)
        rows.append(table_row(name, ", ".join(f"{level:g}" for level in chosen), total))
        if shipped:
            rows.append(table_row(f"{name}, as shipped", f"{shipped:g}", total_of(tallies[shipped], names)))
        print(rows[-1], flush=True)
    text = "\n".join([INTRODUCTION.format(machine=machine(), links=len(names)), "", HEADER, *rows])
    print(text)
    if not options.no_write:
        write_section("changepoints", text)


INTRODUCTION = """## Change points of `ripe_rtt`

`scripts/bench/detection_changepoints.py` on {machine}. A labelled change is found if something is told of it within 30 minutes
before or after (7 pings), each at most once; precision is the share of what is told. Leave-probes-out: the level for each of five
groups of the {links} links is the one with the best F1 on the four others. The settings of
`changes.yaml` were chosen by looking at these links, all together. Bar: F1 ≥ 0.65 streaming."""
HEADER = """| method | level by group | precision | recall | F1 | labelled | told |
| --- | --- | --- | --- | --- | --- | --- |"""

Tell = Callable[[float, Sequence[str]], Found]


def methods(frame: pd.DataFrame, parts: Mapping[str, pd.DataFrame]) -> dict[str, tuple[Sequence[float], float, Tell]]:
    """By name: the levels to choose from, the shipped one (0: none), and what is told of the links named, at a level."""
    result: dict[str, tuple[Sequence[float], float, Tell]] = {}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Host(), Registry(Path(folder, "models")), console_progress())
        path = Path(folder, "series.parquet")
        frame[["timestamp", "endpoint", METRIC]].to_parquet(path, index=False)
        for name, (plugin, config, overrides) in DETECTORS.items():
            request = TrainRequest(plugin, METRIC, str(path), config, overrides, runs=f"{folder}/runs")
            model = session.load(train(request, session).version.ref)
            assert isinstance(model, Detector)
            scores = {link: model.score(part) for link, part in parts.items() if link in set(frame["endpoint"])}
            result[name] = LEVELS, ALARM, streaming(parts, scores)
    return {**result, "PELT (offline, sees the whole series)": (PENALTIES, 0.0, offline(parts))}


def streaming(parts: Mapping[str, pd.DataFrame], scores: Mapping[str, NDArray[np.float64]]) -> Tell:
    """An alarm's first row tells of a change."""

    def tell(level: float, names: Sequence[str]) -> Found:
        hold = {name: default_hold(level) for name in names}
        return {
            name: times_of(parts[name])[[alert.start for alert in alerts_of(hold[name].run(scores[name]))]].tolist()
            for name in names
        }

    return tell


def offline(parts: Mapping[str, pd.DataFrame]) -> Tell:
    """The first row of each of PELT's segments but the first."""

    def tell(level: float, names: Sequence[str]) -> Found:
        return {
            name: times_of(parts[name])[change_points(parts[name][METRIC].to_numpy(), level)].tolist() for name in names
        }

    return tell


def tally(parts: Mapping[str, pd.DataFrame], names: Sequence[str], found: Found) -> Tally:
    """What of `found` lies within half an hour of a labelled change, one to one in time order, after the clean parts."""
    total = Tally()
    for name in names:
        part, times = parts[name], times_of(parts[name])
        first = times[int(np.ceil(CLEAN * len(times)))]
        labelled = times[(part["label"] == 1).to_numpy() & (times >= first)].tolist()
        free = [time for time in found[name] if time >= first]
        total.told += len(free)
        total.labelled += len(labelled)
        for change in labelled:
            match = next((time for time in free if abs(time - change) <= NEAR_US), None)
            if match is not None:
                free.remove(match)
                total.found += 1
    return total


def total_of(tallies: Mapping[str, Tally], names: Sequence[str]) -> Tally:
    """The tallies of the links named, together."""
    total = Tally()
    for name in names:
        total = total.plus(tallies[name])
    return total


def times_of(part: pd.DataFrame) -> NDArray[np.int64]:
    """The times of one link's rows in µs."""
    return np.asarray(part["timestamp"].dt.as_unit("us").astype("int64"))


def table_row(name: str, level: str, tested: Tally) -> str:
    """One row of the table."""
    shares = f"{tested.precision:.2f} | {tested.recall:.2f} | {tested.f1:.2f}"
    return f"| {name} | {level} | {shares} | {tested.labelled} | {tested.told} |"


if __name__ == "__main__":
    main()
