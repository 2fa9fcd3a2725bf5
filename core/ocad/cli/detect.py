"""`ocad detect`: incidents in a file, or in rows as they arrive, by a registered version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ocad.cli import completing
from ocad.cli.mapping import mapping_options
from ocad.cli.options import open_session, registry_option, zone_named
from ocad.cli.output import emit, output_options, table
from ocad.cli.sensitivity import AskedRule, sensitivity_options
from ocad.cli.signatures import Signatures, SignedCommand, signature_options
from ocad.errors import UsageError

if TYPE_CHECKING:
    from ocad.detection.alerts import AlertSettings
    from ocad.detection.alerts.manager import AlertManager
    from ocad.monitoring import Findings
    from ocad.session import Session
    from ocad_registry import Version


@dataclass(frozen=True, slots=True)
class Rating:
    """How incidents are told to people: by which severities, and in which time zone."""

    settings: AlertSettings
    zone: tzinfo


@click.command(cls=SignedCommand)
@click.argument("reference", shell_complete=completing.references)
@click.option(
    "--data",
    required=True,
    shell_complete=completing.data,
    help="A name of the catalogue, a parquet or CSV file, or `-` with `--follow`.",
)
@click.option("--follow", "live", is_flag=True, help="Read JSON lines from stdin and tell incidents as they happen.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With `--follow`: go on from there, and keep it there.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Write a report to this HTML file.")
@click.option("--output", type=click.Path(path_type=Path), help="Write rows and scores there (default: runs/detect/…).")
@click.option("--server", metavar="URL", help="Ask the members' graphs there instead of in this process.")
@click.option("--alerts", type=click.Path(path_type=Path), metavar="FOLDER", help="Raise alerts, kept in this folder.")
@click.option(
    "--alert-config", type=click.Path(path_type=Path), help="Their sinks (default: configs/detection/alerts.yaml)."
)
@mapping_options(streams=True)
@sensitivity_options
@click.option(
    "--max-ahead",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With `--follow`: how far a row may be ahead of this machine's clock, or of the rows around it.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="With `--follow`: answer Prometheus at 127.0.0.1:PORT/metrics; 0 for a free one.",
)
@signature_options
@registry_option
@output_options
def detect(
    reference: str,
    *,
    data: str,
    live: bool,
    state: Path | None,
    report: Path | None,
    output: Path | None,
    server: str | None,
    alerts: Path | None,
    alert_config: Path | None,
    time_zone: str | None,
    max_ahead: float,
    metrics_port: int | None,
    asked_rule: AskedRule,
    signatures: Signatures,
    registry: str | None,
) -> None:
    """Find incidents in the data with the version REFERENCE; a higher score is more anomalous.

    With `--follow` each row is one JSON line, as `ocad probe … --out -` prints them.
    """
    if live != (data.partition("?")[0] == "-"):
        raise UsageError("`--follow` and `--data -` belong together", "give both, or neither")
    if live and (report or output):
        raise UsageError("`--follow` writes no `--report` and no `--output`", "run `ocad detect` over a file for those")
    if state and not live:
        raise UsageError("`--state` needs `--follow`", "a file is detected as a whole, from a fresh state")
    if output and output.suffix != ".parquet":
        raise UsageError(f"`--output` names `{output.name}`", "scores are a parquet file: end its name in `.parquet`")
    if metrics_port is not None and not live:
        raise UsageError("`--metrics-port` needs `--follow`", "a file is detected and done")
    session = open_session(registry, signatures)
    version = session.registry.resolve(reference)
    from ocad.detection.alerts import project_settings

    rating = Rating(project_settings(alert_config), zone_named(time_zone or "UTC"))
    with _manager(session, alerts, alert_config) as manager:
        if live:
            from ocad.cli.follow import Following, follow_rows

            asked = Following(data, server, state, max_ahead, metrics_port, asked_rule)
            follow_rows(version, session, asked, manager, rating)
        else:
            _detect_file(version, session, data, server, output, report, manager, rating, asked_rule)


def _detect_file(
    version: Version,
    session: Session,
    data: str,
    server: str | None,
    output: Path | None,
    report: Path | None,
    manager: AlertManager | None,
    rating: Rating,
    asked_rule: AskedRule,
) -> None:
    from ocad.cli.predict import write_parquet
    from ocad.monitoring import detect_data

    findings = detect_data(version, session, data, server, rating.settings, asked_rule.applied)
    scores = output or _default_output(version)
    write_parquet(findings.scores(), scores)
    if report:
        from ocad.report import write_report

        write_report(findings, version, report, rating.zone)
    if manager is not None:
        for moment, incident in findings.updates():
            manager.tick(moment)
            if incident is not None:
                manager.observe(incident)
        manager.flush()
    emit(findings.to_json(str(scores)), lambda: _text(findings, scores, report, rating.zone))


@contextmanager
def _manager(session: Session, folder: Path | None, config: Path | None) -> Iterator[AlertManager | None]:
    if folder is None and config is None:
        yield None
        return
    from ocad.detection.alerts import open_alerts

    manager = open_alerts(folder, config, raised=lambda alert: session.host.fire("ocad_alert_raised", alert=alert))
    try:
        yield manager
    finally:
        manager.close()


def _default_output(version: Version) -> Path:
    import secrets
    from datetime import UTC, datetime

    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return Path("runs", "detect", f"{version.manifest.name}-{stamp}-{secrets.token_hex(3)}", "scores.parquet")


def _text(findings: Findings, scores: Path, report: Path | None, zone: tzinfo) -> str:
    from ocad.detection.wording import far_from_normal, local_time

    counts, incidents = findings.detection.counts, findings.detection.incidents
    if findings.watch is None:
        rows = findings.scores().nlargest(10, "score").to_string(index=False)
        told = f"{counts['rows']} rows scored by {findings.ref}, whose scores are not calibrated: no incidents"
        return f"{rows}\n{told}; all in {scores}"
    columns = ("start", "endpoint", "kind", "severity", "rows", "score", "how far from normal")
    shown = [
        (
            *(local_time(one.start_us, zone), one.endpoint or "-", one.kind, one.severity, one.rows, one.score),
            far_from_normal(one, zone),
        )
        for one in incidents[:20]
    ]
    lines = [table(columns, shown)] if shown else []
    if len(incidents) > len(shown):
        lines.append(f"… and {len(incidents) - len(shown)} more")
    lines.append(
        f"{counts['rows']} rows of {counts['endpoints']} endpoints, {counts['incidents']} incidents by {findings.ref}"
    )
    if counts["unseen"]:
        lines.append(f"{counts['unseen']} endpoints were never seen in training: judged by what all say together")
    if measured := findings.metrics():
        lines.append(", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in measured.items()))
    latency = findings.latency_us
    lines.append(f"one arriving row: p50 {latency['p50']:.0f} µs, p99 {latency['p99']:.0f} µs; scores in {scores}")
    return "\n".join([*lines, f"report in {report}"] if report else lines)
