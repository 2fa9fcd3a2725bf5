"""`ocad probe udp-echo` as a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ocad.errors import DataError
from ocad.probe.channel import Address
from ocad.probe.rows import write_rows

from .conftest import MakePeer, Peer


def ocad(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ocad", *arguments], capture_output=True, text=True, check=False)


def echo(peer: Peer, payload: bytes, _sequence: int, sender: Address) -> None:
    peer.connection.sendto(payload, sender)


def target_of(peer: Peer) -> str:
    return "{}:{}".format(*peer.address)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_measures_into_a_file_and_summarises(make_peer: MakePeer, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"rtt{suffix}"
    target = target_of(make_peer(echo))
    options = ["--rate", "100", "--duration", "0.2", "--timeout", "5", "--out", str(out), "--json"]
    result = ocad("probe", "udp-echo", "--target", target, *options)
    summary = json.loads(result.stdout)
    rows = pd.read_parquet(out) if suffix == ".parquet" else pd.read_csv(out)
    assert (result.returncode, result.stderr) == (0, "")
    assert (summary["sent"], summary["received"], summary["output"]) == (20, 20, str(out))
    assert list(summary["udp_echo_us"]) == ["p0", "p50", "p90", "p99", "p100"]
    assert list(rows.columns) == ["timestamp", "udp_echo", "seq"]
    assert len(rows) == 20
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_ctrl_c_writes_what_was_measured(make_peer: MakePeer, tmp_path: Path) -> None:
    out = tmp_path / "rtt.parquet"
    started: list[subprocess.Popen[str]] = []

    def interrupt_at_ten(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        echo(peer, payload, sequence, sender)
        if sequence == 10:
            started[0].send_signal(signal.SIGINT)

    target = target_of(make_peer(interrupt_at_ten))
    command = [sys.executable, "-m", "ocad", "probe", "udp-echo", "--target", target, "--rate", "50", "--json"]
    with subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, text=True) as process:
        started.append(process)
        summary = json.loads(process.communicate(timeout=60)[0])
    rows = pd.read_parquet(out)
    assert process.returncode == 0
    assert 10 <= len(rows) == summary["received"]
    assert summary["sent"] < 3000


def test_the_responder_answers_until_ctrl_c() -> None:
    command = [sys.executable, "-m", "ocad", "probe", "udp-echo", "--respond", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[4].rstrip(";")
        result = ocad("probe", "udp-echo", "--target", address, "--rate", "100", "--duration", "0.1", "--timeout", "5")
        process.send_signal(signal.SIGINT)
        answer = json.loads(process.communicate(timeout=60)[0])
    assert result.stdout.startswith("sent 10, received 10; round-trip time in µs: p0 ")
    assert (process.returncode, answer) == (0, {"address": address, "echoed": 10})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: `udp-echo` needs either `--target` or `--respond`: give one of the two\n"),
        (
            ["--target", "a:1", "--respond", "2"],
            "error: `udp-echo` needs either `--target` or `--respond`: give one of the two\n",
        ),
        (
            ["--target", "a:1", "--out", "x.txt"],
            "error: cannot tell the format of `x.txt`: end its name in `.parquet`, `.csv` or `.jsonl`\n",
        ),
        (["--target", "a:1", "--out", "no/x.csv"], "error: there is no folder `no` to write to: create it first\n"),
        (["--target", "127.0.0.1:7", "--rate", "-1"], "error: `rate` is -1.0: give a number above 0\n"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    result = ocad("probe", "udp-echo", *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", message)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "rtt.csv").mkdir()
    with pytest.raises(DataError) as error:
        write_rows(pd.DataFrame({"seq": [0]}), tmp_path / "rtt.csv")
    expected = f"cannot write `{tmp_path / 'rtt.csv'}` ({os.strerror(21)}): check the folder and the free space"
    assert str(error.value) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["rtt.csv"]
