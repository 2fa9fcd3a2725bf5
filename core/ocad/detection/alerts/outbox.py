"""The outbox: notifications written in the transaction that changed the state, and what became of them at each sink.

A sink's queue is strictly in order of `seq`. A delivery is `waiting`, then `delivered`, or `refused` until the next start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
            "INSERT INTO deliveries SELECT name, (SELECT max(seq) FROM notifications), 'waiting', 0, ''"
            " FROM sinks WHERE stateful OR NOT ?",
            partial,
        )

    def has_stateful_sinks(self) -> bool:
        """Whether a sink wants to know the end of each alert, not only of the whole group."""
        return bool(self._store.rows("SELECT 1 FROM sinks WHERE stateful LIMIT 1"))

    def head(self, sink: str) -> Notice | None:
        """The next notification for `sink`."""
        found = self._store.rows(
            "SELECT n.seq, n.key, n.body, d.attempts FROM deliveries d JOIN notifications n USING (seq)"
            " WHERE d.sink = ? AND d.state = 'waiting' ORDER BY d.seq LIMIT 1",
            sink,
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
        """One more attempt, which ended in `state`."""
        with self._store.transaction():
            self._store.execute(
                "UPDATE deliveries SET state = ?, attempts = attempts + 1, cause = ? WHERE sink = ? AND seq = ?",
                *(state, cause, sink, seq),
            )

    def readmit(self, sink: str) -> None:
        """What `sink` refused is tried again."""
        with self._store.transaction():
            self._store.execute(
                "UPDATE deliveries SET state = 'waiting', attempts = 0 WHERE sink = ? AND state = 'refused'", sink
            )

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
