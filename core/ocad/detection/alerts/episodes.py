"""The life of alerts: what is announced when one fires, escalates, is acknowledged, or is resolved.

Every method runs within a transaction of the store, and writes what is to be told to the outbox in the same one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ocad.detection.alerts.notices import alert_json, dump, notification_json
from ocad.detection.alerts.outbox import Outbox
from ocad.detection.alerts.rules import SEVERITIES, merge, worse
from ocad.detection.alerts.store import Alert, AlertStore, Group, Seen, StoreError
from ocad.detection.incidents import Incident


class Episodes:
    """The alerts and groups in `store`."""

    def __init__(self, store: AlertStore) -> None:
        self.store = store
        self.outbox = Outbox(store)

    def incident_of(self, alert: Alert) -> Incident:
        """All incidents of `alert` as one."""
        bodies = [seen.body for seen in self.store.find(Seen, "alert_id = ? AND end_us IS NULL", alert.id)]
        parts = [Incident.from_json(json.loads(body)) for body in (alert.summary, *bodies) if body]
        return merge(parts, alert.id)

    def describe(self, alert: Alert) -> dict[str, Any]:
        """`alert` as JSON, as `notices.alert_json` has it."""
        return alert_json(alert, self.incident_of(alert))

    def members(self, group_id: str, *, unresolved: bool = False) -> list[Alert]:
        """The alerts of a group, the oldest first."""
        condition = "group_id = ? AND state != 'resolved'" if unresolved else "group_id = ?"
        return sorted(self.store.find(Alert, condition, group_id), key=lambda alert: (alert.opened_us, alert.id))

    def announce(
        self, group: Group, status: str, at_us: int, alerts: Sequence[Alert], *, partial: bool = False
    ) -> dict[str, Any]:
        """Queues a notification of `alerts` and returns its JSON; `group` is stored with it."""
        group.sequence += 1
        told = [self._relabelled(alert) for alert in alerts]
        # the key is made of what the data says, so that a replay into a lost store is recognised by the receivers
        body = notification_json(group, status, at_us, told, f"{group.id}-{group.sequence}-{status}")
        group.severity = max([group.severity, *(alert.severity for alert in alerts)], key=SEVERITIES.index)
        self.store.put(group)
        self.outbox.enqueue(body, at_us, partial=partial)
        return body

    def _relabelled(self, alert: Alert) -> dict[str, Any]:
        """The alert's JSON; `replaces` holds the labels it was announced with before, if they were others."""
        value = self.describe(alert)
        before, alert.labels = alert.labels, dump(value["labels"])
        self.store.put(alert)
        return value | {"replaces": json.loads(before) if before and before != alert.labels else None}

    def escalate(self, alert: Alert, at_us: int) -> None:
        """Tells of a severity that has risen, when the group's rises with it and nobody has acknowledged the alert."""
        self.store.put(alert)
        group = self.store.get(Group, alert.group_id)
        risen = worse(group.severity, alert.severity) != group.severity
        if group.state == "sent" and risen and alert.acknowledged_us is None:
            self.announce(group, "escalated", at_us, self.members(group.id, unresolved=True))

    def resolve(self, alert: Alert, at_us: int) -> None:
        """Ends `alert`; what is still open of it is closed where it was last seen, and its detector's word ignored since."""
        whole = self.incident_of(alert)
        for seen in self.store.find(Seen, "alert_id = ? AND end_us IS NULL", alert.id):
            self.store.put(Seen(seen.id, alert.id, "", seen.seen_us, seen.seen_us, None))
            alert.ended_us = max(alert.ended_us or 0, seen.seen_us)
        alert.state, alert.resolved_us, alert.due_us = "resolved", at_us, None
        alert.summary = dump(replace(whole, end_us=alert.ended_us).to_json())
        self.store.put(alert)
        self.settle(alert, at_us)

    def settle(self, alert: Alert, at_us: int) -> None:
        """Tells of the end of a resolved `alert`: with the last one of its group; to stateful sinks at once."""
        group = self.store.get(Group, alert.group_id)
        if group.state != "sent":
            return  # it is told when the group is
        if not self.members(group.id, unresolved=True):
            self.finish(group, at_us)
        elif self.outbox.has_stateful_sinks():
            self.announce(group, "resolved", at_us, [alert], partial=True)

    def finish(self, group: Group, at_us: int) -> None:
        """The resolve notice of a group, all of whose alerts are resolved."""
        group.state, group.due_us = "resolved", None
        self.announce(group, "resolved", at_us, self.members(group.id))

    def acknowledge(self, names: Iterable[str], by: str, note: str, at_us: int) -> list[Alert]:
        """Silences alerts until they are resolved; returns those that `names` mean, and tells of those that are new to it."""
        chosen = self.find(names)
        fresh = [alert for alert in chosen if alert.acknowledged_us is None]
        for alert in chosen:
            alert.acknowledged_us, alert.acknowledged_by, alert.note = (
                alert.acknowledged_us or at_us,
                by,
                note or alert.note,
            )
            self.store.put(alert)
        for group_id in dict.fromkeys(alert.group_id for alert in fresh):
            group = self.store.get(Group, group_id)
            if group.state == "sent":
                quiet = all(alert.acknowledged_us is not None for alert in self.members(group_id, unresolved=True))
                group.due_us = None if quiet else group.due_us
                self.announce(group, "acknowledged", at_us, [alert for alert in fresh if alert.group_id == group_id])
        return [self.store.get(Alert, alert.id) for alert in chosen]

    def resolve_by_hand(self, names: Iterable[str], by: str, note: str, at_us: int) -> list[Alert]:
        """Ends alerts now; a later incident at the same place is a new alert."""
        chosen = self.find(names)
        for alert in chosen:
            alert.note = "; ".join(said for said in (alert.note, note or f"resolved by {by}") if said)
            self.resolve(alert, at_us)
        return [self.store.get(Alert, alert.id) for alert in chosen]

    def find(self, names: Iterable[str]) -> list[Alert]:
        """The unresolved alerts with these ids, fingerprints or group ids, each once; `StoreError` for a name of none."""
        found: dict[str, Alert] = {}
        for name in names:
            alerts = self.store.find(
                Alert, "(id = ?1 OR fingerprint = ?1 OR group_id = ?1) AND state != 'resolved'", name
            )
            if not alerts:
                raise StoreError(f"no open alert or group `{name}`", "`ocad alerts list` shows them")
            found |= {alert.id: alert for alert in alerts}
        return list(found.values())
