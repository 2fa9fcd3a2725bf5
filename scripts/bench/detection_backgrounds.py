"""Incidents in clean backgrounds of real links, beside the likelihood-ratio oracle; see `docs/results/detection_protocol.md`."""

from __future__ import annotations

import detection_truth as truth
from detection_methods import Method

from ocad.detection.inject import Injection
from ocad.detection.truth.backgrounds import clean_backgrounds
from ocad.detection.truth.scoring import TruthCounts

MAGNITUDES = (6.0, 10.0)
LINKS = 12
PRECISION, RECALL, POINT_FPR, SHARE = 0.95, 0.85, 0.01, 0.9
INTRODUCTION = """## Clean backgrounds

`scripts/bench/detection_backgrounds.py` on {machine}. Quiet rows of real links, resampled (6,000 rows a link), incidents in the
second half; seed {seed}. Bars at magnitude 6: precision ≥ 0.95, recall ≥ 0.85, FPR < 0.01; at 10 recall ≥ 0.9 of the oracle's."""


def main() -> None:
    """Scores every method on every set, and writes the section."""
    truth.run_sets(__doc__, "backgrounds", INTRODUCTION, LINKS, bench)


def bench(name: str, metric: str, most: int, seed: int, methods: dict[str, Method]) -> tuple[list[str], list[str]]:
    """Rows of the table for the set `name`, and remarks on them."""
    real = truth.read_links(name, metric, most)
    made = clean_backgrounds(real, metric, seed)
    real = real[real["endpoint"].isin(made["endpoint"].unique())].reset_index(drop=True)
    oracles = truth.known_noise(real, metric, seed)
    lines, notes = [], []
    for magnitude in MAGNITUDES:
        how = Injection(magnitude=magnitude, prevalence=truth.PREVALENCE, seed=seed, clean=truth.CLEAN)
        case = truth.make_case(made, real, metric, how)
        results = {label: case.score(method) for label, method in methods.items()}
        for label, found in results.items():
            counts = truth.total(found)
            limit = truth.oracle_recall(case, oracles, truth.false_alarm_rate(counts))
            lines.append(truth.table_row(name, magnitude, label, found, limit))
            notes.append(f"- `{name}`, magnitude {magnitude:g}, `{label}`: {verdict(magnitude, counts, limit)}.")
        notes += truth.comparison(name, magnitude, results)
    return lines, notes


def verdict(magnitude: float, counts: TruthCounts, limit: float) -> str:
    """Which of the bars of `magnitude` are met."""
    metrics = counts.metrics()
    if magnitude == MAGNITUDES[0]:
        bars = {
            f"precision {metrics.event_precision:.3f}": metrics.event_precision >= PRECISION,
            f"recall {metrics.event_recall:.3f}": metrics.event_recall >= RECALL,
            f"FPR {metrics.point_fpr:.4f}": metrics.point_fpr < POINT_FPR,
        }
    else:
        bars = {f"recall {metrics.event_recall:.3f} of the oracle's {limit:.3f}": metrics.event_recall >= SHARE * limit}
    return truth.verdict(bars)


if __name__ == "__main__":
    main()
