"""What docs/serving.md and the files beside it say: flags, series and paths are the server's, promtool accepts the rules."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.serving.servers import Server, tensor

from ocad.serving import find_server

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "serving.md"
FOLDER = ROOT / "docs" / "serving"


def section(title: str) -> str:
    """The text under a heading of the page."""
    return PAGE.read_text("utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]


def series(server: Server) -> set[str]:
    """The names of all series, once a request was answered and another refused."""
    server.infer("scale", [tensor("x", "FP32", [[1.0, 2.0]])])
    server.infer("absent", [])
    return set(re.findall(r"^# TYPE (\w+)", server.get("/metrics").body.decode(), re.MULTILINE))


def rules() -> list[tuple[Path, Any]]:
    """Every file of rules with its content."""
    loaded = [(path, yaml.safe_load(path.read_text("utf-8"))) for path in sorted(FOLDER.glob("*.yml"))]
    return [(path, content) for path, content in loaded if "groups" in content]


def test_every_flag_is_in_the_table_and_the_other_way_round() -> None:
    shown = subprocess.run([str(find_server()), "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", shown, re.MULTILINE)) - {"--help", "--version"}
    first_cells = re.findall(r"^\| (`--.*?) \|", section("Flags"), re.MULTILINE)
    assert set(re.findall(r"--[a-z-]+", " ".join(first_cells))) == flags


def test_the_defaults_of_the_table_are_the_servers() -> None:
    shown = subprocess.run([str(find_server()), "--help"], capture_output=True, text=True, check=True).stdout
    given = dict(re.findall(r"(--[a-z-]+) <.*?\[default: ([^\]]+)\]", re.sub(r"\n {10,}", " ", shown)))
    table = dict(re.findall(r"^\| `(--[a-z-]+)[^`]*` \| `?([\w.:]+)`? \|", section("Flags"), re.MULTILINE))
    numbers = {flag: value for flag, value in table.items() if value.isdigit()}
    assert len(numbers) >= 10
    assert {flag: float(value) for flag, value in numbers.items()} == {flag: float(given[flag]) for flag in numbers}


def test_every_series_is_in_the_table(server: Server) -> None:
    described = set(re.findall(r"`(ocad_server_\w+)`", section("Operating it")))
    assert described == series(server)


def test_every_path_is_in_the_table(server: Server) -> None:
    table = section("Endpoints")
    for path in server.get("/openapi.json").json()["paths"]:
        stem = path.replace("{name}", "NAME").replace("/versions/{version}", "[/versions/X]")
        last = stem.rpartition("/")[2]
        assert (
            stem in table or f"…/{last}" in table or f"{stem.partition('NAME')[0]}NAME[/versions/X]/{last}" in table
        ), path


def test_rules_ask_for_series_that_the_server_has(server: Server) -> None:
    asked = [rule["expr"] for _, content in rules() for group in content["groups"] for rule in group["rules"]]
    names = {
        re.sub(r"_(bucket|sum|count)$", "", name) for text in asked for name in re.findall(r"\bocad_server_\w+", text)
    }
    assert names
    assert names <= series(server)


@pytest.mark.slow
def test_promtool_accepts_the_rules_and_the_scrape(tmp_path: Path) -> None:
    promtool = shutil.which("promtool") or _unpacked(tmp_path)
    assert rules()
    checks = [("rules", path) for path, _ in rules()] + [("config", FOLDER / "prometheus.yml")]
    for kind, path in checks:
        checked = subprocess.run(
            [promtool, "check", kind, str(path)], capture_output=True, text=True, timeout=600, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def _unpacked(folder: Path) -> str:
    """promtool of Debian's package, unpacked and not installed."""
    for command in (["apt-get", "download", "-q", "prometheus"], ["sh", "-c", "dpkg-deb -x prometheus_*.deb ."]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"promtool is not installed and cannot be fetched: {done.stderr[-300:]}"
    return str(folder / "usr" / "bin" / "promtool")
