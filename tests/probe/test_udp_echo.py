"""The UDP-echo probe against real sockets on loopback: loss, lateness, duplicates, strangers, pacing."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.errors import UsageError
from ocad.probe.udp_echo import PAYLOAD, Address, EchoProbe, Responder, parse_target

from .conftest import MakePeer, Peer


def echo(peer: Peer, payload: bytes, _sequence: int, sender: Address) -> None:
    peer.connection.sendto(payload, sender)


def test_every_datagram_has_a_row_with_time_and_sequence() -> None:
    responder = Responder(0)
    thread = threading.Thread(target=responder.run)
    thread.start()
    probe = EchoProbe(responder.address, rate=200, duration=0.25, timeout=5)
    probe.run()
    responder.stop()
    thread.join()
    rows = probe.frame()
    assert rows["seq"].tolist() == list(range(50))
    assert str(rows["timestamp"].dtype) == "datetime64[us, UTC]"
    assert rows["timestamp"].is_monotonic_increasing
    assert (rows["udp_echo"] > 0).all()
    assert responder.echoed == 50
    assert probe.counts.as_dict() == {**dict.fromkeys(probe.counts.as_dict(), 0), "sent": 50, "received": 50}


def test_a_lost_reply_is_nan_and_delays_nothing(make_peer: MakePeer) -> None:
    def drop_every_third(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        if sequence % 3:
            echo(peer, payload, sequence, sender)

    peer = make_peer(drop_every_third)
    probe = EchoProbe(peer.address, rate=100, duration=0.3, timeout=0.5)
    probe.run()
    rows = probe.frame()
    assert peer.seen == list(range(30)), "a loss kept the sender from sending"
    assert rows.loc[rows["udp_echo"].isna(), "seq"].tolist() == list(range(0, 30, 3))
    assert (probe.counts.lost, probe.counts.received, probe.counts.late) == (10, 20, 0)


def test_a_late_reply_stays_lost_and_is_not_taken_for_another(make_peer: MakePeer) -> None:
    def answer_the_first_at_the_seventeenth(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        if sequence == 0:
            peer.kept[0] = payload
            return
        if sequence == 16:
            peer.connection.sendto(peer.kept[0], sender)
        echo(peer, payload, sequence, sender)

    probe = EchoProbe(make_peer(answer_the_first_at_the_seventeenth).address, rate=20, duration=1, timeout=0.4)
    probe.run()
    rows = probe.frame()
    assert rows.loc[rows["udp_echo"].isna(), "seq"].tolist() == [0]
    assert (probe.counts.lost, probe.counts.late, probe.counts.received) == (1, 1, 19)
    assert rows["udp_echo"].max() <= 0.4e6


def test_duplicates_are_counted_and_the_first_reply_stands(make_peer: MakePeer) -> None:
    def answer_even_ones_three_times(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        for _ in range(1 if sequence % 2 else 3):
            echo(peer, payload, sequence, sender)

    probe = EchoProbe(make_peer(answer_even_ones_three_times).address, rate=200, duration=0.1, timeout=5)
    probe.run()
    assert (probe.counts.received, probe.counts.duplicates, probe.counts.foreign) == (20, 20, 0)
    assert probe.frame()["udp_echo"].notna().all()


def test_strangers_are_counted_and_never_taken_for_replies(make_peer: MakePeer) -> None:
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send_only_wrong_ones(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        stranger.sendto(payload, sender)  # the right datagram from the wrong address
        for wrong in (b"", payload + b"x", PAYLOAD.pack(b"other...", sequence), payload[:8] + b"\xff" * 4):
            peer.connection.sendto(wrong, sender)

    with stranger:
        probe = EchoProbe(make_peer(send_only_wrong_ones).address, rate=100, duration=0.1, timeout=0.3)
        probe.run()
    assert (probe.counts.foreign, probe.counts.received, probe.counts.lost) == (50, 0, 10)
    assert probe.frame()["udp_echo"].isna().all()


@given(payload=st.binary(max_size=40), from_peer=st.booleans())
def test_no_bytes_but_the_own_ones_count_as_a_reply(payload: bytes, from_peer: bool) -> None:
    probe = EchoProbe(("127.0.0.1", 7), rate=1, duration=1)
    probe._sent_ns.append(0)
    probe._take(payload, from_peer, now=1)
    assert probe.counts.foreign == 1
    assert not probe._round_trip_us


def test_silence_loses_all_and_ends() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unread:
        unread.bind(("127.0.0.1", 0))
        probe = EchoProbe(unread.getsockname(), rate=100, duration=0.05, timeout=0.05)
        probe.run()
    assert (probe.counts.sent, probe.counts.lost) == (5, 5)


def test_a_refused_send_is_a_loss_and_the_next_one_follows() -> None:
    probe = EchoProbe(("192.0.2.1", 7), rate=100, duration=0.05, timeout=0.05, bind="127.0.0.1")
    probe.run()  # from a loopback address the kernel refuses to send elsewhere
    assert (probe.counts.send_errors, probe.counts.lost) == (5, 5)


def test_late_wake_ups_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that oversleeps each wait by 3 ms, the last of 500 datagrams is as late as the first ones."""
    clock = [1_000_000_000]

    def oversleep(_read: object, _write: object, _error: object, seconds: float) -> tuple[list[int], None, None]:
        clock[0] += round(seconds * 1e9) + (3_000_000 if seconds else 0)
        return [], None, None

    monkeypatch.setattr("ocad.probe.udp_echo.time.monotonic_ns", lambda: clock[0])
    monkeypatch.setattr("ocad.probe.udp_echo.select.select", oversleep)
    probe = EchoProbe(("192.0.2.1", 7), rate=100, duration=5, bind="127.0.0.1")
    probe.run()
    lateness = np.array(probe._sent_ns) - 1_000_000_000 - np.arange(500) * 10_000_000
    assert lateness.min() >= 0
    assert lateness.max() <= 3_000_000


def test_a_stall_is_caught_up_without_losing_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    stalls = iter([0.5])

    def stall_once(_read: object, _write: object, _error: object, seconds: float) -> tuple[list[int], None, None]:
        clock[0] += round((seconds + (next(stalls, 0.0) if seconds else 0.0)) * 1e9)
        return [], None, None

    monkeypatch.setattr("ocad.probe.udp_echo.time.monotonic_ns", lambda: clock[0])
    monkeypatch.setattr("ocad.probe.udp_echo.select.select", stall_once)
    probe = EchoProbe(("192.0.2.1", 7), rate=100, duration=2, bind="127.0.0.1")
    probe.run()
    assert len(probe._sent_ns) == 200
    assert probe._sent_ns[-1] == 1_990_000_000


def test_an_interruption_keeps_what_is_settled(monkeypatch: pytest.MonkeyPatch, make_peer: MakePeer) -> None:
    def answer_all_but_the_first(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        if sequence:
            echo(peer, payload, sequence, sender)

    send = EchoProbe._send

    def interrupt_at_ten(self: EchoProbe, connection: socket.socket, peer: Address, sequence: int) -> None:
        if sequence == 10:
            raise KeyboardInterrupt
        send(self, connection, peer, sequence)

    monkeypatch.setattr(EchoProbe, "_send", interrupt_at_ten)
    probe = EchoProbe(make_peer(answer_all_but_the_first).address, rate=100, duration=60, timeout=30)
    with pytest.raises(KeyboardInterrupt):
        probe.run()
    rows, counts = probe.frame(), probe.counts
    assert rows["seq"].tolist() == sorted(probe._replied), "an open one is neither lost nor measured"
    assert 0 not in probe._replied
    assert rows["udp_echo"].notna().all()
    assert (counts.sent, counts.lost, counts.received + counts.unresolved) == (10, 0, 10)


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
def test_a_number_that_cannot_be_is_refused(name: str) -> None:
    numbers = {"rate": 1.0, "duration": 1.0, "timeout": 1.0, name: 0.0}
    with pytest.raises(UsageError, match=rf"`{name}` is 0.0: give a number above 0"):
        EchoProbe(("127.0.0.1", 7), numbers["rate"], numbers["duration"], numbers["timeout"])


def test_a_taken_port_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as error:
            Responder(port)
    expected = f"cannot bind UDP `127.0.0.1:{port}` (address already in use): choose an own address and a free port"
    assert str(error.value) == expected
