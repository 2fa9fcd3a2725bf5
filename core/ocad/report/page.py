"""The page: summary, goals, timelines, detectors side by side, weights, incidents, data."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, tzinfo
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ocad.detection.events import alerts_of, incidents_of
from ocad.detection.pelt import change_points
from ocad.detection.wording import incident_line, local_time
from ocad.errors import DataError
from ocad.report import tables
from ocad.report.charts import Timeline
from ocad.report.settings import report_settings
from ocad.units import UNITS

if TYPE_CHECKING:
    import pandas as pd

    from ocad.detection.incidents import Incident
    from ocad.monitoring import Findings
    from ocad_registry import Version

MOST_TIMELINES = 24
"""Endpoints that are drawn: those with the most rows in alarm or incident."""
MOST_ROWS_LOOKED_BACK = 10_000
MOST_LEVELS = 3.0
"""Scores are drawn up to this many times the alarm level."""
HELP = "Turn the wheel or drag to zoom, click twice to see all; the dashed line is the alarm level."
LEARNT = "Blue rows were fitted on, green ones calibrated on: what is found there is no test."
SPREAD = 50.0
"""A metric whose largest value is more than this many times its median is drawn on a logarithmic scale."""
STYLE = """
:root { color-scheme: light; } body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1120px; color: #1f2328; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #d1d9e0; }
h3 { font-size: 1rem; margin-bottom: .2rem; } table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid #eaeef2; vertical-align: top; }
td { font-variant-numeric: tabular-nums; } svg { width: 100%; } svg path { stroke-width: .8; }
svg text { font-size: 10px; fill: #57606a; } svg text.small { font-size: 9px; } svg .empty { fill: #f6f8fa; }
svg.plot { overflow: hidden; cursor: crosshair; touch-action: pan-y; } svg.plot * { vector-effect: non-scaling-stroke; }
.ground { fill: transparent; } .fitted { fill: #ddf4ff; } .calibrated { fill: #dafbe1; } .block { stroke-width: 3px; }
.during { fill: #cf222e; stroke: #cf222e; stroke-width: 3px; opacity: .13; }
.level { stroke: #cf222e; stroke-width: 1px; stroke-dasharray: 5 4; } .pointer { stroke: #57606a; stroke-width: 1px; }
figure { margin: 0; } output { display: block; min-height: 1.5em; font-size: 12px; font-variant-numeric: tabular-nums; }
.muted { color: #57606a; }
.met { color: #1a7f37; font-weight: 600; } .missed { color: #cf222e; font-weight: 600; }
"""


def write_report(findings: Findings, version: Version, path: Path, zone: tzinfo = UTC) -> None:
    """Writes what `version` found to `path`, whole or not at all; raises `DataError` when it cannot be written."""
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(render(findings, version, zone), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f"cannot write `{path}` ({error.strerror})", "choose another `--report`") from None


def render(findings: Findings, version: Version, zone: tzinfo = UTC) -> str:
    """The whole page with times in `zone`; it asks nothing of any network, and runs no script but its own."""
    sections = [("Summary", _summary(findings, zone)), ("Goals", tables.goals(findings, report_settings()))]
    watch = findings.watch
    if watch is not None:
        sections.append(("Links", tables.links(findings)))
        if findings.events is not None:
            sections.append(("Rules and trained detectors side by side", tables.side_by_side(findings, watch)))
        sections.append(("Timelines", _timelines(findings, version, zone)))
        sections.append(("Incidents", tables.incidents(findings.detection.incidents, zone)))
        sections.append(("Weights", tables.weights(watch)))
    sections.append(("Data", tables.quality(findings)))
    body = "".join(f"<section><h2>{escape(title)}</h2>{content}</section>" for title, content in sections)
    made = f"{version.ref} · metadata sha256 {version.metadata_sha256[:12]} · plugin {version.manifest.plugin.name}"
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>Incidents found by {escape(version.ref)}</title>"
        f"<style>{STYLE}</style></head><body><h1>Incidents found by {escape(version.ref)}</h1>"
        f'<p class="muted">{escape(made)}</p>{body}<script>{script}</script></body></html>\n'
    )


def _summary(findings: Findings, zone: tzinfo) -> str:
    counts, times = findings.detection.counts, findings.frame["timestamp"]
    begin, end = (local_time(int(moment.value // 1000), zone) for moment in (times.min(), times.max()))
    rows, endpoints, found = (_many(counts[f"{word}s"], word) for word in ("row", "endpoint", "incident"))
    text = f"{rows} of {endpoints} from {begin} to {end}: {found}"
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


def _timelines(findings: Findings, version: Version, zone: tzinfo) -> str:
    order = np.asarray(findings.detection.alarms, dtype=np.int64)
    if "label" in findings.frame:
        order = order + findings.frame["label"].to_numpy()
    grouped = findings.frame.groupby("endpoint", sort=True).indices
    groups = {name: np.asarray(places, np.int64) for name, places in grouped.items()}
    shown = sorted(groups, key=lambda name: -int(order[groups[name]].sum()))[:MOST_TIMELINES]
    shares = _learnt_shares(findings, version)
    charts = [
        f"<h3>{escape(str(name)) or 'the link'}</h3>{_timeline(findings, groups[name], shares, zone)}" for name in shown
    ]
    left = len(groups) - len(shown)
    said = f'<p class="muted">{HELP}{" " + LEARNT if shares else ""}</p>'
    return said + "".join(charts) + (f'<p class="muted">{left} quieter endpoints are not drawn.</p>' if left else "")


def _learnt_shares(findings: Findings, version: Version) -> tuple[float, float] | None:
    """Up to which share of each endpoint's rows the version was fitted, and calibrated; None for data it was not trained on."""
    trained = version.manifest.data
    if trained is None or (trained.name, trained.rows) != (findings.data, len(findings.frame)):
        return None
    fitted, calibrated = (trained.splits.get(part, 0) for part in ("train", "validation"))
    return (fitted / trained.rows, (fitted + calibrated) / trained.rows) if fitted and calibrated else None


def _timeline(findings: Findings, places: NDArray[np.int64], shares: tuple[float, float] | None, zone: tzinfo) -> str:
    assert findings.watch is not None
    watch, frame = findings.watch, findings.frame.iloc[places]
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64)
    chart = Timeline(times / 1e6, zone)
    if shares is not None:
        fitted, calibrated = (times[min(len(times) - 1, int(len(times) * share))] / 1e6 for share in shares)
        chart.shade(times[0] / 1e6, fitted, "fitted on these rows", "fitted")
        chart.shade(fitted, calibrated, "calibrated on these rows", "calibrated")
    for metric in watch.metrics:
        _measured(chart, metric, frame[metric])
    members = {name.partition("@")[0]: scores[places] for name, scores in findings.detection.members.items()}
    if len(members) > 1:
        members = {"together": watch.rule.combine(np.column_stack(list(members.values()))), **members}
    ceiling = MOST_LEVELS * watch.rule.on
    shown = {name: np.minimum(scores, ceiling) for name, scores in members.items()}
    chart.curves(f"score, up to {ceiling:.3g}", shown, level=watch.rule.on)
    if lost := alerts_of(frame[list(watch.metrics)].isna().any(axis=1)):
        chart.strip("lost or missing", [(one.start, one.end, f"{one.rows} rows") for one in lost], "#8250df")
    if "label" in frame:
        truth = incidents_of(frame["label"].to_numpy())
        chart.strip("truth", [(one.start, one.end, f"{one.rows} rows") for one in truth], "#8c959f")
    changes = _level_changes(frame[list(watch.metrics)].to_numpy(np.float64))
    if changes:
        chart.strip("new level (PELT)", [(row, row, "a new level begins") for row in changes], "#0969da")
    found = [one for one in findings.detection.incidents if one.endpoint == frame["endpoint"].iloc[0]]
    chart.strip(
        "incidents", [(*_rows_of(one, times), incident_line(one, zone)) for one in found], "#cf222e", through=True
    )
    return chart.figure()


def _rows_of(incident: Incident, times: NDArray[np.int64]) -> tuple[int, int]:
    """The first and the last row of `incident` among the rows at `times` `(n,)` in µs."""
    last = times[-1] if incident.end_us is None else incident.end_us
    first, end = np.searchsorted(times, [incident.start_us, last])
    return min(int(first), len(times) - 1), min(int(end), len(times) - 1)


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
