"""The UDP-echo probe against real sockets on loopback: loss, lateness, duplicates, strangers, pacing."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.errors import UsageError
from ocad.probe.channel import Address, Arrival, parse_target
from ocad.probe.measurement import REMEMBERED, Counts, Measurement, Pace, Row
from ocad.probe.udp_echo import PAYLOAD, echo_probe, echo_responder

from .conftest import MakePeer, Peer


def echo(peer: Peer, payload: bytes, _sequence: int, sender: Address) -> None:
    peer.connection.sendto(payload, sender)


@dataclass
class Probe:
    """A measurement and the rows that it delivered."""

    measurement: Measurement
    rows: list[Row]

    @property
    def counts(self) -> Counts:
        return self.measurement.counts

    @property
    def lost(self) -> list[int]:
        return [row.sequence for row in self.rows if math.isnan(row.value)]

    def run(self) -> None:
        self.measurement.run()


def make_probe(target: Address, rate: float, duration: float, timeout: float = 1.0, bind: str = "") -> Probe:
    rows: list[Row] = []
    return Probe(echo_probe(target, Pace(rate, duration, timeout), rows.append, bind), rows)


def test_every_datagram_has_a_row_with_time_and_sequence() -> None:
    responder, address = echo_responder(0)
    thread = threading.Thread(target=responder.run)
    thread.start()
    before = time.time_ns() // 1000
    probe = make_probe(address, rate=200, duration=0.25, timeout=5)
    probe.run()
    responder.stop()
    thread.join()
    times = [row.time_us for row in probe.rows]
    assert [row.sequence for row in probe.rows] == list(range(50))
    assert before <= times[0] == min(times) < sorted(times)[-1] == times[-1] <= time.time_ns() // 1000
    assert times == sorted(times)
    assert min(row.value for row in probe.rows) > 0
    assert responder.answered == 50
    assert probe.counts.as_dict() == {**dict.fromkeys(probe.counts.as_dict(), 0), "sent": 50, "received": 50}


def test_a_lost_reply_is_nan_and_delays_nothing(make_peer: MakePeer) -> None:
    def drop_every_third(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        if sequence % 3:
            echo(peer, payload, sequence, sender)

    peer = make_peer(drop_every_third)
    probe = make_probe(peer.address, rate=100, duration=0.3, timeout=3)
    probe.run()
    assert peer.seen == list(range(30)), "a loss kept the sender from sending"
    assert probe.lost == list(range(0, 30, 3))
    assert (probe.counts.lost, probe.counts.received, probe.counts.late) == (10, 20, 0)


def test_a_late_reply_stays_lost_and_is_not_taken_for_another(make_peer: MakePeer) -> None:
    def answer_the_first_when_it_is_lost(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        if sequence == 0:
            peer.kept[0] = payload
            return
        if probe.counts.lost and 0 in peer.kept:
            peer.connection.sendto(peer.kept.pop(0), sender)
        echo(peer, payload, sequence, sender)

    probe = make_probe(make_peer(answer_the_first_when_it_is_lost).address, rate=20, duration=4, timeout=2)
    probe.run()
    assert probe.lost == [0]
    assert (probe.counts.lost, probe.counts.late, probe.counts.received) == (1, 1, 79)
    assert max(row.value for row in probe.rows if row.sequence) <= 2e6


def test_rows_come_in_the_order_of_sending_as_soon_as_they_are_known(make_peer: MakePeer) -> None:
    """The second reply comes before the first: both rows are delivered with the first one, not at the end."""
    delivered: dict[int, list[int]] = {}

    def answer_the_first_after_the_second(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        if sequence == 0:
            peer.kept[0] = payload
        else:
            delivered[sequence] = [row.sequence for row in probe.rows]
            echo(peer, payload, sequence, sender)
        if sequence == 1:
            peer.connection.sendto(peer.kept[0], sender)

    probe = make_probe(make_peer(answer_the_first_after_the_second).address, rate=20, duration=0.2, timeout=5)
    probe.run()
    assert [row.sequence for row in probe.rows] == [0, 1, 2, 3]
    assert (delivered[1], delivered[3][:2]) == ([], [0, 1])


def test_duplicates_are_counted_and_the_first_reply_stands(make_peer: MakePeer) -> None:
    def answer_even_ones_three_times(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        for _ in range(1 if sequence % 2 else 3):
            echo(peer, payload, sequence, sender)

    probe = make_probe(make_peer(answer_even_ones_three_times).address, rate=200, duration=0.1, timeout=5)
    probe.run()
    assert (probe.counts.received, probe.counts.duplicates, probe.counts.foreign) == (20, 20, 0)
    assert probe.lost == []


def test_strangers_are_counted_and_never_taken_for_replies(make_peer: MakePeer) -> None:
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send_only_wrong_ones(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        stranger.sendto(payload, sender)  # the right datagram from the wrong address
        for wrong in (b"", payload + b"x", PAYLOAD.pack(b"other...", sequence), payload[:8] + b"\xff" * 4):
            peer.connection.sendto(wrong, sender)

    with stranger:
        probe = make_probe(make_peer(send_only_wrong_ones).address, rate=100, duration=0.1, timeout=3)
        probe.run()
    assert (probe.counts.foreign, probe.counts.received, probe.counts.lost) == (50, 0, 10)
    assert len(probe.lost) == 10


@given(payload=st.binary(max_size=40))
def test_no_bytes_but_the_own_ones_count_as_a_reply(payload: bytes) -> None:
    measurement = make_probe(("127.0.0.1", 7), rate=1, duration=1).measurement
    measurement.channel.close()
    measurement.counts.sent = 1
    measurement._take(Arrival(payload, ("127.0.0.1", 7), 0), now=1)
    assert measurement.counts.foreign == 1


def test_only_so_many_requests_are_told_apart() -> None:
    measurement = make_probe(("127.0.0.1", 7), rate=1, duration=1).measurement
    measurement.channel.close()
    measurement.counts.sent = REMEMBERED + 2
    for sequence in (0, 1, 2, 2, REMEMBERED + 1, REMEMBERED + 2):
        measurement._take(Arrival(measurement.exchange.request(sequence), ("127.0.0.1", 7), 0), now=1)
    assert (measurement.counts.foreign, measurement.counts.late, measurement.counts.duplicates) == (3, 2, 1)


def test_silence_loses_all_and_ends() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unread:
        unread.bind(("127.0.0.1", 0))
        probe = make_probe(unread.getsockname(), rate=100, duration=0.05, timeout=0.05)
        probe.run()
    assert (probe.counts.sent, probe.counts.lost) == (5, 5)


def test_a_refused_send_is_a_loss_and_the_next_one_follows() -> None:
    probe = make_probe(("192.0.2.1", 7), rate=100, duration=0.05, timeout=0.05, bind="127.0.0.1")
    probe.run()  # from a loopback address the kernel refuses to send elsewhere
    assert (probe.counts.send_errors, probe.counts.lost) == (5, 5)


class Clock:
    """A clock that only `select` moves: by what it is asked to wait, and by `oversleep` seconds more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, oversleep: Iterator[float]) -> None:
        self.now = 1_000_000_000
        self.oversleep = oversleep
        monkeypatch.setattr("ocad.probe.measurement.time.monotonic_ns", lambda: self.now)
        monkeypatch.setattr("ocad.probe.measurement.select.select", self.select)

    def select(self, _read: object, _write: object, _error: object, seconds: float) -> tuple[list[int], None, None]:
        self.now += round((seconds + (next(self.oversleep, 0.0) if seconds else 0.0)) * 1e9)
        return [], None, None


def sending_times(monkeypatch: pytest.MonkeyPatch, oversleep: Iterator[float], duration: float) -> list[int]:
    """Nanoseconds after the start at which a probe of 100 a second sends, on a clock that oversleeps."""
    clock = Clock(monkeypatch, oversleep)
    times: list[int] = []
    probe = make_probe(("192.0.2.1", 7), rate=100, duration=duration, bind="127.0.0.1").measurement
    monkeypatch.setattr(probe.channel, "send", lambda _payload: times.append(clock.now - 1_000_000_000))
    probe.run()
    return times


def test_late_wake_ups_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that oversleeps each wait by 3 ms, the last of 500 datagrams is as late as the first ones."""
    times = sending_times(monkeypatch, repeat(0.003), 5)
    lateness = [time - index * 10_000_000 for index, time in enumerate(times)]
    assert len(times) == 500
    assert min(lateness) >= 0
    assert max(lateness) <= 6_000_000  # one wait for the slot, one for a timeout that ends in it


def test_a_stall_is_caught_up_without_losing_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    times = sending_times(monkeypatch, iter([0.5]), 2)
    assert len(times) == 200
    assert times[-1] == 1_990_000_000


def test_an_interruption_keeps_what_is_settled(monkeypatch: pytest.MonkeyPatch, make_peer: MakePeer) -> None:
    def answer_all_but_the_first(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        if sequence:
            echo(peer, payload, sequence, sender)

    probe = make_probe(make_peer(answer_all_but_the_first).address, rate=100, duration=60, timeout=30)
    send = probe.measurement.channel.send

    def interrupt_at_ten(payload: bytes) -> None:
        if probe.counts.sent > 10:
            raise KeyboardInterrupt
        send(payload)

    monkeypatch.setattr(probe.measurement.channel, "send", interrupt_at_ten)
    with pytest.raises(KeyboardInterrupt):
        probe.run()
    rows, counts = probe.rows, probe.counts
    assert 0 not in [row.sequence for row in rows], "an open one is neither lost nor measured"
    assert probe.lost == []
    assert (counts.sent, counts.lost, counts.received + counts.unresolved) == (11, 0, 11)


def test_a_measurement_may_have_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, iter(()))
    probe = make_probe(("192.0.2.1", 7), rate=100, duration=math.inf, timeout=0.05, bind="127.0.0.1")

    def end_at_noon(_payload: bytes) -> None:
        if probe.counts.sent == 5_000:
            raise KeyboardInterrupt

    monkeypatch.setattr(probe.measurement.channel, "send", end_at_noon)
    with pytest.raises(KeyboardInterrupt):
        probe.run()
    assert clock.now >= 50_000_000_000
    assert (len(probe.rows), probe.counts.unresolved) == (4_994, 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("192.0.2.7:7", ("192.0.2.7", 7)), ("host.example:65535", ("host.example", 65_535)), ("[::1]:9", ("::1", 9))],
)
def test_a_target_is_host_and_port(text: str, expected: Address) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", ":7", "host:0", "host:65536", "host:x", "host:²"])
def test_a_bad_target_says_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_target(text)
    assert str(error.value) == f"cannot read the target `{text}`: write it as `HOST:PORT`, such as `192.0.2.7:7`"


@pytest.mark.parametrize("name", ["rate", "duration", "timeout"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_number_that_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"`{name}` is {value}: give a number above 0"):
        Pace(**{"rate": 1.0, "duration": 1.0, "timeout": 1.0, name: value})


def test_a_taken_port_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as error:
            echo_responder(port)
    expected = f"cannot bind UDP `127.0.0.1:{port}` (address already in use): choose an own address and a free port"
    assert str(error.value) == expected
