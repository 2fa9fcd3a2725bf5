"""The public conformance suite over every plugin that is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ocad.host import PLUGIN_GROUP
from ocad.testing import check_plugin
from ocad.testing.conformance import CHECKS
from ocad.testing.series import SPIKES, write_incidents, write_series

_PLUGINS = sorted(entry.name for entry in entry_points(group=PLUGIN_GROUP))


@pytest.mark.parametrize("name", _PLUGINS)
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


def test_the_series_with_incidents_has_every_kind_in_the_rows_for_tuning_and_for_test(tmp_path: Path) -> None:
    first, second = (pd.read_parquet(write_incidents(tmp_path / f"{name}.parquet")) for name in ("first", "second"))
    pd.testing.assert_frame_equal(first, second)
    cell = first[first["endpoint"] == "cell-a"].reset_index(drop=True)
    validation, test = cell.iloc[936:1404], cell.iloc[1404:]
    for part in (validation, test):
        assert set(part["kind"]) == {"", "spike", "shift", "loss"}
        assert (part["kind"] != "").eq(part["label"] == 1).all()
    assert cell.iloc[:936]["label"].sum() == 0
    assert cell.loc[cell["kind"] == "loss", "udp_echo"].isna().all()
    assert first["label"].mean() < 0.1


FAULTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "pieces and points differ": ("raw_point", lambda self, endpoint, time_us, values: 1.0),
    "a score is not finite": ("score_point", lambda self, endpoint, time_us, values: np.nan),
    "incidents score above": ("raw_series", lambda self, endpoint, times, values: times % 1_000_003 / 1e6),
    "the state is no JSON": ("state", lambda self: {1: 2}),
    "rows without any value are no alarm": ("score", lambda self, frame: np.zeros(len(frame))),
    "is scored lower than": ("raw_series", lambda self, endpoint, times, values: 1e6 - np.nan_to_num(values[:, 0])),
}


@pytest.mark.parametrize("complaint", FAULTS)
def test_a_detector_with_a_fault_fails(complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ocad_rule_based.detector import RuleDetector

    monkeypatch.setenv("OCAD_HOME", str(tmp_path))
    monkeypatch.setattr(RuleDetector, *FAULTS[complaint])
    findings = check_plugin("rule_based", folder=tmp_path / "check")
    assert any(complaint in finding.detail for finding in findings if finding.verdict == "failed")
