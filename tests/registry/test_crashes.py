"""kill -9 at random moments, and the order in which things reach the disk."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ocad_registry import Registry

from .conftest import DraftMaker, Publisher

WRITERS = Path(__file__).with_name("writers.py")


def test_a_hundred_kills_leave_nothing_half_visible_and_lose_nothing_acknowledged(
    tmp_path: Path, make_draft: DraftMaker
) -> None:
    root = tmp_path / "models"
    command = [sys.executable, str(WRITERS), "crash", str(root), "100", "20260101"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    lines = [line for acknowledged in rounds for line in acknowledged]
    published = {line[1] for line in lines if line[0] == "published"}
    promoted = {int(line[1]): line[2] for line in lines if line[0] == "promoted"}
    assert len(rounds) == 100
    assert len(published) + len(promoted) == len(lines) > 20

    registry = Registry(root)
    assert registry.verify() == []
    assert {entry.version for entry in registry.list()} >= published
    history = {entry.number: entry.version for entry in registry.history("m", "production")}
    assert {number: history[number] for number in promoted} == promoted
    assert any((root / ".staging").iterdir()), "no kill ever hit a writer at work"
    assert registry.publish(make_draft("m"), []).version not in published


def trace(root: Path, log: Path, *arguments: str) -> list[str]:
    """The file-system calls below `root` of one writer, as `call path`, in order."""
    calls = "fsync,fdatasync,rename,renameat,renameat2,link,linkat"
    command = ["strace", "-f", "-y", "-s", "4096", "-e", f"trace={calls}", "-o", str(log), sys.executable, str(WRITERS)]
    subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=600)
    steps = []
    for line in log.read_text(encoding="utf-8").splitlines():
        call = re.match(r"\d+ +(\w+)\((.*)\) += 0", line)
        if call is None:
            continue
        paths = re.findall(rf"{re.escape(str(root))}([^>\"]*)", call[2])
        if paths:
            name = re.sub(r"at2?$", "", call[1])
            steps.append(" ".join([name, *(re.sub(r"[0-9a-f]{32}", "UUID", path) or "/" for path in paths)]))
    return steps


@pytest.mark.needs("strace")
def test_publish_syncs_files_then_folder_then_renames_then_syncs_the_parent(tmp_path: Path) -> None:
    root = tmp_path / "models"
    steps = trace(root, tmp_path / "log", "publish", str(root), "2")
    staged = [f"fsync /.staging/UUID{file}" for file in ("/a.bin", "/b.bin", "/metadata.json", "/metadata.sha256", "")]
    assert steps[-7:] == [*staged, "rename /.staging/UUID /m/1.1.0", "fsync /m"]
    first = steps[:-7]
    assert first[-8:] == [*staged, "fsync /", "rename /.staging/UUID /m/1.0.0", "fsync /m"]
    assert first[-11:-8] == ["fsync /.staging/UUID", "link /.staging/UUID/registry.json /registry.json", "fsync /"]


@pytest.mark.needs("strace")
def test_promote_syncs_the_entry_before_it_links_it(tmp_path: Path, registry: Registry, publish: Publisher) -> None:
    publish(name="m")
    steps = trace(Path(registry.root), tmp_path / "log", "promote", registry.root, "m@1.0.0", "2")
    entry = ["fsync /.staging/UUID/{0}", "fsync /.staging/UUID", "link /.staging/UUID/{0} {1}/{0}", "fsync {1}"]
    place = "/m/aliases/production"
    made = ["fsync /m", "fsync /m/aliases"]
    first, second = ([step.format(number, place) for step in entry] for number in ("000001.json", "000002.json"))
    assert steps == [*first[:2], *made, *first[2:], *second]
