"""The public conformance suite over every plugin that is installed."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pandas as pd
import pytest

from ocad.host import PLUGIN_GROUP
from ocad.testing import check_plugin
from ocad.testing.conformance import CHECKS
from ocad.testing.series import SPIKES, write_series


@pytest.mark.parametrize("name", sorted(entry.name for entry in entry_points(group=PLUGIN_GROUP)))
def test_it_keeps_every_promise(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_HOME", str(tmp_path))
    findings = check_plugin(name, folder=tmp_path / "check")
    assert [finding for finding in findings if finding.verdict == "failed"] == []
    assert len(findings) == len(CHECKS)


@pytest.mark.parametrize("name", ["wrong-type", "raises-in-hook"])
def test_a_plugin_that_breaks_its_promises_fails(
    name: str, tmp_path: Path, plugin_site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suite that nothing can fail proves nothing."""
    monkeypatch.syspath_prepend(str(plugin_site))
    findings = {finding.check: finding for finding in check_plugin(name, folder=tmp_path / "check")}
    failed = findings["Data is prepared as parquet splits, twice the same"]
    assert failed.verdict == "failed"
    assert "ocad_prepare_data" in failed.detail


def test_the_series_is_the_same_each_time_and_has_what_breaks_plugins(tmp_path: Path) -> None:
    first, second = (pd.read_parquet(write_series(tmp_path / f"{name}.parquet")) for name in ("first", "second"))
    pd.testing.assert_frame_equal(first, second)
    steps = first.groupby("endpoint")["timestamp"].diff().dt.total_seconds()
    assert first["endpoint"].nunique() == 2
    assert (steps > 3 * steps.median()).sum() == 2
    assert first["udp_echo"].isna().sum() == 8
    assert first["label"].sum() == 2 * len(SPIKES)
