"""Incidents in natural series, where natural events are neither right nor wrong; see `docs/results/detection_protocol.md`."""

from __future__ import annotations

import detection_truth as truth
from detection_methods import Method

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
    truth.run_sets(__doc__, "natural", INTRODUCTION, LINKS, bench)


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
        notes.append(f"- `{name}`, `{label}`: {truth.verdict(bars)}.")
    return lines, notes + truth.comparison(name, MAGNITUDE, results)


if __name__ == "__main__":
    main()
