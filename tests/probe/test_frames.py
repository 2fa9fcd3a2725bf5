"""Frames against vectors written field by field from the standards, and against bytes that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocad.errors import UsageError
from ocad.probe import ccm, cfm, ecpri, lbm
from ocad.probe.channel import Arrival
from ocad.probe.ethernet import encode_frame, format_mac, parse_mac

from .frames import ASSOCIATION, CCM, LBM, LBR, REQUEST, RESPONSE, TIME_NS

PADDING = bytes(9)
"""Ethernet pads short frames: what follows a message must not matter."""


def test_an_ecpri_request_is_the_standards_bytes() -> None:
    message = ecpri.DelayMessage(0x2A, ecpri.Action.REQUEST, TIME_NS)
    assert message.encode() == REQUEST
    assert ecpri.decode(REQUEST + PADDING) == message


def test_an_ecpri_response_is_the_standards_bytes() -> None:
    # 2.5 ns of compensation, four dummy bytes, seconds beyond 32 bits
    time_ns = (1 << 32 | 7) * 1_000_000_000 + 999_999_999
    message = ecpri.DelayMessage(0xFF, ecpri.Action.RESPONSE, time_ns, 163_840, b"\xde\xad\xbe\xef")
    assert message.encode() == RESPONSE
    assert ecpri.decode(RESPONSE + PADDING) == message


def test_the_delay_is_the_standards_formula() -> None:
    """tD = (t2 - tcv2) - (t1 + tcv1), with compensations in 2^-16 ns (eCPRI V2.0, equation 1)."""
    request = ecpri.DelayMessage(1, ecpri.Action.REQUEST, 5_000_000_000, 300 << 16)
    response = ecpri.DelayMessage(1, ecpri.Action.RESPONSE, 5_000_012_000, (200 << 16) + 32_768)
    assert ecpri.one_way_delay_us(request, response) == pytest.approx(11.4995)


def test_the_c_bit_says_that_another_message_follows() -> None:
    first = ecpri.DelayMessage(0x2A, ecpri.Action.REQUEST, TIME_NS, concatenated=True)
    assert first.encode() == b"\x11" + REQUEST[1:]
    assert ecpri.decode(first.encode() + RESPONSE) == first


@given(
    message=st.builds(
        ecpri.DelayMessage,
        identifier=st.integers(0, 255),
        action=st.sampled_from(ecpri.Action),
        time_ns=st.integers(0, (1 << 48) * 1_000_000_000 - 1),
        compensation=st.integers(-(1 << 63), (1 << 63) - 1),
        dummy=st.binary(max_size=1400),
        concatenated=st.booleans(),
    ),
    padding=st.binary(max_size=30),
)
def test_ecpri_messages_survive_their_bytes(message: ecpri.DelayMessage, padding: bytes) -> None:
    assert ecpri.decode(message.encode() + padding) == message


@pytest.mark.parametrize(
    ("position", "value"),
    [
        pytest.param(0, 0x20, id="another revision"),
        pytest.param(1, 0x02, id="another message type"),
        pytest.param(3, 0x13, id="too short for its fields"),
        pytest.param(3, 0x15, id="longer than what came"),
        pytest.param(5, 0x06, id="an unknown action"),
        pytest.param(12, 0x3C, id="more than a second of nanoseconds"),
    ],
)
def test_what_is_no_delay_message_is_not_read(position: int, value: int) -> None:
    wrong = bytearray(REQUEST)
    wrong[position] = value
    assert ecpri.decode(bytes(wrong)) is None


def test_the_ecpri_responder_gives_back_identifier_and_length_and_its_own_time() -> None:
    request = ecpri.DelayMessage(7, ecpri.Action.REQUEST, 1_000, dummy=bytes(20))
    answer = ecpri.respond(Arrival(request.encode(), b"", TIME_NS))
    assert answer is not None
    assert ecpri.decode(answer) == ecpri.DelayMessage(7, ecpri.Action.RESPONSE, TIME_NS, dummy=bytes(20))
    for action in set(ecpri.Action) - {ecpri.Action.REQUEST, ecpri.Action.REQUEST_WITH_FOLLOW_UP}:
        assert ecpri.respond(Arrival(ecpri.DelayMessage(7, action).encode(), b"", 0)) is None


def test_an_ecpri_identifier_stands_for_its_newest_request() -> None:
    exchange = ecpri.DelayExchange()
    for sequence in range(300):
        exchange.request(sequence)
    answer = ecpri.DelayMessage(290 % 256, ecpri.Action.RESPONSE, 0).encode()
    reply = exchange.match(answer)
    assert reply is not None
    assert reply.sequence == 290


def test_loopback_messages_are_the_standards_bytes() -> None:
    data = bytes.fromhex("01020304")
    assert lbm.encode_loopback(cfm.Opcode.LBM, 5, 42, data) == LBM
    assert lbm.encode_loopback(cfm.Opcode.LBR, 5, 42, data) == LBR
    assert lbm.loopback_answer(5)(Arrival(LBM + PADDING, b"", 0)) == LBR


@pytest.mark.parametrize("wrong", [LBR, LBM[:-1], CCM, b""])
def test_what_is_no_loopback_message_of_the_level_is_not_answered(wrong: bytes) -> None:
    assert lbm.loopback_answer(5)(Arrival(wrong, b"", 0)) is None
    assert lbm.loopback_answer(4)(Arrival(LBM, b"", 0)) is None


def test_a_loopback_reply_must_carry_the_own_data() -> None:
    exchange, other = lbm.LoopbackExchange(0), lbm.LoopbackExchange(0)
    answer = lbm.loopback_answer(0)
    for sequence in (0, 1, 70_000):
        reply = answer(Arrival(exchange.request(sequence), b"", 0))
        assert reply is not None
        matched = exchange.match(reply)
        assert matched is not None
        assert (matched.sequence, matched.value_us) == (sequence, None)
        assert other.match(reply) is None


def test_a_continuity_check_is_the_standards_bytes() -> None:
    check = ccm.Check(7, ASSOCIATION.code, 1, ASSOCIATION.mepid, ASSOCIATION.maid(), remote_defect=True)
    assert check.encode() == CCM
    assert ccm.decode(CCM + PADDING) == check
    assert format_mac(ccm.group_address(7)) == "01:80:c2:00:00:37"


@given(
    check=st.builds(
        ccm.Check,
        level=st.integers(0, 7),
        code=st.integers(0, 7),
        sequence=st.integers(0, 2**32 - 1),
        mepid=st.integers(0, 65_535),
        maid=st.binary(min_size=48, max_size=48),
        remote_defect=st.booleans(),
    )
)
def test_continuity_checks_survive_their_bytes(check: ccm.Check) -> None:
    assert ccm.decode(check.encode()) == check


@given(
    message=st.builds(
        cfm.CfmMessage,
        level=st.integers(0, 7),
        opcode=st.integers(0, 255),
        flags=st.integers(0, 255),
        fields=st.binary(max_size=255),
        tlvs=st.lists(st.builds(cfm.Tlv, st.integers(1, 255), st.binary(max_size=300)), max_size=5).map(tuple),
    ),
    padding=st.binary(max_size=30),
)
def test_cfm_messages_survive_their_bytes(message: cfm.CfmMessage, padding: bytes) -> None:
    assert cfm.decode(message.encode() + padding) == message


def test_a_later_version_of_cfm_is_read_like_the_first() -> None:
    assert cfm.decode(bytes([LBM[0] | 1]) + LBM[1:]) == cfm.decode(LBM)


@given(payload=st.binary(max_size=120), start=st.sampled_from([b"", REQUEST[:5], LBM[:4], CCM[:4], CCM[:12]]))
def test_garbage_is_read_as_nothing_and_never_raises(payload: bytes, start: bytes) -> None:
    arrival = Arrival(start + payload, b"", TIME_NS)
    message = cfm.decode(arrival.payload)
    assert message is None or message.encode()[1:] == arrival.payload[1 : len(message.encode())]
    for reply in (ecpri.respond(arrival), lbm.loopback_answer(5)(arrival)):
        assert reply is None or len(reply) <= len(arrival.payload)
    assert ccm.decode(arrival.payload) is None or message is not None
    assert lbm.LoopbackExchange(5).match(arrival.payload) is None


def test_a_frame_is_padded_to_the_shortest_length() -> None:
    far, near = parse_mac("02:00:00:00:00:02"), parse_mac("02-00-00-00-00-01")
    frame = encode_frame(far, near, cfm.ETHERTYPE, LBM)
    assert frame == bytes.fromhex("020000000002 020000000001 8902") + LBM + bytes(46 - len(LBM))
    assert encode_frame(far, near, cfm.ETHERTYPE, bytes(100))[14:] == bytes(100)


@pytest.mark.parametrize("text", ["", "02:00:00:00:00", "02:00:00:00:00:0g", "020000000001", "02:00:00:00:00:01:02"])
def test_a_bad_mac_address_says_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_mac(text)
    assert str(error.value) == f"cannot read the MAC address `{text}`: write it as `02:00:00:00:00:01`"


def test_an_association_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="the MEPID is 0: give a number from 1 to 8191"):
        ccm.Association(mepid=0)
    with pytest.raises(UsageError, match="do not fit: give both, of at most 44 bytes together"):
        ccm.Association(domain="d" * 22, name="n" * 23)
    assert len(ccm.Association(domain="d" * 22, name="n" * 22).maid()) == ccm.MAID_BYTES
