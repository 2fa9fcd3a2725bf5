"""Many processes on one registry: nothing lost, one winner for each number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ocad_registry import Registry

from .conftest import Publisher

WRITERS = Path(__file__).with_name("writers.py")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(WRITERS), *arguments], stdout=subprocess.PIPE, text=True)


def finish(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    outputs = [process.communicate(timeout=600)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def test_eight_processes_publish_twenty_versions_each(tmp_path: Path) -> None:
    root = str(tmp_path / "models")
    published = finish([start("publish", root, "20") for _ in range(8)])
    references = [reference for output in published for reference in output]
    assert len(set(references)) == 160
    registry = Registry(root)
    assert {entry.ref for entry in registry.list()} == set(references)
    assert {reference.partition("@")[2] for reference in references} == {f"1.{minor}.0" for minor in range(160)}
    assert registry.verify() == []
    assert list((tmp_path / "models" / ".staging").iterdir()) == []


def test_racing_promoters_each_win_their_own_number(registry: Registry, publish: Publisher) -> None:
    for _ in range(4):
        publish(name="m")
    outputs = finish([start("promote", registry.root, f"m@1.{minor}.0", "20") for minor in range(4)])
    numbers = {minor: [int(number) for number in output] for minor, output in enumerate(outputs)}
    assert sorted(number for row in numbers.values() for number in row) == list(range(1, 81))
    history = {entry.number: entry.version for entry in registry.history("m", "production")}
    assert history == {number: f"1.{minor}.0" for minor, row in numbers.items() for number in row}
    assert registry.resolve("m@production").version == history[80]


def test_one_of_the_promoters_that_expect_the_same_version_wins(registry: Registry, publish: Publisher) -> None:
    for _ in range(5):
        publish(name="m")
    registry.promote("m@1.4.0", "production")
    outputs = finish([start("promote", registry.root, f"m@1.{minor}.0", "1", "1.4.0") for minor in range(4)])
    assert sorted(outputs) == [["2"], ["expectation-failed"], ["expectation-failed"], ["expectation-failed"]]
