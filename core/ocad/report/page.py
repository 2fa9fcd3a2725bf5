"""The page: summary, goals, timelines, detectors side by side, weights, incidents, data."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ocad.catalogue import UNITS
from ocad.detection.events import alerts_of, incidents_of
from ocad.detection.pelt import change_points
from ocad.errors import DataError
from ocad.report import tables
from ocad.report.charts import Timeline

if TYPE_CHECKING:
    import pandas as pd

    from ocad.detection.incidents import Incident
    from ocad.monitoring import Findings
    from ocad_registry import Version

MOST_TIMELINES = 24
"""Endpoints that are drawn: those with the most rows in alarm or incident."""
MOST_ROWS_LOOKED_BACK = 10_000
SPREAD = 50.0
"""A metric whose largest value is more than this many times its median is drawn on a logarithmic scale."""
STYLE = """
:root { color-scheme: light; } body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1120px; color: #1f2328; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #d1d9e0; }
h3 { font-size: 1rem; margin-bottom: .2rem; } table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid #eaeef2; vertical-align: top; }
td { font-variant-numeric: tabular-nums; } svg { width: 100%; } svg path { stroke-width: .8; }
svg text { font-size: 10px; fill: #57606a; } svg text.small { font-size: 9px; } svg .empty { fill: #f6f8fa; }
.muted { color: #57606a; }
.met { color: #1a7f37; font-weight: 600; } .missed { color: #cf222e; font-weight: 600; }
"""


def write_report(findings: Findings, version: Version, path: Path) -> None:
    """Writes what `version` found to `path`, whole or not at all; raises `DataError` when it cannot be written."""
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(render(findings, version), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f"cannot write `{path}` ({error.strerror})", "choose another `--report`") from None


def render(findings: Findings, version: Version) -> str:
    """The whole page; it asks nothing of any network."""
    sections = [("Summary", _summary(findings)), ("Goals", tables.goals(findings))]
    watch = findings.watch
    if watch is not None:
        if findings.events is not None:
            sections.append(("Rules and trained detectors side by side", tables.side_by_side(findings, watch)))
        sections += [("Timelines", _timelines(findings)), ("Incidents", tables.incidents(findings.detection.incidents))]
        sections.append(("Weights", tables.weights(watch)))
    sections.append(("Data", tables.quality(findings)))
    body = "".join(f"<section><h2>{escape(title)}</h2>{content}</section>" for title, content in sections)
    made = f"{version.ref} · metadata sha256 {version.metadata_sha256[:12]} · plugin {version.manifest.plugin.name}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Incidents found by {escape(version.ref)}</title>'
        f"<style>{STYLE}</style></head><body><h1>Incidents found by {escape(version.ref)}</h1>"
        f'<p class="muted">{escape(made)}</p>{body}</body></html>\n'
    )


def _summary(findings: Findings) -> str:
    counts, frame = findings.detection.counts, findings.frame
    begin, end = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (frame["timestamp"].min(), frame["timestamp"].max()))
    rows, endpoints, found = (_many(counts[f"{word}s"], word) for word in ("row", "endpoint", "incident"))
    text = f"{rows} of {endpoints} from {begin} to {end} UTC: {found}"
    kinds = [one.kind for one in findings.detection.incidents]
    listed = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    parts = [f"{text} ({listed})." if listed else f"{text}."]
    if findings.events is not None:
        events = findings.events
        parts.append(
            f"Of {events.found + events.missed} known incidents {events.found} were found; "
            f"of {events.right + events.wrong} alerts {events.right} were right."
        )
    return f"<p>{escape(' '.join(parts))}</p>"


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"


def _timelines(findings: Findings) -> str:
    order = np.asarray(findings.detection.alarms, dtype=np.int64)
    if "label" in findings.frame:
        order = order + findings.frame["label"].to_numpy()
    grouped = findings.frame.groupby("endpoint", sort=True).indices
    groups = {name: np.asarray(places, np.int64) for name, places in grouped.items()}
    shown = sorted(groups, key=lambda name: -int(order[groups[name]].sum()))[:MOST_TIMELINES]
    charts = [f"<h3>{escape(str(name)) or 'the link'}</h3>{_timeline(findings, groups[name])}" for name in shown]
    left = len(groups) - len(shown)
    return "".join(charts) + (f'<p class="muted">{left} quieter endpoints are not drawn.</p>' if left else "")


def _timeline(findings: Findings, places: NDArray[np.int64]) -> str:
    assert findings.watch is not None
    frame = findings.frame.iloc[places]
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64)
    chart = Timeline(times / 1e6)
    for metric in findings.watch.metrics:
        _measured(chart, metric, frame[metric])
    members = {name.partition("@")[0]: scores[places] for name, scores in findings.detection.members.items()}
    chart.curves("surprise", {name: np.minimum(scores, 12.0) for name, scores in members.items()})
    if lost := alerts_of(frame[list(findings.watch.metrics)].isna().any(axis=1)):
        chart.strip("lost or missing", [(one.start, one.end, f"{one.rows} rows") for one in lost], "#8250df")
    if "label" in frame:
        truth = incidents_of(frame["label"].to_numpy())
        chart.strip("truth", [(one.start, one.end, f"{one.rows} rows") for one in truth], "#8c959f")
    changes = _level_changes(frame[list(findings.watch.metrics)].to_numpy(np.float64))
    if changes:
        chart.strip("new level (PELT)", [(row, row, "a new level begins") for row in changes], "#0969da")
    found = [one for one in findings.detection.incidents if one.endpoint == frame["endpoint"].iloc[0]]
    chart.strip(
        "incidents", [(*_rows_of(one, times), f"{one.kind}, score {one.score:.1f}") for one in found], "#cf222e"
    )
    return chart.svg()


def _rows_of(incident: Incident, times: NDArray[np.int64]) -> tuple[int, int]:
    """The first and the last row of `incident` among the rows at `times` `(n,)` in µs."""
    last = times[-1] if incident.end_us is None else incident.end_us
    return int(np.searchsorted(times, incident.start_us)), int(np.searchsorted(times, last))


def _level_changes(values: NDArray[np.float64]) -> list[int]:
    """The rows at which a new level begins, looking back over all rows; none for a series too long for that."""
    if len(values) > MOST_ROWS_LOOKED_BACK:
        return []
    positive = np.where(values > 0, values, np.nan)
    skewed = np.nanmin(values, axis=0, initial=np.inf) > 0
    return change_points(np.where(skewed, np.log(positive), values))


def _measured(chart: Timeline, metric: str, column: pd.Series[float]) -> None:
    values = np.asarray(column, np.float64)
    known = values[np.isfinite(values)]
    logarithmic = bool(len(known)) and known.min() > 0 and known.max() > SPREAD * np.median(known)
    unit = UNITS.get(metric, "")
    said = ", ".join(word for word in (unit, "log" if logarithmic else "") if word)
    chart.curves(f"{metric} ({said})" if said else metric, {metric: values}, logarithmic)
