"""A store that cannot be written: detection goes on, what waits is bounded, and all is stored when it works again."""

from __future__ import annotations

import json
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.needs import mount_namespace

from ocad.detection.alerts import AlertStore, StoreError

from .conftest import ManagerMaker, at, incident

HERE = Path(__file__).parent
Told = Callable[[], list[dict[str, Any]]]


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """No file of this process can grow beyond what the store has now: writes fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(file.stat().st_size for file in folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(folder: Path) -> None:
    """Fills what is free inside the log, so that the next write must grow it."""
    store = AlertStore(folder)
    store.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()


def test_incidents_wait_in_memory_while_the_disk_is_full(make_manager: ManagerMaker, folder: Path, told: Told) -> None:
    warnings: list[str] = []
    manager = make_manager(options={"warn": warnings.append}, group_wait_s=0, hold_down_s=1)
    manager.observe(incident("a", 0))
    fill(folder)
    with full_disk(folder):
        for second in range(1, 400):
            manager.observe(incident(f"b{second}", second))
        waiting = manager.waiting
        manager.observe(incident("a", 0, 400))
    assert waiting > 100
    assert manager.dropped == 0
    assert len(warnings) == 1, "told once, not for every row"
    assert warnings[0].startswith(f"cannot use `{folder}/alerts.db` (")
    assert "; incidents wait in memory: " in warnings[0]
    manager.tick(at(461))
    assert manager.waiting == 0
    endpoints = {alert["endpoint"] for notice in told() for alert in notice["alerts"]}
    assert endpoints == {"a", *(f"b{second}" for second in range(1, 400))}


def test_what_waits_in_memory_is_bounded_and_the_rest_counted(make_manager: ManagerMaker, folder: Path) -> None:
    warnings: list[str] = []
    manager = make_manager(options={"warn": warnings.append}, memory_incidents=20)
    fill(folder)
    with full_disk(folder):
        for second in range(500):
            manager.observe(incident(f"b{second}", second))
        assert manager.waiting == 20
        lost = manager.dropped
        assert lost > 300
    manager.close()
    assert warnings[-1] == f"{lost} incidents could not be stored in `{folder}/alerts.db`"


def test_a_disk_that_is_full_at_the_end_is_told(make_manager: ManagerMaker, folder: Path) -> None:
    warnings: list[str] = []
    manager = make_manager(options={"warn": warnings.append})
    fill(folder)
    with full_disk(folder):
        for second in range(100):
            manager.observe(incident(f"b{second}", second))
        waiting = manager.waiting
        manager.close()
    assert waiting > 0
    assert warnings[-1] == f"{waiting} incidents could not be stored in `{folder}/alerts.db`"


def sender(folder: Path, count: int, *limit: str, mounted: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "sender.py"), str(folder / "alerts"), str(count), "", *limit]
    if mounted:
        command = [
            *mount_namespace(),
            "sh",
            "-c",
            'mount -t tmpfs -o size=300k tmpfs "$0" && exec "$@"',
            str(folder),
            *command,
        ]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("mounted", [pytest.param(True, marks=pytest.mark.needs("mounts")), False])
def test_a_detection_ends_well_on_a_full_disk(tmp_path: Path, mounted: bool) -> None:
    """On a tmpfs of 300 KiB, and where no file may grow beyond 100 kB."""
    done = sender(tmp_path, 300, *(["0", "1"] if mounted else ["100000", "1"]), mounted=mounted)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["detected"] == 300
    assert 0 < answer["waiting"] <= 50
    lines = done.stderr.splitlines()
    assert any("incidents wait in memory" in line for line in lines)
    missing = answer["waiting"] + answer["dropped"]
    assert f"{missing} incidents could not be stored in `{tmp_path}/alerts/alerts.db`" in lines
    assert "Traceback" not in done.stderr


def test_after_the_full_disk_a_new_run_tells_what_was_missing(tmp_path: Path) -> None:
    assert json.loads(sender(tmp_path, 40, "100000", "1").stdout)["waiting"] > 0
    done = sender(tmp_path, 40)
    assert json.loads(done.stdout) == {"detected": 40, "waiting": 0, "dropped": 0}
    lines = (tmp_path / "alerts" / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    assert len({body["key"] for body in told}) == len(told) == 80


def damaged(folder: Path) -> None:
    (folder / "alerts.db").write_bytes(b"not a store at all" * 1000)


def newer(folder: Path) -> None:
    AlertStore(folder).close()
    with sqlite3.connect(folder / "alerts.db") as connection:
        connection.execute("PRAGMA user_version=3")
    connection.close()


def a_folder(folder: Path) -> None:
    (folder / "alerts.db").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (damaged, "cannot use `{path}` (file is not a database)", "it is no store of alerts; move it away"),
        (newer, "`{path}` has format 3, newer than this ocad", "upgrade ocad"),
        (a_folder, "cannot use `{path}` (unable to open database file)", "check its permissions and disk space"),
    ],
)
def test_a_store_that_is_none(tmp_path: Path, spoil: Callable[[Path], None], message: str, hint: str) -> None:
    spoil(tmp_path)
    with pytest.raises(StoreError) as caught:
        AlertStore(tmp_path)
    assert (caught.value.message, caught.value.hint) == (message.format(path=tmp_path / "alerts.db"), hint)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "alerts").write_text("")
    with pytest.raises(StoreError) as caught:
        AlertStore(tmp_path / "alerts")
    assert caught.value.message == f"cannot keep alerts in `{tmp_path}/alerts` (file exists)"


def test_many_open_a_new_store_at_once(tmp_path: Path) -> None:
    program = "import sys; from ocad.detection.alerts.store import AlertStore; AlertStore(sys.argv[1]).close()"
    started = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(600) for process in started] == [0] * 4


def test_a_committed_notification_is_synced(tmp_path: Path) -> None:
    """`synchronous` FULL, so that a power cut takes back nothing that was committed."""
    store = AlertStore(tmp_path)
    assert store.rows("PRAGMA synchronous")[0][0] == 2
    assert store.rows("PRAGMA journal_mode")[0][0] == "wal"
    store.close()
