"""Every detector with its shipped default on every set: no setting is chosen here. See `docs/results/detection_protocol.md`."""

from __future__ import annotations

import detection_truth as truth
from detection_methods import method_named
from detection_results import write_section
from detection_sets import SETS
from report import machine

METHODS = ("auto", "changepoint", "rule_based", "isolation_forest", "subspace", "median_mad")
INTRODUCTION = """## Shipped defaults

`scripts/bench/detection_defaults.py` on {machine}. Trained on each set's training rows without labels, one setting for all sets:
the one that is shipped. In brackets the 95 % interval over links, files or machines."""


def main() -> None:
    """Scores every method on every set, and writes the section."""
    parser = truth.options(__doc__, METHODS)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    chosen = parser.parse_args()
    header = ["set", "measure", *(f"`{name}`" for name in chosen.methods)]
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    for name in chosen.sets:
        task = SETS[name]()
        figures = [str(task.score(method_named(method)).value) for method in chosen.methods]
        lines.append(f"| {' | '.join([f'`{name}`', task.measure, *figures])} |")
        print(lines[-1], flush=True)
    text = "\n".join([INTRODUCTION.format(machine=machine()), "", *lines])
    print(text)
    if not chosen.no_write:
        write_section("defaults", text)


if __name__ == "__main__":
    main()
