"""The click world: the same bytes for a seed, clicks that follow the known probability, and iPinYou's layout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tests.tabular.conftest import Prepare

from ocad.catalogue import DataSource, Simulation, find_data
from ocad.errors import UsageError
from ocad.progress import SilentProgress
from ocad.tabular import world
from ocad.tabular.dataset import load_clicks
from ocad.tabular.prepare import prepare
from ocad.tabular.simulate import ensure_simulated, simulate_clicks
from ocad.tabular.sources import Log
from ocad.tabular.spec import Categorical, DataSettings, Features, Split


def simulate(rows: int, out: Path, seed: int = 1) -> Path:
    simulate_clicks(rows, out, seed, SilentProgress())
    return out


def ocad(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ocad", *arguments], capture_output=True, text=True, check=False)


def test_a_seed_decides_every_byte(tmp_path: Path) -> None:
    first, again, other = (
        simulate(500, tmp_path / f"{name}.parquet", seed).read_bytes() for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


def test_clicks_follow_the_known_probability(tmp_path: Path) -> None:
    log = pd.read_parquet(simulate(60_000, tmp_path / "log.parquet"))
    truth, click = log["true_probability"].to_numpy(), log["click"].to_numpy()
    assert 0 < truth.min() < truth.max() < 1
    deviation = np.sqrt((truth * (1 - truth)).sum())
    assert abs(click.sum() - truth.sum()) < 4 * deviation
    tenth = np.argsort(truth).reshape(10, -1)
    expected, got = truth[tenth].sum(axis=1), click[tenth].sum(axis=1)
    assert (np.abs(got - expected) < 4.5 * np.sqrt(expected)).all()
    assert 0.7 < roc_auc_score(click, truth) < 0.85
    assert truth.std() > 0.05


def test_the_position_decides_what_is_looked_at(tmp_path: Path) -> None:
    log = pd.read_parquet(simulate(60_000, tmp_path / "log.parquet"))
    rate = log.groupby("position")["true_probability"].mean()
    examined = np.arange(1, 6) ** -world.EXAMINATION
    np.testing.assert_allclose(rate / rate[1], examined, rtol=0.05)


def test_the_log_is_in_order_of_time_and_makes_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "CHUNK_ROWS", 300)
    log = pd.read_parquet(simulate(1_000, tmp_path / "log.parquet"))
    assert len(log) == 1_000
    assert log["timestamp"].is_monotonic_increasing
    assert log["timestamp"].between(world.START, world.START + world.DAYS * 86_400).all()
    assert not (log["conversion"] & ~log["click"]).any()
    assert (log["revenue"] > 0).equals(log["conversion"] == 1)
    assert (log["paid_price"] >= log["floor_price"]).all()
    assert 0 < log["item_age_days"].isna().mean() < 0.15


def test_a_campaign_holds_the_same_clicks_in_ipinyou_form(prepared: Prepare, tmp_path: Path) -> None:
    log = pd.read_parquet(simulate(1_000, tmp_path / "log.parquet"))
    campaign = simulate(1_000, tmp_path / "2259")
    source = find_data(str(campaign))
    lines = [(campaign / name).read_text().splitlines() for name in ("train.yzx.txt", "test.yzx.txt")]
    assert list(map(len, lines)) == [800, 200]
    assert [int(line[0]) for part in lines for line in part] == log["click"].tolist()
    what = Features(
        categorical=(Categorical(column="IP"), Categorical(column="usertag", separator=",", slots=2)),
        price="paid_price",
    )
    folder = tmp_path / "prepared"
    data = prepare(source, what, Split(), DataSettings(), seed=7, folder=folder, progress=SilentProgress())
    assert data.rows["test"] == 200
    clicks = load_clicks(data.splits["test"])
    assert clicks.price is not None
    np.testing.assert_allclose(clicks.price, np.maximum(1, log["paid_price"].iloc[800:].round()))
    single = simulate(1_000, tmp_path / "log.yzx")
    assert single.read_text().splitlines() == [*lines[0], *lines[1]]


def test_the_default_log_is_written_when_it_is_first_read(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "log.parquet"
    source = DataSource(name="log", path=path, kind="clicks", label="click", simulate=Simulation(rows=400, seed=3))
    assert source.missing() is None
    assert Log(source, path, Features()).rows == 400
    written = path.read_bytes()
    assert written == simulate(400, tmp_path / "same.parquet", 3).read_bytes()
    path.write_bytes(b"kept")
    ensure_simulated(source)
    assert path.read_bytes() == b"kept"
    assert [file.name for file in path.parent.iterdir()] == ["log.parquet"]


def test_what_cannot_be_simulated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write `.*log\.csv`: give a `\.parquet` or `\.yzx` file, or a folder"):
        simulate(1_000, tmp_path / "log.csv")
    with pytest.raises(UsageError, match="99 rows are too few for a click world: ask for 100 or more with `--rows`"):
        simulate(99, tmp_path / "log.parquet")


def test_simulate_and_prepare_on_the_command_line(tmp_path: Path) -> None:
    log, out = tmp_path / "log.parquet", tmp_path / "processed"
    answer = ocad("data", "simulate", "ctr", "--rows", "2000", "--out", str(log), "--json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["path"], told["rows"], told["seed"]) == (str(log), 2000, 1)
    config = tmp_path / "model.yaml"
    config.write_text("features: {auto: true, group: user_id}\nnetwork: {of: a model}\n")
    arguments = ("--data", str(log), "--out", str(out), "--config", str(config), "--set", "split.kind=group", "--json")
    answer = ocad("data", "prepare", *arguments)
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert sum(told["rows"].values()) == 2000
    assert (out / "fingerprint.txt").read_text().strip() == told["fingerprint"]
    fields = {field["name"] for field in told["statistics"]["fields"]}
    assert {"user_id", "item_id", "position", "timestamp_hour"} <= fields
    assert not fields & {"true_probability", "conversion", "click", "paid_price"}


def test_bad_lines_on_the_command_line(tmp_path: Path) -> None:
    log = simulate(500, tmp_path / "log.yzx")
    log.write_text("no line of a log\n" + log.read_text())
    failed = ocad("data", "prepare", "--data", str(log), "--out", str(tmp_path / "out"), "--json")
    assert failed.returncode == 1
    error = json.loads(failed.stdout)["error"]
    assert error["code"] == "data"
    assert error["message"] == f"line 1 of `{log}` does not parse: `no line of a log`"
    passed = ocad("data", "prepare", "--data", str(log), "--out", str(tmp_path / "out"), "--max-bad-lines", "1")
    assert passed.returncode == 0, passed.stderr
    assert "1 lines did not parse and are left out" in passed.stdout
