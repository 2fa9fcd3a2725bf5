"""One frame of each kind, written down from the standards field by field."""

from __future__ import annotations

from ocad.probe.ccm import Association

TIME_NS = 1_700_000_000_123_456_789
ASSOCIATION = Association("10ms", level=7, mepid=8191, domain="ocad", name="link")

REQUEST = bytes.fromhex(
    # eCPRI V2.0, 3.1.3.1: the common header
    "10"  # protocol revision 1 (4 bits), reserved (3), C (1): no other message follows
    "05"  # message type 5: one-way delay measurement
    "0014"  # payload size: 20
    # 3.2.4.6: the payload
    "2a"  # measurement ID
    "00"  # action type 0x00: Request
    "00006553f100"  # time stamp, seconds: 1,700,000,000
    "075bcd15"  # time stamp, nanoseconds: 123,456,789
    "0000000000000000"  # compensation value: 0
)
RESPONSE = bytes.fromhex(
    "10"  # protocol revision 1, C 0
    "05"  # message type 5
    "0018"  # payload size: 24
    "ff"  # measurement ID
    "02"  # action type 0x02: Response
    "000100000007"  # time stamp, seconds: 2^32 + 7
    "3b9ac9ff"  # time stamp, nanoseconds: 999,999,999
    "0000000000028000"  # compensation value: 2.5 ns in units of 2^-16 ns
    "deadbeef"  # dummy bytes
)
LBM = bytes.fromhex(
    # IEEE 802.1Q, 21.4: the common CFM header
    "a0"  # MD level 5 (3 bits), version 0 (5)
    "03"  # opcode 3: LBM
    "00"  # flags
    "04"  # first TLV offset: 4
    # 21.7
    "0000002a"  # loopback transaction identifier: 42
    "03"  # TLV type 3: Data
    "0004"  # TLV length: 4
    "01020304"  # the data
    "00"  # TLV type 0: End
)
LBR = bytes.fromhex(
    "a0"  # MD level 5, version 0
    "02"  # opcode 2: LBR; all else as in the LBM
    "00"
    "04"
    "0000002a"
    "03"
    "0004"
    "01020304"
    "00"
)
CCM = bytes.fromhex(
    "e0"  # MD level 7, version 0
    "01"  # opcode 1: CCM
    "82"  # flags: RDI (1 bit), reserved (4), CCM interval 2: 10 ms (3)
    "46"  # first TLV offset: 70
    # 21.6
    "00000001"  # sequence number: 1
    "1fff"  # MEPID: 8191
    "04"  # MAID: MD name format 4, a character string
    "04"  # MD name length: 4
    "6f636164"  # MD name: "ocad"
    "02"  # short MA name format 2: a character string
    "04"  # short MA name length: 4
    "6c696e6b"  # short MA name: "link"
    + "00"
    * 36  # MAID: zeros up to 48 bytes
    + "00000000"  # ITU-T Y.1731, 9.2: TxFCf
    "00000000"  # RxFCb
    "00000000"  # TxFCb
    "00000000"  # reserved
    "00"  # TLV type 0: End
)
