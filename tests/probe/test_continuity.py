"""The continuity monitor: what counts as missed, by sequence numbers, by silence, and by the kernel's time of arrival."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.errors import UsageError
from ocad.probe.ccm import REORDERED, Association, Check, Continuity, Monitor, Sender
from ocad.probe.channel import Arrival, Channel
from ocad.probe.measurement import Row

PERIOD = 0.01


def missed(arrivals: list[tuple[int, int]]) -> list[int]:
    """What each arrival adds; arrivals are sequence numbers and the periods at which they come."""
    continuity = Continuity(PERIOD, 0.0)
    return [continuity.come(sequence, periods * PERIOD) for sequence, periods in arrivals]


@given(lost=st.sets(st.integers(2, 199)), first=st.integers(1, 2**31))
def test_each_lost_message_is_missed_once(lost: set[int], first: int) -> None:
    arrivals = [(first + i, i) for i in range(1, 201) if i not in lost]
    assert sum(missed(arrivals)) == len(lost)


@given(delays=st.lists(st.integers(0, 30), min_size=20, max_size=60))
def test_messages_that_are_only_late_are_not_missed(delays: list[int]) -> None:
    times = sorted(i + delay for i, delay in enumerate(delays, start=1))
    assert sum(missed([(i, when) for i, when in enumerate(times, start=1)])[1:]) == 0


def test_an_overtaken_message_is_taken_back_and_a_copy_changes_nothing() -> None:
    assert missed([(1, 1), (3, 3), (2, 3), (3, 3), (4, 4)]) == [0, 1, -1, 0, 0]


def test_a_sender_that_begins_anew_misses_what_the_silence_says() -> None:
    assert missed([(1000, 1), (1, 11), (2, 12)]) == [0, 9, 0]


def test_a_leap_of_the_numbers_misses_no_more_than_the_time_allows() -> None:
    assert missed([(1, 1), (4_000_000_000, 11)]) == [0, 9 + REORDERED]


def test_a_sender_that_does_not_count_is_judged_by_time() -> None:
    assert missed([(0, 1), (0, 2), (0, 6), (0, 7)]) == [0, 0, 3, 0]


def test_silence_is_missed_from_loss_of_continuity_on_and_never_twice() -> None:
    continuity = Continuity(PERIOD, 0.0)
    continuity.come(1, 1 * PERIOD)
    assert continuity.silent(4.4 * PERIOD) == 0
    assert continuity.silent(11.2 * PERIOD) == 10
    assert continuity.silent(21.2 * PERIOD) == 10
    assert continuity.come(31, 31 * PERIOD) == 29 - 20
    assert continuity.silent(34 * PERIOD) == 0


def test_an_overtaken_message_ends_the_silence() -> None:
    continuity = Continuity(PERIOD, 0.0)
    continuity.come(5, 1 * PERIOD)
    assert continuity.silent(11.2 * PERIOD) == 10
    assert continuity.come(4, 12 * PERIOD) == -1
    assert continuity.silent(17.2 * PERIOD) == 0
    assert continuity.come(18, 18 * PERIOD) == 12 - 10


class PairChannel(Channel):
    """One end of a socket pair: a real socket, whose arrivals the kernel times, without an interface."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, b"")

    def send(self, payload: bytes, to: Any = None) -> None:
        self._socket.send(payload)

    def receive(self) -> Arrival:
        payload, _, time_ns = self._receive()
        return Arrival(payload, b"peer", time_ns)


@pytest.fixture
def ends() -> Iterator[tuple[PairChannel, PairChannel]]:
    near, far = (PairChannel(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    yield near, far
    near.close()
    far.close()


def check(sequence: int, association: Association) -> Check:
    return Check(association.level, association.code, sequence, association.mepid, association.maid())


def test_a_monitor_sees_what_a_sender_sends(ends: tuple[PairChannel, PairChannel]) -> None:
    association = Association("3.33ms")
    sender = Sender(ends[1], association, duration=5)
    thread = threading.Thread(target=sender.run)
    rows: list[Row] = []
    monitor = Monitor(ends[0], association, duration=0.4, report=0.1, deliver=rows.append)
    before = time.time_ns() // 1000
    thread.start()
    monitor.run()
    ends[1].close()  # the sender goes on against a closed channel, as against a link that is down
    sender.duration = 0
    thread.join()
    assert [row.sequence for row in rows] == [0, 1, 2, 3]
    assert [round((row.time_us - rows[0].time_us) / 1000) for row in rows] == [0, 100, 200, 300]
    assert before <= rows[0].time_us <= time.time_ns() // 1000
    assert monitor.counts.received > 0
    assert monitor.counts.missed == sum(round(row.value * 30) for row in rows)


def test_a_monitor_that_wakes_up_late_misjudges_nothing(
    ends: tuple[PairChannel, PairChannel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All messages of two intervals are in the socket before the monitor looks for the first time."""
    association = Association("100ms")
    rows: list[Row] = []
    monitor = Monitor(ends[0], association, duration=0.4, report=0.2, deliver=rows.append)
    watch = Monitor._watch

    def stall(self: Monitor, continuity: Continuity, end: float) -> None:
        if not self.counts.received:
            Sender(ends[1], association, duration=0.4).run()
        watch(self, continuity, end)

    monkeypatch.setattr(Monitor, "_watch", stall)
    monitor.run()
    assert [row.value for row in rows] == [0, 0]
    assert (monitor.counts.received, monitor.counts.missed) == (4, 0)


@pytest.mark.parametrize(
    "other",
    [Association("100ms"), Association(level=1), Association(mepid=2), Association(name="other")],
    ids=["interval", "level", "mepid", "name"],
)
def test_messages_of_another_association_do_not_count(
    ends: tuple[PairChannel, PairChannel], other: Association
) -> None:
    rows: list[Row] = []
    monitor = Monitor(ends[0], Association(), duration=0.1, report=0.1, deliver=rows.append)
    for payload in (check(1, other).encode(), b"garbage"):
        ends[1].send(payload)
    monitor.run()
    assert (monitor.counts.foreign, monitor.counts.received, len(rows)) == (2, 0, 1)
    assert rows[0].value == pytest.approx(1.0, abs=0.11)  # a busy machine may begin the interval a message late


def test_remote_defects_are_counted(ends: tuple[PairChannel, PairChannel]) -> None:
    monitor = Monitor(ends[0], Association(), duration=0.05, report=0.05, deliver=lambda _row: None)
    for sequence in range(1, 4):
        ends[1].send(check(sequence, Association())._replace(remote_defect=sequence > 1).encode())
    monitor.run()
    assert (monitor.counts.received, monitor.counts.remote_defects) == (3, 2)


def test_an_interval_shorter_than_a_period_is_refused(ends: tuple[PairChannel, PairChannel]) -> None:
    with pytest.raises(UsageError, match=r"`report` is 0\.05: give seconds, at least the CCM interval"):
        Monitor(ends[0], Association("100ms"), duration=1, report=0.05, deliver=lambda _row: None)
    with pytest.raises(UsageError, match=r"`duration` is 0: give a number above 0"):
        Sender(ends[0], Association(), duration=0)


def test_arrivals_carry_the_kernels_time_and_not_that_of_reading(ends: tuple[PairChannel, PairChannel]) -> None:
    before = time.time_ns()
    ends[1].send(b"x")
    after = time.time_ns()
    assert before <= ends[0].receive().time_ns <= after
