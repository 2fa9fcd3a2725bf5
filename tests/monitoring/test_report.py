"""The report: whole, self-contained, and drawn by a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.monitoring.conftest import session_of

from ocad.errors import DataError
from ocad.monitoring import detect_data
from ocad.report import write_report
from ocad.report.charts import Timeline

RECIPE = Path(__file__).resolve().parents[3] / "shared" / "infra" / "chromium.sh"


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    session = session_of(folder)
    version = session.registry.resolve("composite-links@1.0.0")
    path = folder / "reports" / "detection.html"
    write_report(detect_data(version, session, str(folder / "rows.parquet")), version, path)
    return path


@pytest.fixture(scope="module")
def chromium() -> str:
    """A headless browser: installed, or from the shared recipe; skips where there is neither and none is required."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and RECIPE.is_file():
        made = subprocess.run(["bash", str(RECIPE)], capture_output=True, text=True, check=False)
        found = made.stdout.strip().splitlines()[-1] if made.returncode == 0 else None
    if found is None:
        message = "no chromium here: install the package `chromium`"
        if os.environ.get("OCAD_REQUIRE_SHARED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


class Balanced(HTMLParser):
    """Checks that every tag is closed in order."""

    VOID = frozenset({"meta", "rect", "line", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] in self.VOID and self.open[-1] != tag:
            self.open.pop()
        assert self.open, f"`{tag}` closes nothing"
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_no_network(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    Balanced().feed(text)
    assert not re.search(r"(?:src|href)=|url\(|https?://|<script", text)
    for heading in (
        "Summary",
        "Goals",
        "Rules and trained detectors side by side",
        "Timelines",
        "Incidents",
        "Weights",
        "Data",
    ):
        assert f"<h2>{heading}</h2>" in text
    assert text.count("<svg") == 2
    assert "rule_based-links" in text
    assert "endpoints never seen in training" in text


def test_a_browser_draws_it(report: Path, chromium: str, tmp_path: Path) -> None:
    shot = tmp_path / "report.png"
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    asked = [chromium, *options, "--window-size=1200,1600", f"--screenshot={shot}", report.as_uri()]
    subprocess.run(asked, capture_output=True, check=True, timeout=120)
    from matplotlib.image import imread

    pixels = imread(shot)[..., :3]
    assert pixels.shape[:2] == (1600, 1200)
    red = (pixels[..., 0] > 0.7) & (pixels[..., 1] < 0.3) & (pixels[..., 2] < 0.35)
    blue = (pixels[..., 2] > 0.8) & (pixels[..., 0] < 0.5)
    assert red.sum() > 200
    assert blue.sum() > 500
    text = subprocess.run(
        [chromium, *options, "--dump-dom", report.as_uri()], capture_output=True, check=True, timeout=120
    )
    assert b"Incidents found by composite-links@1.0.0" in text.stdout


def test_a_report_that_cannot_be_written_names_the_place(folder: Path) -> None:
    session = session_of(folder)
    version = session.registry.resolve("rule_based-links@1.0.0")
    findings = detect_data(version, session, str(folder / "rows.parquet"))
    with pytest.raises(DataError, match="choose another `--report`"):
        write_report(findings, version, folder / "rows.parquet" / "report.html")


def test_a_gap_breaks_the_curve_and_lost_rows_draw_nothing() -> None:
    chart = Timeline(np.arange(100.0))
    values = np.ones(100)
    values[40:60] = np.nan
    chart.curves("delay", {"lbm": values})
    (path,) = re.findall(r'<path d="([^"]+)"', chart.svg())
    assert path.startswith("M")
    assert path.count("M") == 2
    everything_lost = Timeline(np.arange(10.0))
    everything_lost.curves("delay", {"lbm": np.full(10, np.nan)}, logarithmic=True)
    assert 'd=""' in everything_lost.svg()
