"""The outbox: notifications written in the transaction that changed the state, and what became of them at each sink.

A sink's queue is in order of `seq`, strictly so within a group. A delivery is `waiting`, then `delivered`, or `refused` until
the next start.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ocad.detection.alerts.notices import Notice, dump
from ocad.detection.alerts.store import AlertStore


class Outbox:
    """The notifications in `store` and their way to the sinks."""

    def __init__(self, store: AlertStore) -> None:
        self._store = store

    def register(self, sinks: Sequence[tuple[str, bool]]) -> None:
        """From now on `sinks`, as name and whether each alert's end matters to it, are told; what waits stays."""
        with self._store.transaction():
            self._store.execute("DELETE FROM sinks")
            for name, stateful in sinks:
                self._store.execute("INSERT INTO sinks VALUES (?, ?)", name, stateful)

    def enqueue(self, body: Mapping[str, Any], at_us: int, *, partial: bool = False) -> None:
        """Queues a notification for every sink, a partial one for stateful sinks only, within a transaction."""
        self._store.execute(
            "INSERT INTO notifications (key, group_id, status, partial, at_us, body) VALUES (?, ?, ?, ?, ?, ?)",
            *(body["key"], body["group"], body["status"], partial, at_us, dump(body)),
        )
        self._store.execute(
            "INSERT INTO deliveries SELECT name, (SELECT max(seq) FROM notifications), 'waiting', 0, '', 0"
            " FROM sinks WHERE stateful OR NOT ?",
            partial,
        )

    def has_stateful_sinks(self) -> bool:
        """Whether a sink wants to know the end of each alert, not only of the whole group."""
        return bool(self._store.rows("SELECT 1 FROM sinks WHERE stateful LIMIT 1"))

    def head(self, sink: str, without: Collection[str] = ()) -> Notice | None:
        """The next notification for `sink`, of a group that is not in `without`."""
        found = self._store.rows(
            "SELECT n.seq, n.key, n.body, d.attempts FROM deliveries d JOIN notifications n USING (seq)"
            " WHERE d.sink = ? AND d.state = 'waiting' AND n.group_id NOT IN (SELECT value FROM json_each(?))"
            " ORDER BY d.seq LIMIT 1",
            *(sink, json.dumps(list(without))),
        )
        return (
            Notice(found[0]["seq"], found[0]["key"], json.loads(found[0]["body"]), found[0]["attempts"])
            if found
            else None
        )

    def waiting(self, sink: str) -> int:
        """How many notifications wait for `sink`."""
        found = self._store.rows("SELECT count(*) FROM deliveries WHERE sink = ? AND state = 'waiting'", sink)
        return int(found[0][0])

    def mark(self, sink: str, seq: int, state: str, cause: str = "") -> None:
        """One more attempt, which ended in `state`; the first one that fails begins the time until it is given up."""
        with self._store.transaction():
            self._store.execute(
                "UPDATE deliveries SET state = ?1, attempts = attempts + 1, cause = ?2,"
                " since_us = iif(since_us = 0, ?3, since_us) WHERE sink = ?4 AND seq = ?5",
                *(state, cause, time.time_ns() // 1000, sink, seq),
            )

    def failing_s(self, sink: str, seq: int) -> float:
        """For how many seconds the delivery has failed; 0 before the first attempt."""
        found = self._store.rows("SELECT since_us FROM deliveries WHERE sink = ? AND seq = ?", sink, seq)
        since = int(found[0]["since_us"]) if found else 0
        return (time.time_ns() // 1000 - since) / 1e6 if since else 0.0

    def readmit(self, sink: str) -> None:
        """What `sink` refused is tried again."""
        with self._store.transaction():
            self._store.execute(
                "UPDATE deliveries SET state = 'waiting', attempts = 0, since_us = 0 WHERE sink = ? AND state = 'refused'",
                sink,
            )

    def undelivered(self) -> list[dict[str, Any]]:
        """What has not arrived, one entry for each sink and notification, the oldest first."""
        found = self._store.rows(
            "SELECT d.sink, d.state, d.attempts, d.cause, n.key, n.body FROM deliveries d JOIN notifications n USING (seq)"
            " WHERE d.state != 'delivered' ORDER BY d.seq, d.sink"
        )
        answer = []
        for row in found:
            body = json.loads(row["body"])
            about = {name: body[name] for name in ("at", "status", "severity", "endpoint", "group", "text")}
            answer.append({name: row[name] for name in ("key", "sink", "state", "attempts", "cause")} | about)
        return answer

    def queued(self) -> dict[str, int]:
        """How many notifications wait for each sink."""
        counted = "SELECT name, (SELECT count(*) FROM deliveries WHERE sink = name AND state = 'waiting') FROM sinks"
        return {row[0]: row[1] for row in self._store.rows(counted)}

    def history(self, limit: int, alert: str = "") -> list[dict[str, Any]]:
        """The last `limit` notifications, oldest first, with their deliveries; of one alert or group, if given."""
        query = "SELECT seq, partial, body FROM notifications"
        match = " WHERE group_id = ?1 OR group_id IN (SELECT group_id FROM alerts WHERE id = ?1 OR fingerprint = ?1)"
        chosen = (alert,) if alert else ()
        found = self._store.rows(f"{query}{match if alert else ''} ORDER BY seq DESC LIMIT {int(limit)}", *chosen)
        return [self._told(row["seq"], json.loads(row["body"]), bool(row["partial"])) for row in reversed(found)]

    def _told(self, seq: int, body: dict[str, Any], partial: bool) -> dict[str, Any]:
        rows = self._store.rows("SELECT sink, state, attempts, cause FROM deliveries WHERE seq = ? ORDER BY sink", seq)
        deliveries = {
            row["sink"]: {"state": row["state"], "attempts": row["attempts"], "cause": row["cause"]} for row in rows
        }
        return body | {"seq": seq, "partial": partial, "deliveries": deliveries}
