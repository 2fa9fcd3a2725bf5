"""`ocad probe udp-echo` as a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ocad.cli.main import cli
from ocad.cli.probing import Values
from ocad.errors import DataError, UsageError
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
        summary = json.loads(process.communicate(timeout=600)[0])
    rows = pd.read_parquet(out)
    assert process.returncode == 0
    assert 0 < len(rows) == summary["received"]
    assert summary["sent"] < 3000


def test_the_responder_answers_until_ctrl_c() -> None:
    command = [sys.executable, "-m", "ocad", "probe", "udp-echo", "--respond", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[4].rstrip(";")
        result = ocad("probe", "udp-echo", "--target", address, "--rate", "100", "--duration", "0.1", "--timeout", "5")
        process.send_signal(signal.SIGINT)
        answer = json.loads(process.communicate(timeout=600)[0])
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


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".csv": pd.read_csv,
    ".jsonl": lambda path: pd.read_json(path, lines=True),
}


def test_an_endpoint_that_is_no_text_is_refused_before_anything_is_measured() -> None:
    done = CliRunner().invoke(cli, ["probe", "udp-echo", "--target", "127.0.0.1:9", "--endpoint", "cell-\udcff"])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == r"the endpoint's name `cell-\udcff` is no UTF-8: give another `--endpoint`"


@pytest.mark.parametrize("suffix", list(READERS))
def test_a_named_endpoint_fills_a_column(make_peer: MakePeer, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"rtt{suffix}"
    options = ["--rate", "100", "--duration", "0.03", "--timeout", "5", "--endpoint", "du1-ru1", "--out", str(out)]
    assert ocad("probe", "udp-echo", "--target", target_of(make_peer(echo)), *options).returncode == 0
    rows = READERS[suffix](out)
    assert list(rows.columns)[:3] == ["timestamp", "endpoint", "udp_echo"]
    assert rows["endpoint"].tolist() == ["du1-ru1"] * 3
    assert rows["udp_echo"].gt(0).all()


def lose_the_second(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
    if sequence != 1:
        echo(peer, payload, sequence, sender)


def test_rows_stream_to_stdout_while_they_are_measured(make_peer: MakePeer) -> None:
    """The measurement has no end: what is read from it was written while it went on."""
    target = target_of(make_peer(lose_the_second))
    command = [sys.executable, "-m", "ocad", "probe", "udp-echo", "--target", target, "--out", "-"]
    options = ["--rate", "20", "--timeout", "3", "--duration", "inf"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        rows = [json.loads(process.stdout.readline()) for _ in range(12)]
        process.send_signal(signal.SIGINT)
        rest, report = process.communicate(timeout=600)
    assert [list(row) for row in rows] == [["timestamp", "udp_echo"]] * 12
    assert [row["udp_echo"] is None for row in rows] == [False, True, *[False] * 10]
    assert rows == sorted(rows, key=lambda row: str(row["timestamp"]))
    assert all(json.loads(line) for line in rest.splitlines())
    assert report.startswith("sent ")
    assert process.returncode == 0


def test_a_killed_measurement_keeps_its_lines(make_peer: MakePeer, tmp_path: Path) -> None:
    out = tmp_path / "rtt.jsonl"
    started: list[subprocess.Popen[bytes]] = []

    def kill_when_five_stand(peer: Peer, payload: bytes, sequence: int, sender: Address) -> None:
        if out.read_text(encoding="utf-8").count("\n") >= 5:
            started[0].kill()
        echo(peer, payload, sequence, sender)

    target = target_of(make_peer(kill_when_five_stand))
    command = [sys.executable, "-m", "ocad", "probe", "udp-echo", "--target", target, "--rate", "20"]
    with subprocess.Popen([*command, "--timeout", "20", "--out", str(out)]) as process:
        started.append(process)
        assert process.wait(timeout=600) == -signal.SIGKILL
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 5
    assert all(row["udp_echo"] > 0 for row in rows)


def test_a_reader_that_goes_away_ends_the_measurement(make_peer: MakePeer) -> None:
    command = [sys.executable, "-m", "ocad", "probe", "udp-echo", "--target", target_of(make_peer(echo)), "--out", "-"]
    with subprocess.Popen(
        [*command, "--rate", "50", "--duration", "inf"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        message = process.stderr.read()
        code = process.wait(timeout=600)
    assert (code, message) == (1, "error: cannot write `stdout` (Broken pipe): check the reader\n")


def test_a_full_disk_is_named(make_peer: MakePeer, tmp_path: Path) -> None:
    out = tmp_path / "rtt.jsonl"
    out.symlink_to("/dev/full")
    result = ocad("probe", "udp-echo", "--target", target_of(make_peer(echo)), "--rate", "50", "--out", str(out))
    expected = f"error: cannot write `{out}` (No space left on device): check the folder and the free space\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)


def test_a_wrong_call_overwrites_nothing(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text("measured yesterday\n")
    for command in (
        ["udp-echo", "--target", "host"],
        ["ecpri", "--target", "02:00:00:00:00:0x", "--interface", "lo"],
        ["lbm", "--target", "host", "--interface", "lo"],
        ["ccm", "--interface", "eth9"],
        ["ccm", "--interface", "lo", "--report", "0.001"],
    ):
        assert ocad("probe", *command, "--out", str(out)).returncode in (1, 2)
        assert out.read_text() == "measured yesterday\n", command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ecpri"], "`ecpri` needs either `--target` or `--respond`: give one of the two"),
        (["ecpri", "--respond"], "`ecpri --respond` needs `--interface` or `--bind`: give one of the two"),
        (
            ["ecpri", "--target", "127.0.0.1:9", "--rate", "300"],
            "eCPRI tells 256 open requests apart, and 300 a second for 1 s are more: lower `--rate` or `--timeout`",
        ),
        (
            ["ecpri", "--target", "02:00:00:00:00:01"],
            "the target `02:00:00:00:00:01` is a MAC address, and there is no interface: give `--interface`",
        ),
        (
            ["lbm", "--interface", "lo", "--target", "x"],
            "cannot read the MAC address `x`: write it as `02:00:00:00:00:01`",
        ),
        (
            ["ccm", "--send", "--interface", "lo", "--out", "x.csv"],
            "`ccm --send` measures nothing to write to `--out`: leave one of the two out",
        ),
    ],
)
def test_wrong_usage_of_the_other_probes_is_one_line(arguments: list[str], message: str) -> None:
    result = ocad("probe", *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {message}\n")


def test_rows_and_summary_cannot_share_stdout() -> None:
    result = ocad("probe", "udp-echo", "--target", "127.0.0.1:7", "--out", "-", "--json")
    error = {"code": "usage", "message": "`--out -` and `--json` both write to stdout"}
    assert (result.returncode, json.loads(result.stdout)) == (
        2,
        {"error": {**error, "hint": "leave one of the two out"}},
    )


def test_quantiles_of_very_many_values_need_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Values, "KEPT", 1000)
    values = Values()
    for value in range(1_000_000):
        values.add(value)
    quantiles = values.quantiles()
    assert quantiles is not None
    assert len(values._values) <= 1000
    assert quantiles["p50"] == pytest.approx(500_000, rel=0.01)
    assert quantiles["p99"] == pytest.approx(990_000, rel=0.01)


@given(numbers=st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_quantiles_are_those_of_numpy(numbers: list[float]) -> None:
    values = Values()
    for number in numbers:
        values.add(number)
    expected = np.quantile(numbers, [0, 0.5, 0.9, 0.99, 1])
    assert list((values.quantiles() or {}).values()) == pytest.approx(expected.tolist(), abs=1e-3)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "rtt.csv").mkdir()
    with pytest.raises(DataError) as error:
        write_rows(pd.DataFrame({"seq": [0]}), tmp_path / "rtt.csv")
    expected = f"cannot write `{tmp_path / 'rtt.csv'}` ({os.strerror(21)}): check the folder and the free space"
    assert str(error.value) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["rtt.csv"]
