"""The report: whole, self-contained, and drawn by a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.conftest import lacking
from tests.monitoring.conftest import session_of

from ocad.detection.incidents import Incident
from ocad.errors import DataError
from ocad.monitoring import detect_data
from ocad.report import write_report
from ocad.report.charts import Timeline
from ocad.report.tables import MOST_INCIDENTS, incidents

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
        lacking("no chromium here: install the package `chromium`")
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
    assert "nothing was measured" in everything_lost.svg()


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        (7.0, ["01-02", "00:00:01"]),
        (900.0, ["01-02", "00:02"]),
        (86_400.0 * 2, ["01-02", "06:00", "12:00", "18:00", "01-03"]),
        (86_400.0 * 365, ["03-08", "06-06"]),
    ],
)
def test_ticks_are_round_times_few_enough_to_read(seconds: float, ticks: list[str]) -> None:
    begin = 1_767_312_000  # 2026-01-02T00:00:00Z
    drawn = re.findall(r'text-anchor="middle">([^<]+)<', Timeline(np.array([begin, begin + seconds])).svg())
    assert len(drawn) <= 11
    assert drawn[: len(ticks)] == ticks


def test_a_link_that_is_down_throughout_is_told_and_drawn(folder: Path) -> None:
    session = session_of(folder)
    rows = pd.read_parquet(folder / "rows.parquet").drop(columns="label")
    rows = rows[rows["endpoint"] == "north"].head(300).assign(lbm=np.nan, ccm=1.0)
    rows.to_parquet(folder / "down.parquet", index=False)
    version = session.registry.resolve("composite-links@1.0.0")
    findings = detect_data(version, session, str(folder / "down.parquet"))
    assert [incident.kind for incident in findings.detection.incidents] == ["loss"]
    write_report(findings, version, folder / "down.html")
    text = (folder / "down.html").read_text(encoding="utf-8")
    assert "nothing was measured" in text
    assert "lost or missing" in text
    assert "300 rows of 1 endpoint from" in text


def test_a_quiet_file_has_no_incidents(folder: Path) -> None:
    session = session_of(folder)
    rows = pd.read_parquet(folder / "rows.parquet").drop(columns="label").head(30)
    rows.to_parquet(folder / "quiet.parquet", index=False)
    version = session.registry.resolve("rule_based-links@1.0.0")
    write_report(detect_data(version, session, str(folder / "quiet.parquet")), version, folder / "quiet.html")
    text = (folder / "quiet.html").read_text(encoding="utf-8")
    assert "<h2>Incidents</h2><p>None.</p>" in text
    assert "side by side" not in text


def test_of_very_many_incidents_the_worst_are_listed() -> None:
    many = [
        Incident(f"{index:016x}", "north", ("lbm",), index, index, "spike", index / 1000, {}, {}, 1)
        for index in range(MOST_INCIDENTS + 7)
    ]
    text = incidents(many)
    assert text.count("<tr>") == MOST_INCIDENTS + 1
    assert "7 with lower scores are not listed" in text
    assert "<td>0.006</td>" not in text
    assert "<td>0.007</td>" in text
