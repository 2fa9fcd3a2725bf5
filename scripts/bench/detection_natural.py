"""Incidents in natural series, where natural events are neither right nor wrong; see `docs/results/detection_protocol.md`."""

from __future__ import annotations

import detection_truth as truth
from detection_methods import Method
from detection_results import write_section
from report import machine

from ocad.detection.inject import Injection

MAGNITUDE = 6.0
LINKS = 18
PRECISION, RECALL = 0.90, 0.75
INTRODUCTION = """## Natural series

`scripts/bench/detection_natural.py` on {machine}.
Incidents of magnitude 6 in real links as they are, in the second half; seed {seed}. Alerts at natural
events (an offline rule that sees both sides of time) are ignored. Bars: precision ≥ 0.90, recall ≥ 0.75."""


def main() -> None:
    """Scores every method on every set, and writes the section."""
    parser = truth.options(__doc__)
    parser.add_argument("--sets", nargs="+", default=list(truth.SETS), help="data sets of the catalogue, or files")
    parser.add_argument("--metric", default=truth.METRIC)
    parser.add_argument("--links", type=int, default=LINKS, help="links of each set at most")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    methods = truth.methods_of(chosen.methods)
    lines, notes = list[str](), list[str]()
    for name in chosen.sets:
        rows, remarks = bench(name, chosen.metric, chosen.links, chosen.seed, methods)
        lines, notes = lines + rows, notes + remarks
    text = "\n".join([INTRODUCTION.format(machine=machine(), seed=chosen.seed), "", truth.HEADER, *lines, "", *notes])
    print(text)
    if not chosen.no_write:
        write_section("natural", text)


def natural_case(name: str, metric: str, most: int, seed: int) -> truth.Case:
    """Links of the set `name` as they are, incidents in their second half."""
    real = truth.read_links(name, metric, most)
    how = Injection(magnitude=MAGNITUDE, prevalence=truth.PREVALENCE, seed=seed, clean=truth.CLEAN)
    return truth.make_case(real, real, metric, how)


def bench(name: str, metric: str, most: int, seed: int, methods: dict[str, Method]) -> tuple[list[str], list[str]]:
    """Rows of the table for the set `name`, and remarks on them."""
    case = natural_case(name, metric, most, seed)
    results = {label: case.score(method) for label, method in methods.items()}
    lines = [truth.table_row(name, MAGNITUDE, label, found, None) for label, found in results.items()]
    notes = []
    for label, found in results.items():
        metrics = truth.total(found).metrics()
        bars = {
            f"precision {metrics.event_precision:.3f}": metrics.event_precision >= PRECISION,
            f"recall {metrics.event_recall:.3f}": metrics.event_recall >= RECALL,
        }
        told = ", ".join(f"{what} {'meets' if met else 'misses'} its bar" for what, met in bars.items())
        notes.append(f"- `{name}`, `{label}`: {told}.")
    return lines, notes + truth.comparison(name, MAGNITUDE, results)


if __name__ == "__main__":
    main()
