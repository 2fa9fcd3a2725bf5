"""`AlertManager`: incidents in, few notifications out.

It has no clock of its own: time is that of the data, told by `observe` and `tick`, and deadlines are met in their order at
their own times, so that the same incidents give the same notifications however often it is ticked. A link whose clock is off
is read by its `skew_us`: its alerts keep its own times, and their deadlines are those times in the data's.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ocad.detection.alerts.courier import Courier
from ocad.detection.alerts.episodes import Episodes
from ocad.detection.alerts.notices import dump
from ocad.detection.alerts.rules import (
    SECOND,
    SEVERITIES,
    digest,
    family_of,
    group_key,
    merge,
    micros,
    next_escalation_us,
    severity_of,
    worse,
)
from ocad.detection.alerts.settings import AlertSettings
from ocad.detection.alerts.sinks import Sink
from ocad.detection.alerts.store import Alert, AlertStore, Group, Seen, StoreError
from ocad.detection.incidents import Incident

logger = logging.getLogger("ocad.alerts")

_PRUNE_US = 3600 * SECOND
_RETRY_US, _LONGEST_RETRY_US = SECOND, 60 * SECOND
_BATCH = 50
"""Incidents that are stored in one transaction; a day's backlog is not tried as a whole."""

Raised = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class _Stored:
    """What the store knows of an open incident."""

    gist: tuple[object, ...]
    at_us: int


class AlertManager:
    """Turns incidents into alerts, kept in `store`, and tells `sinks` of them.

    `raised` is called once for every alert that begins to fire, after it is stored, with its JSON form; `warn` with
    a line about a store or sink that fails. A store that cannot be written is no error here: incidents wait in memory
    (`waiting`), at most `memory_incidents` of them (`dropped` counts the rest), and are stored as soon as that works.
    """

    def __init__(
        self,
        config: AlertSettings,
        store: AlertStore,
        sinks: Sequence[Sink] = (),
        *,
        raised: Raised = lambda alert: None,
        warn: Callable[[str], None] = logger.warning,
        chance: random.Random | None = None,
    ) -> None:
        self.dropped = 0
        self._config = config
        self._store = store
        self._episodes = Episodes(store)
        self._raised = raised
        self._warn = warn
        self._now = 0
        self._stored: dict[str, _Stored] = {}
        self._waiting: dict[str, Incident] = {}
        self._skews: dict[str, int] = {}
        """By endpoint, where it is not 0."""
        self._fired: list[dict[str, Any]] = []
        self._retry_us: int | None = None
        self._failures = 0
        self._worked_us = self._pruned_us = 0
        self._update_us = max(micros(config.update_s), SECOND)
        self._version = -1
        self._due_us: int | None = None
        self._closed = False
        self._episodes.outbox.register([(sink.name, sink.stateful) for sink in sinks])
        self._look()
        chance = chance or random.Random()
        self._couriers = [Courier(store.folder, sink, config.delivery, warn, chance) for sink in sinks]
        for courier in self._couriers:
            courier.start()

    @property
    def waiting(self) -> int:
        """Incidents that could not be stored yet."""
        return len(self._waiting)

    @property
    def now_us(self) -> int:
        """The time of the data; that of the store before anything was told here, 0 where there is none."""
        return self._now or self._store.now_us()

    def queued(self) -> dict[str, int]:
        """How many notifications wait for each sink; empty while the store cannot be read."""
        try:
            return self._episodes.outbox.queued()
        except StoreError:
            return {}

    def observe(self, incident: Incident, skew_us: int = 0) -> None:
        """An incident that opened, went on or closed. Idempotent by its id, and closed is closed.

        `skew_us` is what to add to its times to get those of the data.
        """
        if skew_us:
            self._skews[incident.endpoint] = skew_us
        else:
            self._skews.pop(incident.endpoint, None)
        moment = incident.start_us if incident.end_us is None else incident.end_us
        self._now = max(self._now, moment + skew_us)
        if not self._is_news(incident):
            return
        if incident.id not in self._waiting and len(self._waiting) >= self._config.memory_incidents:
            lost = next(iter(self._waiting))
            del self._waiting[lost]
            self._stored.pop(lost, None)  # if it was its end, the alert is closed as one that is left behind
            self.dropped += 1
        self._waiting[incident.id] = incident
        self._work()

    def tick(self, now_us: int) -> None:
        """The data's time is `now_us` (µs since 1970 UTC); costs microseconds when nothing is due. It never goes back."""
        self._now = max(self._now, now_us)
        if self._changed_by_others():
            self._look()
            self._wake()
        if self._waiting or (
            self._due_us is not None and min(self._due_us, self._worked_us + self._update_us) <= self._now
        ):
            self._work()

    def replay(self, incidents: Iterable[Incident], told_us: Mapping[str, int] | None = None) -> None:
        """Observes finished incidents as if they happened now: each when it opens and when it closes, in order of time.

        `told_us` says by id when one was plain, where that is later than its start.
        """
        events: list[tuple[int, int, str, Incident]] = []
        for incident in incidents:
            plain = (told_us or {}).get(incident.id, incident.start_us)
            events.append((plain, 1, incident.id, replace(incident, end_us=None)))
            if incident.end_us is not None:
                events.append((incident.end_us, 2, incident.id, incident))
        for moment, _, _, incident in sorted(events, key=lambda event: event[:3]):
            self.tick(moment)
            self.observe(incident)

    def flush(self) -> None:
        """The data has ended: groups that wait for more alerts are told now."""
        try:
            self._fired = []
            with self._store.transaction():
                for group in self._store.find(Group, "state = 'waiting'"):
                    self._send(group.id, self._now)
        except StoreError as error:
            self._warn(f"{error.message}: {error.hint}")
            return
        for alert in self._fired:
            self._raised(alert)
        self._wake()

    def close(self) -> None:
        """Stores what waits, gives the sinks `drain_s` to take what is queued, and ends; the rest stays in the outbox."""
        if self._closed:
            return
        self._closed = True
        self._retry_us = None
        if self._waiting:
            self._work()
        if self._waiting or self.dropped:
            self._warn(f"{len(self._waiting) + self.dropped} incidents could not be stored in `{self._store.path}`")
        deadline = time.monotonic() + self._config.delivery.drain_s
        for courier in self._couriers:
            courier.stop(deadline)
        for courier in self._couriers:
            courier.join()
        self._store.close()

    def __enter__(self) -> AlertManager:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _is_news(self, incident: Incident) -> bool:
        known = self._stored.get(incident.id)
        if known is None or incident.end_us is not None or incident.id in self._waiting:
            return True
        return known.gist != self._gist(incident) or self._now - known.at_us >= self._update_us

    def _gist(self, incident: Incident) -> tuple[object, ...]:
        """What of an open incident is worth a write at once when it changes."""
        return incident.kind, incident.metrics, severity_of(incident, 0, self._config)

    def _changed_by_others(self) -> bool:
        try:
            return self._store.changes_by_others() != self._version
        except StoreError:  # told when there is something to write
            return False

    def _look(self) -> None:
        """When something is due next, and as of which version of the store; at once, when it cannot be read."""
        try:
            self._version = self._store.changes_by_others()
            due = self._store.next_due()
            self._due_us = due[0] if due else None
        except StoreError:
            self._due_us = self._now

    def _wake(self) -> None:
        for courier in self._couriers:
            courier.wake()

    def _work(self) -> None:
        """Stores what was observed and does what is due; what fails is tried again later, and costs little until then."""
        if self._retry_us is not None and self._now < self._retry_us:
            return
        waiting = sorted(self._waiting.values(), key=lambda incident: (incident.start_us, incident.id))
        try:
            for start in range(0, len(waiting) or 1, _BATCH):
                self._store_batch(waiting[start : start + _BATCH])
        except StoreError as error:
            if self._failures == 0:
                self._warn(f"{error.message}; incidents wait in memory: {error.hint}")
            self._retry_us = self._now + min(_RETRY_US << self._failures, _LONGEST_RETRY_US)
            self._failures = min(self._failures + 1, 10)
            return
        self._retry_us, self._failures = None, 0
        self._worked_us = self._now
        self._look()
        self._wake()

    def _store_batch(self, batch: Sequence[Incident]) -> None:
        """One transaction: what is due before each incident, the incident, and what is due by now."""
        self._fired = []
        with self._store.transaction():
            for incident in batch:
                self._advance(min(incident.start_us + self._skew_us(incident), self._now))
                self._apply(incident)
            self._advance(self._now)
            self._prune()
            self._store.set_now(self._now)
        self._remember(batch)
        for alert in self._fired:
            self._raised(alert)

    def _remember(self, batch: Sequence[Incident]) -> None:
        for incident in batch:
            del self._waiting[incident.id]
            if incident.end_us is None:
                self._stored[incident.id] = _Stored(self._gist(incident), self._now)
            else:
                self._stored.pop(incident.id, None)

    def _prune(self) -> None:
        if self._now - self._pruned_us >= _PRUNE_US:
            self._store.prune(self._now - micros(self._config.retention_days * 86400))
            self._pruned_us = self._now

    def _apply(self, incident: Incident) -> None:
        """Brings an incident into the alert it belongs to."""
        before = self._store.find(Seen, "id = ?", incident.id)
        if before and before[0].end_us is not None:
            return
        alert = self._store.get(Alert, before[0].alert_id) if before else None
        if alert is None or alert.state == "resolved":
            if (told := self._told_before(incident)) is not None:
                self._store.put(Seen(incident.id, told.id, "", incident.start_us, incident.end_us, None))
                return
            alert = self._alert_for(incident)
        alert.skew_us = self._skew_us(incident)
        self._note(incident, alert)
        self._supersede(incident, alert)
        alert.opened_us = min(alert.opened_us, incident.start_us)
        alert.ended_us = max(alert.ended_us or 0, incident.end_us) if incident.end_us is not None else alert.ended_us
        going_on = self._store.find(Seen, "alert_id = ? AND end_us IS NULL", alert.id)
        alert.state = "open" if going_on else "ending"
        whole = self._episodes.incident_of(alert)
        until = self._now - alert.skew_us if going_on else alert.ended_us or self._now - alert.skew_us
        alert.severity = worse(alert.severity, severity_of(whole, until - alert.opened_us, self._config))
        alert.due_us = self._due_of(alert)
        self._episodes.escalate(alert, self._now)

    def _told_before(self, incident: Incident) -> Alert | None:
        """The resolved alert that has told of these rows already, as one of an overlapping part of the same data has."""
        until = self._now - self._skew_us(incident) if incident.end_us is None else incident.end_us
        hold = micros(self._config.hold_down_s)
        fingerprint = digest(incident.endpoint, family_of(incident.metrics, self._config))
        where = "fingerprint = ? AND state = 'resolved' AND opened_us <= ? AND ended_us >= ? AND ended_us + ? >= ?"
        found = self._store.find(Alert, where, fingerprint, until, incident.start_us, hold, until)
        return found[0] if found else None

    def _supersede(self, incident: Incident, alert: Alert) -> None:
        """Closes what a detector that is gone left open, where the same one goes on under another start."""
        for seen in self._store.find(Seen, "alert_id = ? AND end_us IS NULL AND id != ?", alert.id, incident.id):
            if seen.id in self._stored or seen.id in self._waiting:
                continue
            other = Incident.from_json(json.loads(seen.body))
            same = other.detectors.keys() & incident.detectors.keys() or other.kind == incident.kind == "silent"
            if same and other.endpoint == incident.endpoint:
                self._note(replace(other, end_us=max(other.start_us, incident.start_us)), alert)

    def _note(self, incident: Incident, alert: Alert) -> None:
        """Keeps the incident: its body while it is open, then as a part of the alert's summary."""
        body = dump(incident.to_json()) if incident.end_us is None else ""
        if incident.end_us is not None:
            parts = [Incident.from_json(json.loads(alert.summary))] if alert.summary else []
            alert.summary = dump(merge([*parts, incident], alert.id).to_json())
        due = self._now + micros(self._config.stale_after_s) if incident.end_us is None else None
        own = self._now - alert.skew_us
        seen = max(incident.start_us, own) if incident.end_us is None else incident.end_us
        self._store.put(alert)
        self._store.put(Seen(incident.id, alert.id, body, seen, incident.end_us, due))

    def _due_of(self, alert: Alert) -> int | None:
        """When an alert that is open escalates next, and one that is ending is over."""
        if alert.state == "ending" and alert.ended_us is not None:
            return alert.ended_us + alert.skew_us + micros(self._config.hold_down_s)
        whole, opened = self._episodes.incident_of(alert), alert.opened_us + alert.skew_us
        return next_escalation_us(whole, opened, alert.severity, self._now, self._config)

    def _skew_us(self, incident: Incident) -> int:
        return self._skews.get(incident.endpoint, 0)

    def _alert_for(self, incident: Incident) -> Alert:
        """The unresolved alert whose hold-down the incident touches, else a new one in a group that waits, else in a new one."""
        family = family_of(incident.metrics, self._config)
        fingerprint = digest(incident.endpoint, family)
        hold = micros(self._config.hold_down_s)
        until = self._now - self._skew_us(incident) if incident.end_us is None else incident.end_us
        for alert in self._store.find(Alert, "fingerprint = ? AND state != 'resolved'", fingerprint):
            ended = alert.ended_us if alert.state == "ending" and alert.ended_us is not None else incident.start_us
            if incident.start_us <= ended + hold and until >= alert.opened_us - hold:
                alert.incidents += 1
                return alert
        identity = digest(fingerprint, incident.id)
        group = self._group_for(group_key(incident, family, self._config), identity)
        severity = SEVERITIES[0]
        opened = incident.start_us
        return Alert(
            identity, fingerprint, group.id, family, "open", severity, opened, None, None, None, None, "", "", 1, "", ""
        )

    def _group_for(self, key: str, identity: str) -> Group:
        due = self._now + micros(self._config.group_wait_s)
        # one that waits for longer is of another time, as of a row from the future before a restart
        for group in self._store.find(Group, "key = ? AND state = 'waiting' AND due_us <= ?", key, due):
            return group
        group = Group(digest(key, identity), key, "waiting", SEVERITIES[0], 0, 0, due)
        self._store.put(group)
        return group

    def _advance(self, until_us: int) -> None:
        """Meets the deadlines up to `until_us`, each at its own time."""
        meet: Mapping[str, Callable[[str, int], None]] = {
            "incidents": self._leave_behind,
            "alerts": self._escalate_or_resolve,
            "groups": self._send,
        }
        while (due := self._store.next_due()) is not None and due[0] <= until_us:
            moment, kind, identity = due
            meet[kind](identity, moment)

    def _leave_behind(self, identity: str, at_us: int) -> None:
        """Closes an incident whose detector is gone; one that was opened here is open until its detector says otherwise."""
        seen, stale = self._store.get(Seen, identity), micros(self._config.stale_after_s)
        if identity in self._stored or identity in self._waiting:
            at_us += (self._now - at_us) // stale * stale  # however long nothing was told, once is enough
            seen.seen_us = at_us - self._store.get(Alert, seen.alert_id).skew_us
            seen.due_us = at_us + stale
            self._store.put(seen)
        else:
            incident = Incident.from_json(json.loads(seen.body))
            self._skews.setdefault(incident.endpoint, self._store.get(Alert, seen.alert_id).skew_us)
            self._apply(replace(incident, end_us=seen.seen_us))

    def _escalate_or_resolve(self, identity: str, at_us: int) -> None:
        alert = self._store.get(Alert, identity)
        if alert.state == "ending":
            self._episodes.resolve(alert, at_us)
            return
        whole, opened = self._episodes.incident_of(alert), alert.opened_us + alert.skew_us
        alert.severity = worse(alert.severity, severity_of(whole, at_us - opened, self._config))
        alert.due_us = next_escalation_us(whole, opened, alert.severity, at_us, self._config)
        self._episodes.escalate(alert, at_us)

    def _send(self, identity: str, at_us: int) -> None:
        """The first notification of a group, or its repetition."""
        group = self._store.get(Group, identity)
        alerts = self._episodes.members(identity)
        loud = [alert for alert in alerts if alert.state != "resolved" and alert.acknowledged_us is None]
        repeat = micros(self._config.repeat_s)
        if group.state == "waiting":
            group.state = "sent"
            group.due_us = at_us + repeat if repeat and loud else None
            body = self._episodes.announce(group, "firing", at_us, alerts)
            self._fired += body["alerts"]
            if all(alert.state == "resolved" for alert in alerts):
                self._episodes.finish(group, at_us)
        elif loud:
            at_us += (self._now - at_us) // repeat * repeat  # after a silence of the data the last one is enough
            group.repeats += 1
            group.due_us = at_us + repeat
            self._episodes.announce(group, "firing", at_us, loud)
        else:
            group.due_us = None
            self._store.put(group)
