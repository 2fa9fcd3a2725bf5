"""Incidents put into series: where, how large, how many, and that nothing else changes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad.cli.data import data as data_command
from ocad.detection.inject import GUARD, KINDS, LENGTHS, InjectedIncident, Injection, inject, local_noise
from ocad.errors import DataError, UsageError

START = pd.Timestamp("2026-01-01", tz="UTC")


def a_frame(rows: int = 2000, endpoints: tuple[str, ...] = ("a", "b"), seed: int = 0) -> pd.DataFrame:
    """Two metrics of noise 1 and 10 about a level, a row a second, in the order of `read_frame`."""
    generator = np.random.default_rng(seed)
    parts = [
        pd.DataFrame(
            {
                "timestamp": START + pd.to_timedelta(np.arange(rows), unit="s"),
                "endpoint": endpoint,
                "udp_echo": 100 + generator.standard_normal(rows),
                "ecpri": 500 + 10 * generator.standard_normal(rows),
            }
        )
        for endpoint in endpoints
    ]
    return pd.concat(parts, ignore_index=True)


def of_kind(kind: str, **options: Any) -> tuple[pd.DataFrame, pd.DataFrame, list[InjectedIncident]]:
    frame = a_frame()
    return frame, *inject(frame, ["udp_echo"], Injection(kinds=(kind,), **options))


injections = st.builds(
    Injection,
    magnitude=st.floats(0.5, 50),
    prevalence=st.floats(0.06, 0.10),
    seed=st.integers(0, 2**32),
    kinds=st.sets(st.sampled_from(KINDS), min_size=1).map(lambda kinds: tuple(sorted(kinds))),
    correlated=st.booleans(),
    clean=st.floats(0, 0.4),
    direction=st.sampled_from(["up", "both"]),
)


@settings(max_examples=40, deadline=None)
@given(how=injections, rows=st.integers(1200, 3000))
def test_bounds_hold_for_every_setting(how: Injection, rows: int) -> None:
    frame = a_frame(rows)
    result, incidents = inject(frame, ["udp_echo", "ecpri"], how)
    for endpoint, part in result.groupby("endpoint"):
        mine = [incident for incident in incidents if incident.endpoint == endpoint]
        touched = np.zeros(rows, dtype=bool)
        for incident in mine:
            touched[incident.start : incident.end + 1] = True
        clean = int(np.ceil(how.clean * rows))
        assert touched.sum() <= how.prevalence * (rows - clean)
        assert not touched[: clean + GUARD].any()
        assert np.array_equal(part["label"].to_numpy(dtype=bool), touched)
        assert all(after.start - before.end > GUARD for before, after in pairwise(mine))
        assert all(
            LENGTHS[incident.kind][0] <= incident.end - incident.start + 1 <= LENGTHS[incident.kind][1]
            for incident in mine
        )


@settings(max_examples=20, deadline=None)
@given(how=injections)
def test_rows_outside_incidents_keep_their_bits(how: Injection) -> None:
    frame = a_frame()
    before = frame.copy(deep=True)
    result, _ = inject(frame, ["udp_echo", "ecpri"], how)
    pd.testing.assert_frame_equal(frame, before)
    untouched = result["label"] == 0
    for metric in ("udp_echo", "ecpri"):
        old, new = (table.loc[untouched, metric].to_numpy().view(np.int64) for table in (frame, result))
        assert np.array_equal(old, new)
    assert (result.loc[untouched, "kind"] == "").all()
    assert set(result.loc[~untouched, "kind"]) <= set(how.kinds)


def test_an_endpoint_gets_the_same_incidents_whatever_stands_beside_it() -> None:
    both, alone = a_frame(), a_frame().query("endpoint == 'a'").reset_index(drop=True)
    how = Injection()
    of_both, of_one = (inject(frame, ["udp_echo", "ecpri"], how)[1] for frame in (both, alone))
    assert [incident for incident in of_both if incident.endpoint == "a"] == of_one
    places = {(incident.endpoint, incident.start) for incident in of_both}
    assert places != {(incident.endpoint, incident.start) for incident in inject(both, ["ecpri"], Injection(seed=8))[1]}


def test_a_larger_magnitude_changes_sizes_and_not_places() -> None:
    small, large = (inject(a_frame(), ["udp_echo"], Injection(magnitude=size))[1] for size in (3, 12))
    assert [(item.kind, item.start, item.end) for item in small] == [
        (item.kind, item.start, item.end) for item in large
    ]
    for one, other in zip(small, large, strict=True):
        assert other.sizes == pytest.approx({metric: 4 * size for metric, size in one.sizes.items()})


@pytest.mark.parametrize("kind", ["spike", "shift"])
def test_spike_and_shift_add_their_size_to_every_row(kind: str) -> None:
    frame, result, incidents = of_kind(kind, magnitude=6.0)
    for incident in incidents:
        rows = (frame["endpoint"] == incident.endpoint).to_numpy().nonzero()[0][incident.start : incident.end + 1]
        added = result["udp_echo"].to_numpy()[rows] - frame["udp_echo"].to_numpy()[rows]
        np.testing.assert_allclose(added, incident.sizes["udp_echo"])
        assert 4.5 < incident.sizes["udp_echo"] < 7.5


def test_drift_climbs_in_equal_steps_to_its_size() -> None:
    frame, result, incidents = of_kind("drift")
    rows = slice(incidents[0].start, incidents[0].end + 1)
    added = (result["udp_echo"] - frame["udp_echo"]).to_numpy()[rows]
    np.testing.assert_allclose(added[-1], incidents[0].sizes["udp_echo"])
    np.testing.assert_allclose(np.diff(added), added[0], atol=1e-9)


def test_jitter_only_delays_upwards_and_swings_about_zero_in_both_directions() -> None:
    for direction, least in (("up", 0.0), ("both", -np.inf)):
        frame, result, _ = of_kind("jitter", direction=direction, prevalence=0.1)
        added = (result["udp_echo"] - frame["udp_echo"]).to_numpy()[result["label"] == 1]
        assert added.min() >= least
        assert (added.min() < -6) == (direction == "both")
        assert 4.5 < np.sqrt(np.mean(added**2)) < 7.5


def test_loss_is_missing_values_and_has_no_size() -> None:
    _, result, incidents = of_kind("loss")
    assert result["udp_echo"].isna().equals(result["label"] == 1)
    assert result["ecpri"].notna().all()
    assert all(incident.sizes == {} for incident in incidents)


def test_correlated_incidents_hit_all_metrics_each_by_its_own_noise() -> None:
    frame = a_frame()
    result, incidents = inject(frame, ["udp_echo", "ecpri"], Injection(correlated=True, kinds=("shift",)))
    assert {incident.metrics for incident in incidents} == {("udp_echo", "ecpri")}
    assert all(5 < incident.sizes["ecpri"] / incident.sizes["udp_echo"] < 20 for incident in incidents)
    echo, ecpri = ((result[metric] != frame[metric]).to_numpy() for metric in ("udp_echo", "ecpri"))
    assert np.array_equal(echo, ecpri)


def test_uncorrelated_incidents_hit_one_metric_each_and_every_one_at_times() -> None:
    _, incidents = inject(a_frame(), ["udp_echo", "ecpri"], Injection(prevalence=0.1))
    assert {incident.metrics for incident in incidents} == {("udp_echo",), ("ecpri",)}


def test_local_noise_is_the_deviation_of_normal_noise_and_blind_to_level_trend_and_spikes() -> None:
    noise = np.random.default_rng(3).standard_normal(1000) * 5
    trend = noise + np.linspace(0, 100, 1000)
    spiky = np.where(np.arange(1000) % 25 == 0, noise + 1e4, noise)
    for values in (noise, noise + 1e6, trend, spiky):
        assert local_noise(values, 500, 510) == pytest.approx(5, rel=0.25)


def test_local_noise_of_a_series_at_rest_is_its_smallest_step() -> None:
    values = np.full(1000, 16.0)
    values[[3, 450]] = 18.0, 21.0
    assert local_noise(values, 460, 470) == 5.0
    assert local_noise(values, 800, 810) == 2.0
    assert local_noise(np.full(500, 16.0), 100, 110) == 0.0


@pytest.mark.parametrize("settings", [
    {"prevalence": 0.11}, {"prevalence": 0.0}, {"prevalence": float("nan")}, {"magnitude": 0.0}, {"magnitude": float("inf")},
    {"clean": 1.0}, {"kinds": ()}, {"kinds": ("spike", "shft")},
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Injection(**settings)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown kind `shft`: did you mean `shift`"):
        Injection(kinds=("shft",))


def test_short_series_and_constant_ones_are_refused() -> None:
    with pytest.raises(DataError, match="no endpoint has room"):
        inject(a_frame(100), ["udp_echo"], Injection())
    with pytest.raises(DataError, match="metric `ecpri` is constant or missing"):
        inject(a_frame().assign(ecpri=4.0), ["ecpri"], Injection())


@pytest.mark.parametrize(("rows", "kind", "length"), [(100, "shift", 10), (30, "shift", 10), (9, "loss", 3)])
def test_a_short_series_gets_one_short_incident_where_one_is_asked_for(rows: int, kind: str, length: int) -> None:
    how = Injection(kinds=(kind,), at_least_one=True)
    result, incidents = inject(a_frame(rows), ["udp_echo"], how)
    assert [one.end - one.start + 1 for one in incidents] == [length] * result["endpoint"].nunique()
    assert result["label"].sum() == length * result["endpoint"].nunique()
    with pytest.raises(DataError, match="no endpoint has room"):
        inject(a_frame(3 * length - 1), ["udp_echo"], how)


def test_the_command_writes_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    series = tmp_path / "series.parquet"
    a_frame().assign(label=np.arange(4000) % 100 == 0).astype({"label": int}).to_parquet(series)
    written = []
    for name in ("one", "two"):
        options = [
            "--out",
            str(tmp_path / f"{name}.parquet"),
            "--metric",
            "udp_echo",
            "--seed",
            "5",
            "--kinds",
            "shift,loss",
        ]
        result = CliRunner().invoke(data_command, ["inject", str(series), *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert "40 labelled rows count as normal" in result.stderr
        written.append([(tmp_path / f"{name}{suffix}").read_bytes() for suffix in (".parquet", ".json")])
    assert written[0] == written[1]
    table, truth = pd.read_parquet(tmp_path / "one.parquet"), json.loads(written[0][1])
    assert list(table.columns) == ["timestamp", "endpoint", "udp_echo", "label", "kind"]
    assert table["label"].sum() == sum(item["end_row"] - item["start_row"] + 1 for item in truth)
    assert {item["kind"] for item in truth} == {"shift", "loss"}
    assert truth[0]["start"] == (START + pd.Timedelta(seconds=truth[0]["start_row"])).isoformat()


def test_the_command_says_where_it_cannot_write(tmp_path: Path) -> None:
    series = tmp_path / "series.parquet"
    a_frame().to_parquet(series)
    for out, message in ((tmp_path / "x.csv", "is no parquet file"), (tmp_path / "none" / "x.parquet", "no folder")):
        with pytest.raises(UsageError, match=message):
            CliRunner().invoke(data_command, ["inject", str(series), "--out", str(out)], catch_exceptions=False)
