"""`ocad detect --follow` as a process: what idle streams, odd rows, slow readers and full pipes do to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.alerts.receivers import Receiver, receiving, wait_until
from tests.monitoring.conftest import session_of
from tests.monitoring.test_monitoring import lines_of, run

from ocad.catalogue import mapped_reference, stream_source
from ocad.detection.following import Follower, follow
from ocad.monitoring import detect_data, open_watch
from ocad.timeseries.rows import RowReader

REF = "composite-links@1.0.0"
START = datetime(2026, 1, 2, tzinfo=UTC)


def row(second: float, endpoint: str = "north", **values: Any) -> str:
    moment = (START + timedelta(seconds=second)).isoformat()
    return json.dumps({"timestamp": moment, "endpoint": endpoint, "lbm": 200.0, "ccm": 0.0, **values})


@contextmanager
def following(folder: Path, *options: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """The command over the rows that a test writes to its standard input."""
    command = [sys.executable, "-m", "ocad", "detect", REF, "--data", "-", "--follow", "--json", *options]
    registry = ["--registry", str(folder / "models")]
    pipes = {"stdin": subprocess.PIPE, "stdout": stdout, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, *registry], cwd=folder, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def write(process: subprocess.Popen[bytes], *lines: str) -> None:
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in lines).encode())
    process.stdin.flush()


def write_what_is_taken(process: subprocess.Popen[bytes], *lines: str) -> None:
    with suppress(BrokenPipeError):
        write(process, *lines)


def told(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def test_an_idle_stream_tells_of_its_silence_and_sends_what_is_due(folder: Path, tmp_path: Path) -> None:
    """Nothing comes any more, and the input stays open: the wall clock goes on."""
    with receiving(Receiver()) as receiver:
        config = tmp_path / "alerts.yaml"
        config.write_text(f"group_wait_s: 1\nsinks: {{console: null, webhook: {{url: '{receiver.url}'}}}}\n")
        with following(folder, "--alerts", str(tmp_path / "alerts"), "--alert-config", str(config)) as process:
            write(process, *(row(second) for second in range(30)))
            opened = told(process)
            receiver.wait_for(1, 120)
            write(process, row(60))
            closed = told(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0
    assert (opened["news"], opened["kind"], opened["start"]) == ("opened", "silent", "2026-01-02T00:00:29.000000Z")
    assert (closed["news"], closed["id"], closed["end"]) == ("closed", opened["id"], "2026-01-02T00:01:00.000000Z")
    body = receiver.requests[0][2]
    assert (body["kind"], body["endpoint"], body["metrics"]) == ("silent", "north", ["lbm", "ccm"])


def test_the_end_of_the_stream_sends_what_waits(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "alerts.yaml"
    config.write_text("group_wait_s: 3600\nsinks: {jsonl: {}}\n")
    rows = "\n".join(row(second, lbm=None if second >= 300 else 200.0) for second in range(310))
    options = ("--alerts", str(tmp_path / "alerts"), "--alert-config", str(config))
    done = run(folder, REF, "--data", "-", "--follow", *options, rows=rows)
    assert done.returncode == 0, done.stderr
    bodies = [json.loads(line) for line in (tmp_path / "alerts" / "alerts.jsonl").read_text().splitlines()]
    assert [(body["status"], body["endpoint"]) for body in bodies] == [("firing", "north")]


def test_silences_of_a_file_are_incidents_and_a_stream_has_the_same(folder: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(folder / "rows.parquet").drop(columns="label")
    second = rows.groupby("endpoint").cumcount()
    rows = rows[
        ~((rows["endpoint"] == "north") & second.between(700, 760)) & ~((rows["endpoint"] == "south") & (second > 1200))
    ]
    rows.to_parquet(tmp_path / "rows.parquet", index=False)
    session = session_of(folder)
    version = session.registry.resolve(REF)
    found = detect_data(version, session, str(tmp_path / "rows.parquet")).detection
    silent = [(one.endpoint, one.open) for one in found.incidents if one.kind == "silent"]
    assert silent == [("north", False), ("south", True)]
    assert found.counts["incidents"] == len(found.incidents)
    follower = Follower(open_watch(version, session))
    live = {
        result.incident.id: result.incident
        for _, result in follow(lines_of(rows), follower, pytest.fail)
        if result.incident
    }
    assert {one.id: replace(one, severity=None) for one in found.incidents if one.kind == "silent"} == {
        key: one for key, one in live.items() if one.kind == "silent"
    }


ODD = {
    "a day ahead": row(86_400),
    "the year 9999": row(0).replace("2026", "9999"),
    "the year 1": row(0).replace("2026", "0001"),
    "before 1970": row(0).replace("2026", "1969"),
    "a lone surrogate": row(100).replace("north", "cell-\\udcb2"),
    "a name without end": row(100, "n" * 5000),
    "no object": "[1]",
    "nested": "[" * 100_000,
    "many digits": row(100).replace("200.0", "9" * 5000),
    "too large": row(100).replace("200.0", "1" + "0" * 400),
    "a line without end": '{"timestamp": "' + "2" * 3_000_000,
    "no JSON": "\x00\x1b[31m",
    "a list for a name": row(100, endpoint=["a", {"b": 1}]),  # type: ignore[arg-type]
    "no number": row(100, lbm=True),
}


def test_no_odd_row_ends_it_or_is_more_than_one_refused_row(folder: Path, tmp_path: Path) -> None:
    odd = {name: line for name, line in ODD.items() if name != "a list for a name"}
    lines = [row(second) for second in range(20)]
    for number, line in enumerate(odd.values()):
        lines += [line, row(20 + number)]
    done = run(folder, REF, "--data", "-", "--follow", "--alerts", str(tmp_path / "alerts"), rows="\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert f"{20 + len(odd)} rows, {len(odd)} refused" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
def test_an_odd_row_leaves_the_next_ones_as_they_are(folder: Path, line: str) -> None:
    """Nothing of it stays: the link goes on where it was, and no time has passed."""
    session = session_of(folder)
    follower = Follower(open_watch(session.registry.resolve(REF), session))
    list(follow([row(second) for second in range(20)], follower, pytest.fail))
    before = follower.clock.now_us
    results = list(follow([line, row(20)], follower, lambda message: None))
    assert results[-1][0] == before + 1_000_000 if before else False
    assert not any(result.incident for _, result in results)


def test_a_gap_of_the_whole_stream_is_no_row_from_the_future(folder: Path) -> None:
    """A day without rows in a recording: the first row after it is held until the next says that it is true."""
    session = session_of(folder)
    follower = Follower(open_watch(session.registry.resolve(REF), session))
    lines = [row(second, name) for second in (*range(20), *range(86_400, 86_420)) for name in ("north", "south")]
    results = list(follow(lines, follower, pytest.fail))
    assert follower.rows == len(lines)
    ended = {result.incident.endpoint for _, result in results if result.incident and not result.incident.open}
    assert ended == {"north", "south"}


def test_a_clock_that_was_set_back_is_followed_anew(folder: Path) -> None:
    session = session_of(folder)
    follower = Follower(open_watch(session.registry.resolve(REF), session))
    lines = [row(second, name) for second in range(30) for name in ("north", "south")]
    lines += [line for second in range(30, 200) for line in (row(second, "south"), row(second - 10_000, "north"))]
    notes: list[str] = []
    list(follow(lines, follower, notes.append))
    assert "the clock of endpoint `north` was set back: it is followed anew" in notes
    assert 50 < sum(follower.refused.values()) < 70, "those of the first minute"


def test_short_lived_names_do_not_grow_it(folder: Path) -> None:
    session = session_of(folder)
    follower = Follower(open_watch(session.registry.resolve(REF), session), most_endpoints=100)
    notes: list[str] = []
    lines = (row(second / 10, f"job-{second}") for second in range(2000))
    list(follow(lines, follower, notes.append))
    assert follower.rows == 2000
    assert follower.forgotten == 1900
    assert notes == ["more than 100 endpoints: those not heard for longest are forgotten"]
    kept = json.dumps(follower.state())
    assert "job-1999" in kept
    assert "job-1500" not in kept
    assert not any("job-1500" in str(vars(member)) for member in follower.watch.members.values())


def test_refusals_are_counted_by_few_reasons(folder: Path) -> None:
    session = session_of(folder)
    follower = Follower(open_watch(session.registry.resolve(REF), session))
    lines = [row(0, f"a`b{number}", lbm="x") for number in range(500)]
    lines += [json.dumps({"timestamp": "2026-01-02", f"k`{number}": 1}) for number in range(500)]
    assert list(follow(lines, follower, lambda message: None)) == []
    assert len(follower.refused) <= 3
    assert sum(follower.refused.values()) == 1000


def test_a_reader_that_has_stopped_reading_holds_nothing_up(folder: Path, tmp_path: Path) -> None:
    """Neither standard output nor standard error is read; rows go on, alerts arrive, and SIGTERM ends it."""
    with receiving(Receiver()) as receiver:
        config = tmp_path / "alerts.yaml"
        sinks = f"{{console: {{}}, webhook: {{url: '{receiver.url}'}}}}"
        config.write_text(f"group_wait_s: 0\nhold_down_s: 0\ndelivery: {{drain_s: 0.1}}\nsinks: {sinks}\n")
        options = ("--alerts", str(tmp_path / "alerts"), "--alert-config", str(config))
        with following(folder, *options) as process:
            os.set_blocking(process.stdout.fileno(), True)  # type: ignore[union-attr]
            lines = [
                row(second, f"{'x' * 200}-{name}", lbm=None if 30 <= second % 60 < 45 else 200.0)
                for second in range(240)
                for name in range(30)
            ]
            threading.Thread(target=write_what_is_taken, args=(process, *lines), daemon=True).start()
            receiver.wait_for(2, 120)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_metrics_are_answered(folder: Path, tmp_path: Path) -> None:
    with following(folder, "--metrics-port", "0", "--alerts", str(tmp_path / "alerts")) as process:
        assert process.stderr is not None
        write(process, *(row(second, 'no"rth\n\\') for second in range(30)), "nonsense")
        line = next(line for line in process.stderr if line.startswith(b"metrics at "))
        url = line.decode().split()[-1]

        def page() -> str:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())

        wait_until(lambda: 'ocad_incidents_total{kind="silent"} 1' in page())
        shown = page()
    assert "ocad_rows_total 30\n" in shown
    assert 'ocad_rows_refused_total{reason="a line is no JSON"} 1\n' in shown
    assert 'ocad_alerts_queued{sink="console"} ' in shown
    assert 'ocad_last_row_age_seconds{endpoint="no\\"rth\\n\\\\"} ' in shown
    assert {name.split("{")[0].split()[0] for name in shown.splitlines() if not name.startswith("#")} == {
        *("ocad_rows_total", "ocad_rows_refused_total", "ocad_incidents_total", "ocad_incidents_open"),
        *("ocad_alerts_queued", "ocad_stream_lag_seconds", "ocad_endpoints", "ocad_endpoints_forgotten_total"),
        "ocad_last_row_age_seconds",
    }


@pytest.mark.parametrize(
    ("written", "row", "values"),
    [
        ((), {"udp_echo": 5, "ccm": 0.5}, [5.0, 0.5]),
        (("udp_echo=RTT (ms) [ms]",), {"RTT (ms)": 0.4, "ccm": 0}, [400.0, 0.0]),
        (("udp_echo=rtt [s]", "ccm=Loss % [%]"), {"rtt": 0.001, "Loss %": 25}, [1000.0, 0.25]),
        (("udp_echo = rtt",), {"rtt": 7, "ccm": 1}, [7.0, 1.0]),
    ],
)
def test_columns_may_have_other_names_and_units(
    written: tuple[str, ...], row: dict[str, float], values: list[float]
) -> None:
    reference = mapped_reference("-", {"timestamp": "Time", "endpoint": "Link"}, written)
    endpoint, moment, found = RowReader.of(("udp_echo", "ccm"), stream_source(reference)).read(
        {"Time": "2026-01-02T00:00:00Z", "Link": 0, **row}
    )
    assert (endpoint, moment) == ("0", 1_767_312_000_000_000)
    assert found == pytest.approx(values)
