"""Leave one set out: does a setting chosen on the other sets hold on this one? See `docs/results/detection_protocol.md`.

One detector at a time (`--plugins`), from the settings of `detection_grid.py`, over the sets of `detection_sets.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import detection_truth as truth
import numpy as np
from detection_grid import GRID, SHIPPED
from detection_methods import BASELINES, plugin_method
from detection_results import write_section
from detection_sets import SETS, Scored, Task
from report import machine

HEADER = (
    "| set | measure | shipped default (95 %) | chosen on the other sets | chosen on itself "
    "| other sets' choice against the default |"
    "\n| --- | --- | --- | --- | --- | --- |"
)
INTRODUCTION = """## Transfer of `{plugin}`

`scripts/bench/detection_transfer.py` on {machine}. Trained without labels on each set's training rows. Of the {settings}
settings the one with the highest mean figure on the other sets is chosen; `chosen on itself` is the upper line, not a result."""


def main() -> None:
    """Scores each setting of the detectors on every set, and writes a section for each detector."""
    parser = truth.options(__doc__)
    parser.add_argument("--plugins", nargs="+", default=list(GRID), choices=list(GRID))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    chosen = parser.parse_args()
    tasks = {name: SETS[name]() for name in chosen.sets}
    for plugin in chosen.plugins:
        results = {
            name: {label: task.score(plugin_method(plugin, setting.overrides, rule=setting.rule()))
                   for label, setting in GRID[plugin].items()}
            for name, task in tasks.items()
        }  # fmt: skip
        text = "\n".join([describe(plugin, tasks, results), *peers(tasks)])
        print(text, flush=True)
        if not chosen.no_write:
            write_section(f"transfer-{plugin.replace('_', '-')}", text)


def choices(results: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """For each set the setting with the highest mean figure on the other sets; the first of equal ones.

    `results` is set → setting → figure between 0 and 1.
    """
    sets, settings = list(results), list(next(iter(results.values())))
    figures = np.array([[results[name][setting] for setting in settings] for name in sets])
    others = figures.sum(axis=0, keepdims=True) - figures
    return {name: settings[int(others[place].round(12).argmax())] for place, name in enumerate(sets)}


def describe(plugin: str, tasks: Mapping[str, Task], results: Mapping[str, Mapping[str, Scored]]) -> str:
    """The section of one detector."""
    figures = {name: {label: scored.value.value for label, scored in found.items()} for name, found in results.items()}
    chosen, lines = choices(figures), []
    for name, found in results.items():
        own = max(figures[name], key=figures[name].__getitem__)
        difference = found[chosen[name]].less(found[SHIPPED])
        cells = [
            f"`{name}`", tasks[name].measure, str(found[SHIPPED].value),
            f"{figures[name][chosen[name]]:.3f} ({chosen[name]})", f"{figures[name][own]:.3f} ({own})",
            f"{difference.verdict}: {difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    head = INTRODUCTION.format(plugin=plugin, machine=machine(), settings=len(GRID[plugin]))
    return "\n".join([head, "", HEADER, *lines, ""])


def peers(tasks: Mapping[str, Task]) -> list[str]:
    """What plain methods reach on SMD, in the same run."""
    if "smd" not in tasks:
        return []
    by_peer = {name: tasks["smd"].score(BASELINES[name]()) for name in ("knn", "iforest")}
    return [
        "SMD by plain methods in the same run, average precision by machine: "
        + "; ".join(
            f"`{name}` {', '.join(f'{value:.3f}' for value in scored.values)} (mean {scored.value.value:.3f})"
            for name, scored in by_peer.items()
        )
        + "."
    ]


if __name__ == "__main__":
    main()
