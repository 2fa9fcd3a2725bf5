"""Real logs from one end to the other, the memory that preparing takes, and the script that fetches iPinYou's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.tabular.conftest import Prepare

from ocad.catalogue import find_data
from ocad.contexts import PreparedData
from ocad.progress import SilentProgress
from ocad.tabular.dataset import load_clicks
from ocad.tabular.prepare import load_encoder, prepare
from ocad.tabular.simulate import simulate_clicks
from ocad.tabular.spec import Categorical, DataSettings, Features, Join, Label, Split, Temporal

ROOT = Path(__file__).resolve().parents[2]


def prepare_named(name: str, folder: Path, features: Features, split: Split, data: DataSettings) -> PreparedData:
    return prepare(find_data(name), features, split, data, seed=7, folder=folder, progress=SilentProgress())


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_HOME", str(ROOT))


@pytest.mark.shared_data
def test_adult_with_its_own_test_file(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_SHARED_DATA", str(shared_data))
    what = Features(auto=True, label=Label(positive=">50K"))
    data = prepare_named("adult", tmp_path, what, Split(test=0.5), DataSettings())
    assert data.rows["test"] == 16_281
    assert data.rows["train"] + data.rows["validation"] == 32_561
    assert data.statistics["click_rate"]["test"] == pytest.approx(3_846 / 16_281)
    names = [field.name for field in load_encoder(tmp_path).fields]
    assert len(names) == 14
    assert "income" not in names


@pytest.mark.shared_data
def test_movielens_by_time_with_genres_joined(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCAD_SHARED_DATA", str(shared_data))
    what = Features(
        label=Label(at_least=4),
        categorical=(Categorical(column="movieId", min_count=2), Categorical(column="genres", separator="|", slots=3)),
        temporal=(Temporal(column="timestamp"),),
        joins=(Join(file="movies", on="movieId", columns=("genres",)),),
        group="userId",
        time="timestamp",
    )
    data = prepare_named("ml_latest_small", tmp_path, what, Split(kind="time"), DataSettings())
    assert sum(data.rows.values()) == 100_004
    assert data.statistics["click_rate"]["train"] == pytest.approx(0.52, abs=0.01)
    vocabulary = load_encoder(tmp_path).vocabularies["genres"]
    assert vocabulary.values[:2].to_pylist() == ["Drama", "Comedy"]
    assert vocabulary.size == 21  # 19 genres, rare, and missing: most films have fewer than three
    clicks = load_clicks(data.splits["train"])
    assert clicks.group is not None
    assert set(np.unique(clicks.group)) <= set(range(1, 672))


def test_the_split_of_a_frappe_table_with_a_file_of_test_rows(prepared: Prepare, tmp_path: Path) -> None:
    """`label` and ten columns of ids that never meet between fields, as libFM numbers them."""
    generator = np.random.default_rng(0)

    def lines(rows: int) -> str:
        ids = generator.integers(0, 50, (rows, 10)) + 50 * np.arange(10)
        labels = generator.choice(["-1", "1"], rows)
        return "\n".join(
            " ".join([label, *(f"{one}:1" for one in row)]) for label, row in zip(labels, ids.tolist(), strict=True)
        )

    for name, rows in (("train", 2_000), ("test", 300)):
        (tmp_path / f"{name}.libfm").write_text(lines(rows))
    data = prepared(tmp_path / "train.libfm", Features(auto=True), data={"test": tmp_path / "test.libfm"})
    assert data.rows["test"] == 300
    encoder = load_encoder(data.splits["train"].parent)
    assert [field.name for field in encoder.fields] == [f"f{place}" for place in range(1, 11)]
    assert encoder.table_rows == 510


@pytest.mark.slow
def test_two_million_rows_take_little_memory(tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    simulate_clicks(2_000_000, log, 1, SilentProgress())
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from ocad.catalogue import find_data\nfrom ocad.progress import SilentProgress\n"
        "from ocad.tabular.prepare import prepare\nfrom ocad.tabular.spec import DataSettings, Features, Split\n"
        "prepare(find_data(sys.argv[1]), Features(auto=True), Split(), DataSettings(), seed=1,"
        " folder=Path(sys.argv[2]), progress=SilentProgress())\n"
        # not ru_maxrss, which begins at that of the process which started this one
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    call = [sys.executable, "-c", program, str(log), str(tmp_path / "out")]
    answer = subprocess.run(call, capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 1 << 20  # KiB: a gibibyte, of which most is the interpreter and one batch


def download(folder: Path, *campaigns: str, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    call = ["bash", str(ROOT / "scripts" / "download_data.sh"), str(folder), *campaigns]
    environment = {"PATH": path, "HOME": str(folder), "LANG": os.environ.get("LANG", "C.UTF-8")}
    return subprocess.run(call, capture_output=True, text=True, check=False, env=environment)


def test_the_download_script_names_what_is_missing(tmp_path: Path) -> None:
    answer = download(tmp_path / "ipinyou")
    assert answer.returncode == 1
    assert "missing: the command `kaggle` (`pip install kaggle`)" in answer.stderr
    assert "missing: Kaggle credentials (KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json)" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith(
        "error: cannot fetch `lastsummer/ipinyou`: install what is missing"
    )
    assert not (tmp_path / "ipinyou").exists()


def test_the_download_script_leaves_a_campaign_that_is_there(tmp_path: Path) -> None:
    simulate_clicks(200, tmp_path / "3386", 1, SilentProgress())
    answer = download(tmp_path, "3386")
    assert (answer.returncode, answer.stdout) == (0, f"nothing to do: 3386 are in {tmp_path}\n")
    assert "`abc` is no campaign" in download(tmp_path, "abc").stderr
