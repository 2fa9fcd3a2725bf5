"""The report: whole, self-contained, and drawn by a real browser."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.monitoring.conftest import session_of
from tests.needs import program

from ocad.detection.incidents import Incident
from ocad.errors import DataError
from ocad.monitoring import detect_data
from ocad.report import write_report
from ocad.report.charts import WIDE, Timeline
from ocad.report.page import STYLE, render
from ocad.report.settings import Goal, ReportSettings, report_settings
from ocad.report.tables import MOST_INCIDENTS, goals, incidents


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    session = session_of(folder)
    version = session.registry.resolve("composite-links@1.0.0")
    path = folder / "reports" / "detection.html"
    write_report(detect_data(version, session, str(folder / "rows.parquet")), version, path)
    return path


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
    assert not re.search(r"(?:src|href)=|url\(|https?://|@import|fetch\(|XMLHttp", text)
    assert "default-src 'none'" in text
    for heading in (
        "Summary",
        "Goals",
        "Links",
        "Rules and trained detectors side by side",
        "Timelines",
        "Incidents",
        "Weights",
        "Data",
    ):
        assert f"<h2>{heading}</h2>" in text
    assert text.count('<figure class="timeline">') == 2
    assert text.count('class="level"') == 2
    assert {"fitted on these rows", "calibrated on these rows"} <= set(re.findall(r"<title>([^<]+)</title>", text))
    assert "rule_based-links" in text
    assert "endpoints never seen in training" in text


@pytest.mark.needs("chromium")
def test_a_browser_draws_it(report: Path, tmp_path: Path) -> None:
    chromium, shot = str(program("chromium")), tmp_path / "report.png"
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    asked = [chromium, *options, "--window-size=1200,1600", f"--screenshot={shot}", report.as_uri()]
    subprocess.run(asked, capture_output=True, check=True, timeout=600)
    from matplotlib.image import imread

    pixels = imread(shot)[..., :3]
    assert pixels.shape[:2] == (1600, 1200)
    red = (pixels[..., 0] > 0.7) & (pixels[..., 1] < 0.3) & (pixels[..., 2] < 0.35)
    blue = (pixels[..., 2] > 0.8) & (pixels[..., 0] < 0.5)
    assert red.sum() > 200
    assert blue.sum() > 500
    text = subprocess.run(
        [chromium, *options, "--dump-dom", report.as_uri()], capture_output=True, check=True, timeout=600
    )
    assert b"Incidents found by composite-links@1.0.0" in text.stdout


@pytest.mark.needs("chromium")
def test_a_reader_zooms_and_reads_values(report: Path, tmp_path: Path) -> None:
    """A script of the test's own turns the wheel over the first chart and tells what a reader then sees."""
    ask = """
      <script>
      const plot = document.querySelector("svg.plot"), edge = plot.getBoundingClientRect();
      const at = (share) => ({ clientX: edge.x + share * edge.width, clientY: edge.y + 9, bubbles: true, cancelable: true });
      for (let turn = 0; turn < 8; turn++) plot.dispatchEvent(new WheelEvent("wheel", { deltaY: -1, ...at(0.5) }));
      plot.dispatchEvent(new PointerEvent("pointermove", at(0.5)));
      const told = { box: plot.getAttribute("viewBox"), output: document.querySelector("output").value,
                     axis: document.querySelector("g.axis").textContent };
      plot.dispatchEvent(new MouseEvent("dblclick", at(0.5)));
      document.body.dataset.told = JSON.stringify({ ...told, back: plot.getAttribute("viewBox") });
      </script></body>"""
    page = tmp_path / "asked.html"
    text = re.sub(r"script-src '[^']+'", "script-src 'unsafe-inline'", report.read_text(encoding="utf-8"))
    page.write_text(text.replace("</body>", ask), encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    asked = [str(program("chromium")), *options, "--dump-dom", page.as_uri()]
    dom = subprocess.run(asked, capture_output=True, check=True, timeout=120).stdout.decode()
    told = json.loads(unescape(re.search(r'data-told="([^"]+)"', dom).group(1)))  # type: ignore[union-attr]
    begin, _, width, _ = map(float, told["box"].split())
    assert width == pytest.approx(WIDE * 0.7**8, rel=1e-6)
    assert begin == pytest.approx((WIDE - width) / 2, rel=0.01)
    assert "from 2026-01-02 00:1" in told["axis"]
    assert "2026-01-02 00:12:" in told["output"]
    assert re.search(r"lbm \(µs\) \d", told["output"])
    assert told["back"].startswith(f"0 0 {WIDE} ")


def test_the_pages_own_script_is_the_only_one_that_may_run(folder: Path, report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    allowed = re.findall(r"script-src ([^;\"]+)", text)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert allowed == [f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"]


@pytest.mark.parametrize(
    "name", ["</script><script>alert(1)</script>", '"><img onerror=alert(1)>', "a & b <i>", "\u2028'"]
)
def test_a_name_is_text_wherever_it_stands(name: str, folder: Path) -> None:
    session = session_of(folder)
    rows = pd.read_parquet(folder / "rows.parquet")
    rows = rows[rows["endpoint"] == "north"].head(400).assign(endpoint=name)
    rows.to_parquet(folder / "named.parquet", index=False)
    version = session.registry.resolve("rule_based-links@1.0.0")
    text = render(detect_data(version, session, str(folder / "named.parquet")), version)
    Balanced().feed(text)
    assert len(re.findall(r"<script", text)) == 2, "the chart's data and the page's own"
    assert escape(name) in text
    assert "<img" not in text
    [data] = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    told = json.loads(data)
    assert len(told["x"]) == len(told["series"][0][1]) == 400
    assert any(name in text for _, _, text in told["incidents"])


def test_goals_come_from_the_configuration_and_ask_for_all_labels(report: Path, folder: Path) -> None:
    assert re.search(r"event precision</td><td>[\d.]+</td><td>&gt; 0.95</td><td><span class=", report.read_text())
    session = session_of(folder)
    version = session.registry.resolve("rule_based-links@1.0.0")
    findings = detect_data(version, session, str(folder / "rows.parquet"))
    strict = ReportSettings.model_validate({"goals": {"event_recall": {"above": 1}, "point_fpr": {"below": 1}}})
    text = goals(findings, strict)
    assert re.search(r"event recall</td><td>[^<]+</td><td>&gt; 1</td><td><span class=.missed.", text)
    assert re.search(r"point fpr</td><td>[^<]+</td><td>&lt; 1</td><td><span class=.met.", text)
    assert re.search(r"event f1</td><td>[^<]+</td><td>-</td>", text)
    some = replace(findings, quality=replace(findings.quality, unlabelled=7))
    assert "event" not in goals(some, strict)
    assert "7 rows have no label" in goals(some, strict)


def test_goals_of_the_committed_file_are_the_defaults() -> None:
    assert report_settings() == ReportSettings()
    with pytest.raises(ValueError, match="either"):
        Goal(above=1, below=0)


def test_short_incidents_are_wide_enough_to_see_and_drawn_through_all_panels() -> None:
    chart = Timeline(np.arange(100_000.0))
    chart.curves("delay", {"lbm": np.ones(100_000)})
    chart.strip("incidents", [(50_000, 50_000, "a spike")], "#cf222e", through=True)
    text = chart.svg()
    assert text.count("<title>a spike</title>") == 2
    assert re.search(r'width="0.0" height="12" fill="#cf222e" stroke="#cf222e" class="block"', text)
    assert 'class="during"' in text
    assert ".block { stroke-width: 3px; }" in STYLE
    assert "vector-effect: non-scaling-stroke" in STYLE


def test_values_under_the_pointer_keep_the_peaks_of_long_series() -> None:
    values = np.ones(200_000)
    values[123_456] = 48_211.6
    chart = Timeline(np.arange(200_000.0))
    chart.curves("delay", {"lbm": values})
    [data] = re.findall(r"json\">(.*?)</script>", chart.figure())
    told = json.loads(data)
    assert len(told["x"]) <= WIDE
    assert max(told["series"][0][1]) == 48_212


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
