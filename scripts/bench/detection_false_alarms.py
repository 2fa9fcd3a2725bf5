"""Whether the promised false-alarm rate holds on rows that were never seen; see `docs/results/detection_protocol.md`."""

from __future__ import annotations

from dataclasses import dataclass

import detection_truth as truth
import numpy as np
import pandas as pd
from detection_methods import Detected, Method, unlabelled
from detection_results import write_section
from numpy.typing import NDArray
from report import machine

from ocad.catalogue import find_data
from ocad.detection.truth.intervals import Estimate, mean
from ocad.detection.truth.natural import natural_events
from ocad.timeseries.frame import read_frame

SETS = {"ripe_rtt": ("udp_echo",), "cicv5g": ("udp_echo",), "oran_testbed": ("udp_echo", "ecpri", "lbm", "ccm")}
"""Set → the metrics that are read together."""
DETECTORS = ("rule_based", "changepoint", "isolation_forest", "subspace")
LABELLED = ("oran_testbed",)
"""Sets whose label marks rows that are not normal; that of `ripe_rtt` marks changes of level, after which all is normal."""
TRAINED = 0.6
LEVEL = 2.0
"""The surprise that 1 % of normal rows reach, by promise."""
LOW, HIGH = 0.003, 0.03
LINKS = 12
HEADER = (
    "| data | method | rows at or above the level (95 %) | away from natural events | links within .3–3 % "
    "| rows in alarm | away from natural events |\n| --- | --- | --- | --- | --- | --- | --- |"
)
INTRODUCTION = """## Promised false alarms

`scripts/bench/detection_false_alarms.py` on {machine}.
Trained on the first 60 % of each link, without labels; of the rest the share of rows, mean over links, that reach a surprise
of {level:g}, which 1 % are promised to. Labelled rows are left out. Bar: .3–3 %."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Training and test rows of a set, and which test rows count."""

    train: pd.DataFrame
    test: pd.DataFrame
    normal: NDArray[np.bool_]
    """Rows that no label calls anomalous."""
    away: NDArray[np.bool_]
    """Normal rows that are in no natural event of any metric and not before its deadline."""


def main() -> None:
    """Measures every detector on every set, and writes the section."""
    parser = truth.options(__doc__, DETECTORS)
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="of the catalogue, or files")
    parser.add_argument("--metric", default=truth.METRIC, help="of sets that the script does not name")
    parser.add_argument("--links", type=int, default=LINKS)
    parser.add_argument("--level", type=float, default=LEVEL)
    chosen = parser.parse_args()
    lines, notes = [], []
    for data in chosen.sets:
        metrics = SETS.get(data, (chosen.metric,))
        rows = read_rows(data, metrics, chosen.links)
        for name, method in truth.methods_of(chosen.methods).items():
            line, promised = measure(data, name, method, rows, metrics, chosen.level)
            lines.append(line)
            met = LOW <= promised.value <= HIGH
            notes.append(f"- `{data}`, `{name}`: {promised.value:.2%} {'meets' if met else 'misses'} the bar.")
    head = INTRODUCTION.format(machine=machine(), level=chosen.level)
    text = "\n".join([head, "", HEADER, *lines, "", *notes])
    print(text)
    if not chosen.no_write:
        write_section("false-alarms", text)


def read_rows(data: str, metrics: tuple[str, ...], most: int) -> Rows:
    """Links of `data` drawn by their names."""
    frame = read_frame(find_data(data), metrics, varying=False).data
    drawn = truth.drawn_links(frame, most, truth.LEAST_ROWS)
    frame = frame[frame["endpoint"].isin(drawn)].reset_index(drop=True)
    normal = frame["label"].to_numpy() != 1 if data in LABELLED else np.ones(len(frame), bool)
    tested, away = np.zeros(len(frame), dtype=bool), normal.copy()
    for places in frame.groupby("endpoint", sort=False).indices.values():
        tested[np.asarray(places)[int(TRAINED * len(places)) :]] = True
        for metric in metrics:
            events = natural_events(frame[metric].to_numpy()[places]).all
            for event in events:
                away[places[event.start : event.deadline + 1]] = False
    rows = [unlabelled(frame[mask], metrics) for mask in (~tested, tested)]
    return Rows(rows[0], rows[1], normal[tested], away[tested])


def measure(
    data: str, name: str, method: Method, rows: Rows, metrics: tuple[str, ...], level: float
) -> tuple[str, Estimate]:
    """A row of the table, and the share of rows at or above the level."""
    found: Detected = method(rows.train, rows.test, metrics)
    rare = found.score if found.surprise is None else found.surprise
    shares = []
    for places in rows.test.groupby("endpoint", sort=False).indices.values():
        above, alarm = rare[places] >= level, found.alarm[places]
        normal, away = rows.normal[places], rows.away[places]
        shares.append([part[mask].mean() if mask.any() else 0.0 for part in (above, alarm) for mask in (normal, away)])
    by_link = np.array(shares)
    promised, calm, alarmed, calm_alarmed = (mean(column.tolist()) for column in by_link.T)
    within = int(((by_link[:, 0] >= LOW) & (by_link[:, 0] <= HIGH)).sum())
    interval = f"{promised.value:.2%} ({promised.low:.2%}–{promised.high:.2%})"
    shown = (
        interval,
        f"{calm.value:.2%}",
        f"{within} of {len(by_link)}",
        f"{alarmed.value:.2%}",
        f"{calm_alarmed.value:.2%}",
    )
    return f"| `{data}` | `{name}` | {' | '.join(shown)} |", promised


if __name__ == "__main__":
    main()
