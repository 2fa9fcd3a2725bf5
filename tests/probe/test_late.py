"""Replies belong to the request that they answer, however late: by a nonce, where an identifier comes round."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.errors import UsageError
from ocad.probe import ecpri, lbm
from ocad.probe.channel import Arrival
from ocad.probe.ecpri import DelayExchange, DelayMessage, decode, respond
from ocad.probe.measurement import FASTEST, REMEMBERED, Exchange, Pace
from ocad.probe.responder import Answer
from ocad.probe.udp_echo import EchoExchange

ADDRESS, MAC = ("192.0.2.1", 5), b"\2\0\0\0\0\1"
MAKERS: dict[str, Callable[[], Exchange]] = {
    "udp-echo": EchoExchange,
    "ecpri": DelayExchange,
    "lbm": partial(lbm.LoopbackExchange, 0),
}
ANSWERS: dict[str, Answer] = {
    "udp-echo": lambda arrival: arrival.payload,
    "ecpri": respond,
    "lbm": lbm.loopback_answer(0),
}


def answered(kind: str, request: bytes) -> bytes:
    """What the far end of this kind sends back."""
    reply = ANSWERS[kind](Arrival(request, MAC if kind == "lbm" else ADDRESS, 0))
    assert reply is not None
    return reply


@pytest.mark.parametrize("kind", ANSWERS)
@settings(max_examples=25, deadline=None)
@given(sent=st.integers(1, 900), asked=st.lists(st.integers(0, 899), min_size=1, max_size=20))
def test_a_reply_is_matched_with_its_own_request(kind: str, sent: int, asked: list[int]) -> None:
    """Also when hundreds were sent since, and identifiers came round several times."""
    exchange = MAKERS[kind]()
    requests = [exchange.request(sequence) for sequence in range(sent)]
    for sequence in asked:
        if sequence < sent:
            reply = exchange.match(answered(kind, requests[sequence]))
            assert reply is not None
            assert reply.sequence == sequence


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_reply_to_another_measurement_is_none(kind: str) -> None:
    exchange, other = MAKERS[kind](), MAKERS[kind]()
    exchange.request(0)
    assert exchange.match(answered(kind, other.request(0))) is None


def test_the_delay_of_a_late_response_is_its_own() -> None:
    exchange = DelayExchange()
    first = exchange.request(0)
    for sequence in range(1, 257):
        exchange.request(sequence)
    request = decode(first)
    assert request is not None
    response = respond(Arrival(first, ("192.0.2.1", 5), request.time_ns + 1_500_000_000))
    assert response is not None
    reply = exchange.match(response)
    assert reply is not None
    assert (reply.sequence, reply.value_us) == (0, 1_500_000.0)


@pytest.mark.parametrize("dummy", [b"", b"\0" * 40])
def test_a_responder_without_dummy_bytes_is_believed_by_the_identifier(dummy: bytes) -> None:
    exchange = DelayExchange()
    for sequence in range(300):
        exchange.request(sequence)
    for identifier, sequence in ((43, 299), (44, 44), (255, 255), (0, 256)):
        answer = DelayMessage(identifier, ecpri.Action.RESPONSE, 0, dummy=dummy)
        reply = exchange.match(answer.encode())
        assert reply is not None
        assert reply.sequence == sequence
    assert DelayExchange().match(DelayMessage(3, ecpri.Action.RESPONSE).encode()) is None


def test_a_nonce_with_another_identifier_is_none() -> None:
    exchange = DelayExchange()
    request = decode(exchange.request(0))
    assert request is not None
    assert exchange.match(replace(request, action=ecpri.Action.RESPONSE).encode()) is not None
    assert exchange.match(replace(request, action=ecpri.Action.RESPONSE, identifier=9).encode()) is None


@pytest.mark.parametrize(
    ("pace", "message"),
    [
        ({"rate": math.inf}, "`rate` is inf: give at most 100,000 a second, at least one a day"),
        ({"rate": FASTEST * 1.01, "timeout": 0.1}, "`rate` is 101000.0: give at most"),
        ({"rate": 1e-310}, "`rate` is 1e-310: give at most"),
        ({"timeout": math.inf}, "`timeout` is inf: give at most 3600 seconds"),
        ({"timeout": 3601.0}, "`timeout` is 3601.0: give at most 3600 seconds"),
        ({"rate": 1000.0, "timeout": 66.0}, "1000 requests a second for a `timeout` of 66 s are more than 65536 open"),
    ],
)
def test_a_pace_that_cannot_be_kept_is_refused(pace: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Pace(**{"rate": 1.0, "duration": 1.0, "timeout": 1.0} | pace)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("pace", [(FASTEST, 1.0, 0.5), (REMEMBERED / 60, math.inf, 60.0), (1 / 86_400, 1.0, 3600.0)])
def test_the_limits_themselves_are_legal(pace: tuple[float, float, float]) -> None:
    assert Pace(*pace).requests >= 1
