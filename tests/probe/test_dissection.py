"""Every frame as Wireshark's dissectors read it: their names and values, written by others than us."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from ocad.probe import ccm, cfm, ecpri
from ocad.probe.channel import Arrival
from ocad.probe.ethernet import encode_frame, parse_mac
from ocad.probe.lbm import LoopbackExchange, loopback_answer

from .frames import ASSOCIATION, CCM, LBM, LBR, REQUEST, RESPONSE

NEAR, FAR = parse_mac("02:00:00:00:00:01"), parse_mac("02:00:00:00:00:02")
DLT_EN10MB = 1
"""Ethernet, as the file's link type."""

pytestmark = pytest.mark.needs("tshark")


def write_capture(path: Path, frames: Sequence[bytes]) -> None:
    """A pcap file (version 2.4, microseconds) with one frame per second."""
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, DLT_EN10MB)
    records = (struct.pack("<IIII", i, 0, len(frame), len(frame)) + frame for i, frame in enumerate(frames))
    path.write_bytes(header + b"".join(records))


def dissect(tmp_path: Path, frames: Sequence[bytes], fields: Sequence[str]) -> list[dict[str, str]]:
    """What tshark says about each frame: the named fields, and `problems`, what it finds wrong with it."""
    write_capture(tmp_path / "frames.pcap", frames)
    asked = [*fields, "_ws.expert.message"]
    options = ["-T", "fields", "-E", "separator=|", "-E", "aggregator=,"]
    named = [part for name in asked for part in ("-e", name)]
    command = ["tshark", "-r", str(tmp_path / "frames.pcap"), *options, *named]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    return [dict(zip([*fields, "problems"], line.split("|"), strict=True)) for line in lines]


ECPRI_REQUEST = {
    "eth.type": "0xaefe",
    "ecpri.revision": "1",
    "ecpri.cbit": "0",
    "ecpri.type": "0x05",
    "ecpri.size": "20",
    "ecpri.measurementid": "0x2a",
    "ecpri.actiontype": "0x00",
    "ecpri.sec": "1700000000",
    "ecpri.nanosec": "123456789",
    "ecpri.compval": "0",
}
ECPRI_RESPONSE = {
    "ecpri.size": "24",
    "ecpri.measurementid": "0xff",
    "ecpri.actiontype": "0x02",
    "ecpri.sec": str((1 << 32) + 7),
    "ecpri.nanosec": "999999999",
    "ecpri.compval": "163840",
    "ecpri.data": "de:ad:be:ef",
}
LOOPBACK = {
    "eth.type": "0x8902",
    "eth.dst": "02:00:00:00:00:02",
    "cfm.md.level": "5",
    "cfm.version": "0",
    "cfm.flags": "0x00",
    "cfm.first.tlv.offset": "4",
    "cfm.lb.transaction.id": "42",
    "cfm.tlv.type": "3,0",
    "cfm.tlv.length": "4",
    "cfm.tlv.data.value": "01020304",
}
CONTINUITY = {
    "eth.dst": "01:80:c2:00:00:37",
    "cfm.md.level": "7",
    "cfm.opcode": "1",
    "cfm.flags.rdi": "1",
    "cfm.flags.interval": "2",
    "cfm.first.tlv.offset": "70",
    "cfm.ccm.seq.num": "1",
    "cfm.ccm.ma.ep.id": "8191",
    "cfm.maid.md.name.format": "4",
    "cfm.maid.md.name.string": "ocad",
    "cfm.maid.ma.name.format": "2",
    "cfm.maid.ma.name.string": "link",
    "cfm.itu.txfcf": "00000000",
    "cfm.tlv.type": "0",
}


@pytest.mark.parametrize(
    ("destination", "ethertype", "payload", "expected"),
    [
        pytest.param(FAR, ecpri.ETHERTYPE, REQUEST, ECPRI_REQUEST, id="ecpri request"),
        pytest.param(FAR, ecpri.ETHERTYPE, RESPONSE, ECPRI_RESPONSE, id="ecpri response"),
        pytest.param(FAR, cfm.ETHERTYPE, LBM, {**LOOPBACK, "cfm.opcode": "3"}, id="lbm"),
        pytest.param(FAR, cfm.ETHERTYPE, LBR, {**LOOPBACK, "cfm.opcode": "2"}, id="lbr"),
        pytest.param(ccm.group_address(7), cfm.ETHERTYPE, CCM, CONTINUITY, id="ccm"),
    ],
)
def test_a_frame_is_dissected_as_what_it_is(
    tmp_path: Path, destination: bytes, ethertype: int, payload: bytes, expected: dict[str, str]
) -> None:
    seen = dissect(tmp_path, [encode_frame(destination, NEAR, ethertype, payload)], list(expected))
    assert seen == [{**expected, "problems": ""}]


def test_what_the_probes_send_raises_no_finding(tmp_path: Path) -> None:
    request, loopback = ecpri.DelayExchange().request(3), LoopbackExchange(2).request(0)
    response, reply = ecpri.respond(Arrival(request, b"", 1)), loopback_answer(2)(Arrival(loopback, b"", 0))
    assert response
    assert reply
    check = ccm.Check(0, ASSOCIATION.code, 9, 1, ccm.Association().maid()).encode()
    frames = [encode_frame(FAR, NEAR, ecpri.ETHERTYPE, payload) for payload in (request, response)]
    frames += [encode_frame(FAR, NEAR, cfm.ETHERTYPE, payload) for payload in (loopback, reply, check)]
    types = ["0xaefe", "0xaefe", "0x8902", "0x8902", "0x8902"]
    assert dissect(tmp_path, frames, ["eth.type"]) == [{"eth.type": kind, "problems": ""} for kind in types]
