"""Whom a responder answers: no loops between responders, a limit for each sender, only who is allowed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.errors import UsageError
from ocad.probe import cfm, ecpri, lbm
from ocad.probe.channel import Arrival, UdpChannel
from ocad.probe.measurement import Measurement, Pace
from ocad.probe.responder import REMEMBERED, Guard, Responder, parse_networks
from ocad.probe.udp_echo import ECHOED, Echo, EchoExchange, echo_probe, echo_responder

LOCAL = "127.0.0.1"


@contextmanager
def running(*responders: Responder) -> Iterator[None]:
    threads = [threading.Thread(target=responder.run) for responder in responders]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for responder, thread in zip(responders, threads, strict=True):
            responder.stop()
            thread.join()


def wait_for_silence(responders: Sequence[Responder]) -> None:
    """Until nothing more comes in."""
    before, now = -1, 0
    while before != now:
        before = now
        time.sleep(0.3)
        now = sum(responder.answered + responder.refused for responder in responders)


@pytest.mark.parametrize(
    "payload",
    [b"x" * 12, b"", EchoExchange().request(0), b"\0" * 1400],
    ids=["text", "empty", "a request of ours", "long"],
)
def test_a_datagram_between_two_responders_ends(payload: bytes) -> None:
    """The first responder is sent what seems to come from the second, as a forger would: it goes to and fro once."""
    (first, at_first), (second, at_second) = echo_responder(0), echo_responder(0)
    second.channel.send(payload, at_first)  # the forged sender: the second responder's own address and port
    with running(first, second):
        wait_for_silence((first, second))
    assert (first.answered, second.answered) == (1, 1)
    assert first.refused + second.refused == 1
    assert at_first != at_second


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ecpri.respond, ecpri.DelayMessage(1, ecpri.Action.REQUEST, 5).encode()),
        (lbm.loopback_answer(0), lbm.encode_loopback(cfm.Opcode.LBM, 0, 7, b"data")),
        (Echo(7000), b"any bytes"),
    ],
    ids=["ecpri", "lbm", "udp-echo"],
)
def test_no_answer_is_answered_without_end(answer: object, message: bytes) -> None:
    """What a responder sends, sent back to one of its kind by each other, is answered once at most."""
    assert callable(answer)
    answers = 0
    reply: bytes | None = message
    while reply is not None:
        reply = answer(Arrival(reply, ("192.0.2.1", 40_000), 1))
        answers += reply is not None
        assert answers < 3


@pytest.mark.parametrize(("port", "answered"), [(7, False), (19, False), (1023, False), (7000, False), (1024, True)])
def test_services_and_the_own_port_are_not_answered(port: int, answered: bool) -> None:
    assert (Echo(7000)(Arrival(b"x", ("192.0.2.1", port), 0)) is not None) == answered


@given(payloads=st.lists(st.binary(max_size=4), max_size=40), ports=st.integers(1024, 1027))
def test_each_datagram_of_a_port_is_echoed_once(payloads: list[bytes], ports: int) -> None:
    echo = Echo(7000)
    echoed = [payload for payload in payloads if echo(Arrival(payload, ("192.0.2.1", ports), 0)) is not None]
    assert echoed == list(dict.fromkeys(payloads))
    assert all(echo(Arrival(payload, ("192.0.2.1", 2000), 0)) == payload for payload in dict.fromkeys(payloads))


def test_memory_for_echoes_and_peers_is_bounded() -> None:
    echo, guard = Echo(7000), Guard()
    for number in range(ECHOED + 10):
        echo(Arrival(number.to_bytes(4, "big"), ("192.0.2.1", 4000), 0))
    for number in range(REMEMBERED + 10):
        guard.admits((f"peer-{number}", 4000), 0.0)
    assert (len(echo._echoed), len(guard._peers)) == (ECHOED, REMEMBERED)


@given(limit=st.floats(0.5, 50), times=st.lists(st.floats(0, 10), max_size=300))
def test_no_sender_gets_more_than_its_limit(limit: float, times: list[float]) -> None:
    """In any stretch of time: what the limit allows, and one second's worth at once. Its ports count together."""
    guard = Guard(limit)
    ordered = sorted(times)
    admitted = [now for number, now in enumerate(ordered) if guard.admits(("192.0.2.1", 2000 + number), now)]
    for number, start in enumerate(admitted):
        for count, end in enumerate(admitted[number:], 1):
            assert count <= max(1.0, limit) + (end - start) * limit + 1e-6
    assert guard.admits(("192.0.2.2", 2000), 0.0), "another sender has a limit of its own"


@pytest.mark.parametrize(
    ("networks", "sender", "admitted"),
    [
        ([], ("203.0.113.9", 5), True),
        (["192.0.2.0/24"], ("192.0.2.77", 5), True),
        (["192.0.2.0/24"], ("192.0.3.1", 5), False),
        (["192.0.2.0/24", "2001:db8::/32"], ("2001:db8::7", 5), True),
        (["2001:db8::/32"], ("192.0.2.1", 5), False),
        (["192.0.2.0/24"], ("::ffff:192.0.2.1", 5), True),
        (["fe80::/10"], ("fe80::1%eth0", 5), True),
        (["192.0.2.1"], ("192.0.2.1", 5), True),
        ([], bytes.fromhex("020000000001"), True),
        ([], bytes.fromhex("0180c2000030"), False),
        (["192.0.2.0/24"], bytes.fromhex("020000000001"), False),
    ],
)
def test_only_who_is_allowed_is_answered(networks: list[str], sender: object, admitted: bool) -> None:
    assert Guard(allow=parse_networks(networks)).admits(sender, 0.0) == admitted


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot read a network \(.*'rack 4'.*\): write it as"):
        parse_networks(["rack 4"])
    with pytest.raises(UsageError, match=r"`limit` is 0: give a number above 0"):
        Guard(0)


def test_a_network_that_is_not_allowed_is_loss() -> None:
    responder, address = echo_responder(0, guard=Guard(allow=parse_networks(["192.0.2.0/24"])))
    measurement = echo_probe(address, Pace(100, 0.05, 0.2), lambda _row: None)
    with running(responder):
        measurement.run()
    assert (measurement.counts.lost, responder.answered, responder.refused) == (5, 0, 5)


@pytest.mark.parametrize("kind", ["udp-echo", "ecpri"])
@pytest.mark.parametrize("host", [LOCAL, "::1"])
def test_a_port_where_nothing_listens_says_so(kind: str, host: str) -> None:
    with socket.socket(socket.AF_INET if host == LOCAL else socket.AF_INET6, socket.SOCK_DGRAM) as free:
        free.bind((host, 0))
        target = (host, free.getsockname()[1])
    pace = Pace(50, 0.1, 0.2)
    channel = UdpChannel(target, ("", 0))
    measurement = (
        Measurement(EchoExchange(), channel, pace, lambda _row: None)
        if kind == "udp-echo"
        else ecpri.delay_probe(channel, pace, lambda _row: None)
    )
    measurement.run()
    counts = measurement.counts
    assert (counts.sent, counts.lost, counts.send_errors, counts.unreachable) == (5, 5, 0, 5)
    assert channel.unreachable == {"connection refused": 5}
