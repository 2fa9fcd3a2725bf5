"""The real command line in this process, in a folder of its own, with the plugins of `tests/fixtures` installed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ocad.__main__ import run
from ocad.testing.series import write_series

HELLO = ("train", "--plugin", "hello", "--metric", "udp_echo", "--data", "series.parquet")
TIGHT = "gates=[{metric: mase, op: <, threshold: 0.1}]"
CATALOGUE = "path: series.parquet\nendpoint: endpoint\nlabel: label\ncolumns: {udp_echo: udp_echo}\n"


@dataclass(frozen=True)
class Answer:
    """What a command ended with and printed."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The JSON value on stdout, which must hold nothing else."""
        return json.loads(self.out)


CommandLine = Callable[..., Answer]


@pytest.fixture(scope="session")
def folder(plugin_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with data, good and bad, and a registry: `hello-udp_echo` 1.0.0 and 1.1.0 passed, 2.0.0 did not."""
    folder = tmp_path_factory.mktemp("work")
    write_files(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(folder, plugin_site, monkeypatch)
        for more, code in (((), 0), (("--promote", "staging"), 0), (("--version", "2.0.0", "--set", TIGHT), 3)):
            monkeypatch.setattr(sys, "argv", ["ocad", *HELLO, *more])
            assert run() == code
    return folder


@pytest.fixture
def work(folder: Path, plugin_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `folder` as the current directory and the project's root."""
    shutil.copytree(folder, tmp_path / "work")
    enter(tmp_path / "work", plugin_site, monkeypatch)
    return tmp_path / "work"


@pytest.fixture
def ocad(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Runs a command as its own process would, in `work`."""

    def command(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["ocad", *arguments])
        capsys.readouterr()
        code = run()
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return command


def enter(folder: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OCAD_HOME", str(folder))
    for variable in ("OCAD_REGISTRY", "OCAD_DISABLE_PLUGINS", "OCAD_HELLO_VETO", "OCAD_HELLO_LOG"):
        monkeypatch.delenv(variable, raising=False)


def write_files(folder: Path) -> None:
    """The seeded series, and one file for each way in which data can be unusable."""
    series = pd.read_parquet(write_series(folder / "series.parquet"))
    values = series["udp_echo"]
    bad: dict[str, pd.DataFrame] = {
        "text": series.assign(udp_echo=values.astype(object).where(series.index != 5, "fast").astype(str)),
        "missing": series.assign(udp_echo=np.nan),
        "constant": series.assign(udp_echo=400.0),
        "short": series.head(20),
        "infinite": series.assign(udp_echo=values.where(series.index != 5, np.inf)),
        "rowless": series.head(0),
        "timeless": series.drop(columns="timestamp"),
        "shuffled": pd.concat([series.sample(frac=1, random_state=1), series.head(3)]),
    }
    for name, frame in bad.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    series.assign(timestamp=series["timestamp"].dt.tz_localize(None)).to_csv(folder / "zoneless.csv", index=False)
    (folder / "empty.parquet").touch()
    (folder / "garbage.parquet").write_bytes(b"PAR1 but not really")
    np.savez(folder / "windows.npz", values=np.arange(48.0, dtype=np.float32).reshape(2, 24))
    (folder / "garbage.npz").write_bytes(b"not an archive")
    (folder / "wrong.yaml").write_text("seed: 3\nseason: 12\n")
    (folder / "newer").mkdir()
    (folder / "newer" / "registry.json").write_text('{"format": 2}')
    (folder / "configs" / "data").mkdir(parents=True)
    (folder / "configs" / "data" / "link.yaml").write_text(CATALOGUE)
