"""What holds for any order of incidents, ticks, restarts and words of people."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ocad.detection.alerts import AlertManager, AlertSettings, AlertStore
from ocad.detection.alerts.episodes import Episodes
from ocad.detection.alerts.rules import SEVERITIES
from ocad.detection.alerts.store import Alert
from ocad.detection.incidents import Incident

from .conftest import at, incident

ENDPOINTS = ("a", "b", "c")
FAMILIES = {"udp_echo": "delay", "ecpri": "delay", "ccm": "continuity"}
WAIT, HOLD = 30, 60


class Machine(RuleBasedStateMachine):
    """Opens and closes incidents as time goes on, as a detector does: one at a time for each endpoint and metric."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now = 0.0
        self.open: dict[tuple[str, str], Incident] = {}
        self.seen: dict[str, Incident] = {}
        self.opened: list[tuple[float, str]] = []
        self.start()

    @initialize(group_by=st.sampled_from([("family",), (), ("endpoint",), ("family", "kind")]))
    def choose(self, group_by: tuple[str, ...]) -> None:
        self.manager.close()
        self.start(group_by)

    def start(self, group_by: tuple[str, ...] = ("family",)) -> None:
        config = AlertSettings.model_validate(
            {"group_wait_s": WAIT, "hold_down_s": HOLD, "repeat_s": 0, "stale_after_s": 1e9, "group_by": group_by}
        )
        self.group_by = group_by
        self.store = AlertStore(self.folder)
        self.manager = AlertManager(config, self.store)

    @rule(seconds=st.sampled_from([1, 5, 29, 31, 59, 61, 400]))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.manager.tick(at(self.now))

    @rule(
        endpoint=st.sampled_from(ENDPOINTS),
        metric=st.sampled_from(sorted(FAMILIES)),
        score=st.sampled_from([4.0, 7.0, 13.0]),
    )
    def alarm(self, endpoint: str, metric: str, score: float) -> None:
        known = self.open.get((endpoint, metric))
        if known is None:
            self.now += 0.001  # a start, and so an id, of its own
            found = replace(
                incident(endpoint, self.now, metrics=(metric,), score=score), id=f"{endpoint}{metric}{self.now:.3f}"
            )
            self.opened.append((self.now, f"{endpoint} {FAMILIES[metric]}"))
        else:
            found = replace(known, score=max(known.score, score))
        self.open[endpoint, metric] = self.seen[found.id] = found
        self.manager.observe(found)

    @rule(endpoint=st.sampled_from(ENDPOINTS), metric=st.sampled_from(sorted(FAMILIES)))
    def end(self, endpoint: str, metric: str) -> None:
        if found := self.open.pop((endpoint, metric), None):
            self.seen[found.id] = replace(found, end_us=at(self.now))
            self.manager.observe(self.seen[found.id])

    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """A detector that reads its data anew says what it said before."""
        if self.seen:
            found = self.seen[data.draw(st.sampled_from(sorted(self.seen)))]
            self.manager.observe(found)
            self.manager.observe(replace(found, end_us=None))

    @rule()
    def restart(self) -> None:
        self.manager.close()
        self.start(self.group_by)
        self.manager.tick(at(self.now))

    @rule(word=st.sampled_from(["acknowledge", "resolve"]), data=st.data())
    def say(self, word: str, data: st.DataObject) -> None:
        other = AlertStore(self.folder)
        episodes = Episodes(other)
        if alerts := other.find(Alert, "state != 'resolved'"):
            name = data.draw(st.sampled_from([alert.id for alert in alerts]))
            with other.transaction():
                if word == "acknowledge":
                    episodes.acknowledge([name], "ada", "", at(self.now))
                else:
                    episodes.resolve_by_hand([name], "ada", "", at(self.now))
        other.close()

    def told(self) -> list[dict[str, Any]]:
        return Episodes(self.store).outbox.history(100_000)

    @invariant()
    def firing_is_bounded(self) -> None:
        """At most one for each group key and wait, and never more than alerts; a group fires before all else, and once."""
        told = self.told()
        firing = [notice for notice in told if notice["status"] == "firing"]
        assert len({notice["group"] for notice in firing}) == len(firing)
        assert len(firing) <= len(self.opened)
        last: dict[str, str] = {}
        for notice in firing:
            assert notice["group_key"] not in last or last[notice["group_key"]] < notice["at"]
            last[notice["group_key"]] = notice["at"]
        first: dict[str, str] = {}
        for notice in told:
            first.setdefault(notice["group"], notice["status"])
        assert set(first.values()) <= {"firing"}

    @invariant()
    def severity_only_rises(self) -> None:
        rank: dict[str, int] = {}
        escalations: dict[str, int] = {}
        for notice in self.told():
            now = SEVERITIES.index(notice["severity"])
            if notice["status"] == "escalated":
                escalations[notice["group"]] = escalations.get(notice["group"], 0) + 1
                assert now > rank[notice["group"]]
            rank[notice["group"]] = max(now, rank.get(notice["group"], 0))
        assert all(count <= len(SEVERITIES) - 1 for count in escalations.values())

    @invariant()
    def one_alert_at_a_time(self) -> None:
        rows = self.store.rows("SELECT fingerprint FROM alerts WHERE state != 'resolved'")
        assert len({row["fingerprint"] for row in rows}) == len(rows)

    def teardown(self) -> None:
        """When all is over and the hold-down has passed, each incident has ended in exactly one resolve."""
        for endpoint, metric in list(self.open):
            self.end(endpoint, metric)
        self.manager.tick(at(self.now + WAIT + HOLD + 1))
        told = self.told()
        belongs = {row["id"]: row["alert_id"] for row in self.store.rows("SELECT id, alert_id FROM incidents")}
        assert set(belongs) == set(self.seen)
        for alert in set(belongs.values()):
            statuses = [notice["status"] for notice in told for member in notice["alerts"] if member["id"] == alert]
            assert (statuses.count("firing"), statuses.count("resolved")) == (1, 1)
            assert statuses[-1] == "resolved"
        assert self.store.next_due() is None
        self.manager.close()
        shutil.rmtree(self.folder)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)
