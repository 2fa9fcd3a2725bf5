"""`ocad detect`: incidents in a file, or in rows as they arrive, by a registered version."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ocad.cli import completing
from ocad.cli.options import open_session, registry_option
from ocad.cli.output import emit, note, output_options, table, wants
from ocad.errors import UsageError

if TYPE_CHECKING:
    from ocad.detection.alerts.manager import AlertManager
    from ocad.detection.following import Follower
    from ocad.detection.incidents import Incident
    from ocad.monitoring import Findings
    from ocad.session import Session
    from ocad_registry import Version


@click.command()
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
    registry: str | None,
) -> None:
    """Find incidents in the data with the version REFERENCE; a higher score is more anomalous.

    With `--follow` each row is one JSON line, as `ocad probe … --out -` prints them.
    """
    if live != (data == "-"):
        raise UsageError("`--follow` and `--data -` belong together", "give both, or neither")
    if live and (report or output):
        raise UsageError("`--follow` writes no `--report` and no `--output`", "run `ocad detect` over a file for those")
    if state and not live:
        raise UsageError("`--state` needs `--follow`", "a file is detected as a whole, from a fresh state")
    if output and output.suffix != ".parquet":
        raise UsageError(f"`--output` names `{output.name}`", "scores are a parquet file: end its name in `.parquet`")
    session = open_session(registry)
    version = session.registry.resolve(reference)
    with _manager(session, alerts, alert_config) as manager:
        if live:
            _follow(version, session, server, state, manager)
        else:
            _detect_file(version, session, data, server, output, report, manager)


def _detect_file(
    version: Version,
    session: Session,
    data: str,
    server: str | None,
    output: Path | None,
    report: Path | None,
    manager: AlertManager | None,
) -> None:
    from ocad.cli.predict import write_parquet
    from ocad.monitoring import detect_data

    findings = detect_data(version, session, data, server)
    scores = output or _default_output(version)
    write_parquet(findings.scores(), scores)
    if report:
        from ocad.report import write_report

        write_report(findings, version, report)
    if manager is not None:
        manager.replay(findings.detection.incidents)
        if len(findings.frame):
            manager.tick(int(findings.frame["timestamp"].max().value // 1000))
    emit(findings.to_json(str(scores)), lambda: _text(findings, scores, report))


def _follow(
    version: Version, session: Session, server: str | None, state: Path | None, manager: AlertManager | None
) -> None:
    from ocad.detection.following import Follower, StateFile, follow, lines_until_stopped
    from ocad.monitoring import open_watch

    follower = Follower(open_watch(version, session, server))
    owner = {"ref": version.ref, "metadata_sha256": version.metadata_sha256}
    kept = StateFile(state, owner, follower, note) if state else None
    if kept and kept.restore():
        note(f"goes on from the state in `{state}`")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # what is no text is one refused row, not the end
    try:
        for moment, result in follow(lines_until_stopped(sys.stdin), follower, note):
            if manager is not None:
                manager.tick(moment)
                if result.incident is not None:
                    manager.observe(result.incident)
            if result.incident is not None:
                _tell(result.incident, follower)
            if kept:
                kept.row_taken()
    finally:
        saved = kept.save() if kept else True
    refused = sum(follower.refused.values())
    note(f"{follower.rows} rows, {refused} refused" if refused else f"{follower.rows} rows")
    if not saved or (refused and not follower.rows):
        raise click.exceptions.Exit(1)


def _tell(incident: Incident, follower: Follower) -> None:
    """Prints what is new of `incident`, if anything is."""
    import json

    from ocad.monitoring import incident_line

    news = follower.news(incident)
    if news and wants("--json"):
        click.echo(json.dumps({"news": news, **incident.to_json()}, ensure_ascii=False))
    elif news:
        click.echo(f"{news}: {incident_line(incident)}")


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


def _text(findings: Findings, scores: Path, report: Path | None) -> str:
    counts, incidents = findings.detection.counts, findings.detection.incidents
    if findings.watch is None:
        rows = findings.scores().nlargest(10, "score").to_string(index=False)
        told = f"{counts['rows']} rows scored by {findings.ref}, whose scores are not calibrated: no incidents"
        return f"{rows}\n{told}; all in {scores}"
    columns = ("start", "endpoint", "kind", "rows", "metrics", "score")
    shown = [
        (one.to_json()["start"], one.endpoint or "-", one.kind, one.rows, ", ".join(one.metrics), one.score)
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
