"""Quality of the TCN over real series, by the protocol in `docs/results/tcn_protocol.md`: the test part against baselines."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from report import machine, write_section

from ocad.host import Host
from ocad.pipeline import TrainResult, train
from ocad.progress import console_progress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad_registry import Registry

PROBES = ("11119", "11145", "11176", "11824", "12698", "13291")
SERIES = ("udp_echo", "cicv5g_urban", *(f"ripe_rtt:{probe}" for probe in PROBES))
BAR_SERIES, BAR_SKILL = "cicv5g_urban", 0.10
HEADER = """| series | test rows | `val_loss` | MSE | naive | EWMA | AR(10) | skill over the best [95 %] | MAE µs (best baseline) |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    """Trains a forecaster for each series through the whole pipeline and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", nargs="*", default=list(SERIES))
    parser.add_argument("--no-write", action="store_true", help="print the section, leave docs/benchmarks.md alone")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Host(), Registry(Path(folder) / "models"), console_progress())
        for series in options.series:
            request = TrainRequest("tcn", "udp_echo", data=series, name="bench", runs=f"{folder}/runs")
            results[series] = train(request, session)
    body = describe(results)
    print(body)
    if not options.no_write:
        write_section("tcn-quality", "TCN: quality on real series", body)


def describe(results: dict[str, TrainResult]) -> str:
    """The table, and whether the bars are met."""
    rows = [table_row(series, result) for series, result in results.items()]
    skills = {series: result.version.manifest.metrics["skill_vs_best_baseline"] for series, result in results.items()}
    worse = [name for name, result in results.items() if not result.version.manifest.passed]
    lines = [
        f"{machine()}. Protocol: `docs/results/tcn_protocol.md`; MSE on the series standardised by its training part,",
        "one seed, one configuration for all. Skill is 1 - MSE / MSE of the best baseline on the same test rows.",
        "",
        HEADER,
        *rows,
        "",
        f"Significantly worse than the best baseline: {', '.join(worse) or 'nowhere'}.",
    ]
    if BAR_SERIES in skills:
        lines.append(
            f"Bar on `{BAR_SERIES}`: at least {BAR_SKILL:.0%} below the best baseline; it is {skills[BAR_SERIES]:.1%}."
        )
    return "\n".join(lines)


def table_row(series: str, result: TrainResult) -> str:
    """One row of the table."""
    manifest = result.version.manifest
    metrics, data = manifest.metrics, manifest.data
    names = ("naive", "ewma", "ar10")
    errors = " | ".join(f"{metrics[f'{name}_mse']:.4f}" for name in names)
    low, high = metrics["skill_vs_best_baseline_low"], metrics["skill_vs_best_baseline_high"]
    best_mae = min(metrics[f"{name}_mae_us"] for name in names)
    return (
        f"| `{series}` | {data.splits['test'] if data else 0:,} | {metrics['val_loss']:.4f} | {metrics['mse']:.4f} | {errors} "
        f"| {metrics['skill_vs_best_baseline']:+.3f} [{low:+.3f}, {high:+.3f}] "
        f"| {metrics['mae_us']:,.0f} ({best_mae:,.0f}) |"
    )


if __name__ == "__main__":
    main()
