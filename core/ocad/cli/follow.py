"""`ocad detect --follow`: rows as they arrive, with alerts, a state file and metrics beside them."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from ocad.catalogue import stream_source
from ocad.cli.output import wants
from ocad.cli.telling import Teller, standard_tellers
from ocad.detection.alerts.rules import rated
from ocad.detection.exposition import ADDRESS, MetricsServer, exposition
from ocad.detection.following import Follower, StateFile, follow
from ocad.detection.lines import WAIT_S, Stop, lines_until_stopped
from ocad.detection.remote import ServerError
from ocad.detection.served import Patient
from ocad.detection.wording import incident_line
from ocad.errors import printable_json
from ocad.monitoring import open_watch
from ocad.timeseries.rows import RowReader

if TYPE_CHECKING:
    from ocad.cli.detect import Rating
    from ocad.cli.sensitivity import AskedRule
    from ocad.detection.alerts.manager import AlertManager
    from ocad.detection.incidents import Incident, PointResult
    from ocad.protocols import Predictor
    from ocad.session import Session
    from ocad_registry import Version

PUBLISH_S = 1.0
"""Seconds between two pages of metrics."""
_MOST_ALIKE = 20
"""Log lines of one wording that are told."""


@dataclass(frozen=True, slots=True)
class Following:
    """What was asked on the command line."""

    data: str
    """`-`, perhaps with a mapping."""
    server: str | None
    state: Path | None
    max_ahead_s: float
    metrics_port: int | None
    rule: AskedRule


@dataclass(slots=True)
class _Live:
    """One run: what came in, and whom it is told to."""

    manager: AlertManager | None
    rating: Rating
    out: Teller
    err: Teller
    stop: Stop = field(default_factory=Stop)
    server: MetricsServer | None = None
    follower: Follower | None = None
    """None while the detector is opened: a server that is away then is an error."""
    _published: float = -PUBLISH_S
    _away: int = 0
    """Failed attempts at the detector's server since it answered."""

    def handle(self, moment: int, result: PointResult) -> None:
        """Tells what one row, or a silence, meant."""
        assert self.follower is not None
        incident = result.incident
        if self.manager is not None:
            self.manager.tick(moment)
            if incident is not None:
                self.manager.observe(incident, self.follower.clock.skew_us(incident.endpoint))
        if incident is not None:
            self._tell(incident, moment)

    def pass_time(self, beyond_s: float = 0.0) -> None:
        """Alerts that are due are sent, and the metrics renewed; `beyond_s` since the stream was last listened to."""
        assert self.follower is not None
        if self.manager is not None:
            if self.follower.clock.now_us is None:
                self.follower.clock.resume(self.manager.now_us)
            self.manager.tick((self.follower.clock.now_us or 0) + round(beyond_s * 1e6))
        if self.server is not None and time.monotonic() - self._published >= PUBLISH_S:
            self._published = time.monotonic()
            self.server.page = exposition(self.follower, self.manager.queued() if self.manager else {})

    def patient(self, predictor: Predictor) -> Predictor:
        """`predictor`, asked again while its server is away; nothing is lost meanwhile, as rows wait in the pipe."""
        return Patient(predictor, self._failed, self._answered)

    def _failed(self, error: ServerError, seconds: float) -> None:
        if self.follower is None or self.stop.asked:
            raise error
        if self._away == 0:
            self.err.tell(f"{error.message}; rows wait until it does")
        self._away += 1
        begin = time.monotonic()
        while (waited := time.monotonic() - begin) < seconds and not self.stop.asked:
            time.sleep(min(WAIT_S, seconds))
            self.pass_time(waited)

    def _answered(self) -> None:
        if self._away:
            self.err.tell(f"the server answers again after {self._away} failed attempts")
        self._away = 0

    def _tell(self, incident: Incident, moment: int) -> None:
        assert self.follower is not None
        news = self.follower.news(incident)
        if news:
            incident = rated(incident, moment, self.rating.settings)
        if news and wants("--json"):
            told = {"news": news, **incident.to_json()}
            self.out.tell(printable_json(json.dumps(told, ensure_ascii=False)))
        elif news:
            self.out.tell(f"{news}: {incident_line(incident, self.rating.zone)}")


def follow_rows(
    version: Version, session: Session, asked: Following, manager: AlertManager | None, rating: Rating
) -> None:
    """Tells what the rows on standard input mean until they end; raises `click.exceptions.Exit` when nothing came of it."""
    out, err = standard_tellers()
    live = _Live(manager, rating, out, err)
    try:
        with _logged(err), live.stop.listening():
            well = _run(live, version, session, asked)
    finally:
        if live.server is not None:
            live.server.close()
        for teller in (out, err):
            teller.close()
    if not well:
        raise click.exceptions.Exit(1)


def _run(live: _Live, version: Version, session: Session, asked: Following) -> bool:
    """Whether a row was used, or none was refused, and the state is saved."""
    watch = open_watch(version, session, asked.server, live.patient)
    watch.use_rule(asked.rule.applied(watch.rule))
    reader = RowReader.of(watch.metrics, stream_source(asked.data))
    follower = Follower(watch, reader, asked.max_ahead_s)
    owner = {"ref": version.ref, "metadata_sha256": version.metadata_sha256}
    kept = StateFile(asked.state, owner, follower, live.err.tell) if asked.state else None
    if kept and kept.restore():
        live.err.tell(f"goes on from the state in `{asked.state}`")
    if asked.metrics_port is not None:
        live.server = MetricsServer(asked.metrics_port)
        live.err.tell(f"metrics at http://{ADDRESS}:{live.server.port}/metrics")
    live.follower = follower
    saved = True
    try:
        _listen(live, follower, kept)
    finally:
        saved = kept.save() if kept else True
    if live.manager is not None:
        live.manager.flush()
    refused = sum(follower.refused.values())
    live.err.tell(f"{follower.rows} rows, {refused} refused" if refused else f"{follower.rows} rows")
    if follower.forgotten:
        live.err.tell(f"{follower.forgotten} endpoints were forgotten")
    if live.out.dropped:
        live.err.tell(f"{live.out.dropped} lines were left out: nobody read them in time")
    return saved and (follower.rows > 0 or not refused)


def _listen(live: _Live, follower: Follower, kept: StateFile | None) -> None:
    def lines() -> Iterator[str | float]:
        for line in lines_until_stopped(sys.stdin.fileno(), live.stop):
            yield line
            live.pass_time()
            if kept:
                kept.row_taken()
            if live.out.gone and live.manager is None:
                return  # nobody is left to be told

    try:
        for moment, result in follow(lines(), follower, live.err.tell):
            live.handle(moment, result)
    except ServerError:
        if not live.stop.asked:
            raise


@contextmanager
def _logged(err: Teller) -> Iterator[None]:
    """What is logged within the block goes to `err`, few lines of one wording."""

    class Handler(logging.Handler):
        seen: ClassVar[Counter[str]] = Counter()

        def emit(self, record: logging.LogRecord) -> None:
            self.seen[record.msg] += 1
            if self.seen[record.msg] <= _MOST_ALIKE:
                more = "; further ones are not told" if self.seen[record.msg] == _MOST_ALIKE else ""
                err.tell(record.getMessage() + more)

    logger, handler = logging.getLogger("ocad"), Handler(logging.WARNING)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
