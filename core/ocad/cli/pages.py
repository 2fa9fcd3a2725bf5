"""A version on one page: the verdict, the data, and of its metrics those that matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ocad.cli.output import table
from ocad.errors import printable

MATTER = (
    "auc", "gauc", "logloss", "normalized_entropy", "average_precision", "ece", "truth_error", "brier", "val_auc",
    "val_logloss", "skill_vs_best_baseline", "typical_skill_vs_best_baseline", "typical_skill_vs_naive", "mae_us", "mae",
    "naive_mae_us", "naive_mae", "mse", "val_loss", "event_f1", "event_precision", "event_recall", "point_fpr",
    "false_alarm_rate_1pct", "false_alarm_rate_01pct", "mase",
)  # fmt: skip
"""The metrics that say most, the most telling first; every one of them is in the version."""
SHOWN = 10


def headline(metrics: Mapping[str, float], count: int = SHOWN) -> list[tuple[str, float]]:
    """At most `count` metrics: those that matter, then others by name, those of validation or before calibration last."""
    known = [name for name in MATTER if name in metrics]
    others = sorted(metrics.keys() - set(known), key=lambda name: (name.startswith(("val_", "raw_")), name))
    return [(name, metrics[name]) for name in (*known, *others)[:count]]


def evidence(
    gates: Iterable[Mapping[str, Any]], parity: Mapping[str, Any] | None, metrics: Mapping[str, float], reference: str
) -> list[str]:
    """Gates, parity and the metrics that matter as tables; what is left out is said."""
    rows = [(gate["name"], f"{gate['op']} {gate['threshold']:g}", gate["observed"], gate["passed"]) for gate in gates]
    if parity:
        bar = f"<= {parity['tolerance']:g} of scale"
        rows.append(("parity", bar, parity["max_scaled_diff"], parity["passed"]))
    lines = [table(("gate", "bar", "observed", "passed"), rows), ""]
    lines.append(table(("metric", "value"), headline(metrics)))
    if len(metrics) > SHOWN:
        lines.append(f"{len(metrics) - SHOWN} more: `ocad registry show {reference} --json`")
    return lines


def describe_version(document: Mapping[str, Any]) -> str:
    """`Registry.describe` for a person."""
    reference = f"{document['name']}@{document['version']}"
    aliases = ", ".join(document["aliases"])
    plugin = document["plugin"]
    lines = [f"{reference}  {'passed' if document['passed'] else 'did not pass'}{f'  ({aliases})' if aliases else ''}"]
    if document.get("description"):
        lines.append(" ".join(document["description"].split()))
    metric = f" of `{document['metric']}`" if document.get("metric") else ""
    made = f"task     {document['task']}{metric}, by the plugin {plugin['name']} {plugin['version']}".rstrip()
    lines += ["", printable(made)]
    lines.append(f"created  {document['created_at']}")
    if data := document.get("data"):
        splits = ", ".join(f"{part} {rows}" for part, rows in data["splits"].items())
        counted = f"{data['rows']} rows ({splits})" if splits else f"{data['rows']} rows"
        lines.append(printable(f"data     {data['name']}: {counted}, fingerprint {data['fingerprint'][:12]}"))
    lines += [printable(f"parent   {parent['ref']}") for parent in document.get("parents", ())]
    lines.append(printable(f"path     {document['path']}"))
    lines += ["", *evidence(document.get("gates", ()), document.get("parity"), document["metrics"], reference)]
    if files := document.get("files"):
        lines += ["", table(("file", "role", "bytes"), [(one["path"], one["role"], one["size"]) for one in files])]
    return "\n".join(lines)
