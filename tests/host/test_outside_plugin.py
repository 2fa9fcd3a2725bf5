"""A plugin from outside, from `pip install` to `pip uninstall`, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SEASON = 12


@dataclass
class Environment:
    """A throw-away environment that sees everything of ours by a `.pth` line, and installs into itself."""

    folder: Path

    def python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs the environment's Python in its own work folder."""
        paths = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "OCAD_HOME": str(self.folder)}
        command = [str(self.folder / "venv" / "bin" / "python"), *arguments]
        return subprocess.run(
            command, cwd=self.folder, env={**paths, **variables}, capture_output=True, text=True, check=False
        )

    def pip(self, *arguments: str) -> None:
        """Runs pip without any network."""
        done = self.python("-m", "pip", "--disable-pip-version-check", *arguments, PIP_NO_INDEX="1")
        assert done.returncode == 0, done.stderr

    def ocad(self, *arguments: str, code: int = 0, **variables: str) -> Any:
        """The JSON answer of a command that ends with `code`."""
        done = self.python("-m", "ocad", *arguments, "--json", **variables)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def train(self, *more: str, code: int = 0, **variables: str) -> Any:
        """Trains `hello` on the seasonal series."""
        asked = ("train", "--plugin", "hello", "--metric", "rtt", "--data", "series.parquet", *more)
        return self.ocad(*asked, code=code, **variables)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With `ocad-hello` installed by pip, and a series whose season is 12 rows."""
    folder = tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, capture_output=True)
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    ours = Path(pytest.__file__).resolve().parents[1]
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({str(ours)!r})\n")
    environment = Environment(folder)
    environment.pip("install", "--no-deps", "--no-build-isolation", str(FIXTURES / "ocad-hello"))
    write_seasonal(folder / "series.parquet")
    return environment


def write_seasonal(path: Path) -> None:
    row = np.arange(3_200)
    noise = np.random.default_rng(2).normal(0, 3, len(row))
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(row, "s")
    frame = pd.DataFrame({"timestamp": time, "rtt": 400 + 40 * np.sin(2 * np.pi * row / SEASON) + noise})
    frame.to_parquet(path, index=False)


@pytest.fixture(scope="module")
def registered(environment: Environment) -> Any:
    """The answer of the first `ocad train`."""
    return environment.train(OCAD_HELLO_LOG=str(environment.folder / "events.jsonl"))


def test_it_is_listed_and_shown(environment: Environment) -> None:
    listed = {row["name"]: row for row in environment.ocad("plugins", "list")}
    assert listed["hello"] == {
        "name": "hello",
        "kind": "plugin",
        "package": "ocad-hello 0.1.0",
        "task": "forecast",
        "summary": "Seasonal naive: the value one season ago",
        "broken": None,
    }
    assert listed["hello-log"]["kind"] == listed["hello-veto"]["kind"] == "extension"
    shown = environment.ocad("plugins", "show", "hello")
    assert shown["api_version"] == 1
    assert "ocad_prepare_data" in shown["hooks"]
    assert "ocad_detect" not in shown["hooks"]


def test_its_settings_are_in_the_help_of_train(environment: Environment) -> None:
    done = environment.python("-m", "ocad", "train", "--plugin", "hello", "--help")
    assert "seasons" in done.stdout
    assert "candidate seasons, in rows" in done.stdout


def test_it_keeps_every_promise(environment: Environment) -> None:
    findings = environment.ocad("plugins", "check", "hello")
    assert [finding for finding in findings if finding["verdict"] == "failed"] == []
    assert sum(finding["verdict"] == "passed" for finding in findings) >= 12


def test_it_trains_and_registers_what_it_found(environment: Environment, registered: Any) -> None:
    assert (registered["ref"], registered["passed"]) == ("hello-rtt@1.0.0", True)
    assert registered["metrics"]["mase"] < 0.3
    assert registered["parity"]["max_scaled_diff"] == 0.0
    metadata = environment.ocad("registry", "show", "hello-rtt@1.0.0")
    assert metadata["plugin"] == {"name": "hello", "version": "0.1.0", "package": "ocad-hello"}
    assert metadata["description"] == f"seasonal naive, season of {SEASON} rows"


def test_its_version_is_queried_and_loaded(environment: Environment, registered: Any) -> None:
    found = environment.ocad("registry", "query", "name = 'hello-rtt' and plugin = 'hello' and metrics.mase < 0.5")
    assert [entry["ref"] for entry in found] == ["hello-rtt@1.0.0"]
    code = (
        "import ocad, numpy as np; rows = np.arange(48.0).reshape(2, 24); "
        "print(ocad.load('hello-rtt').predict(rows)['forecast'].tolist())"
    )
    done = environment.python("-c", code)
    assert done.stdout.strip() == f"[[{24.0 - SEASON}], [{48.0 - SEASON}]]", done.stderr


def test_its_extension_heard_of_the_version(environment: Environment, registered: Any) -> None:
    lines = (environment.folder / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"ref": "hello-rtt@1.0.0", "passed": True}]


def test_its_veto_publishes_nothing(environment: Environment, registered: Any) -> None:
    before = environment.ocad("registry", "list")
    answer = environment.train(code=1, OCAD_HELLO_VETO="audit", OCAD_HELLO_LOG=str(environment.folder / "vetoed"))
    assert answer == {
        "error": {
            "code": "failed",
            "message": "`hello-rtt` may not be registered (audit)",
            "hint": "unset `OCAD_HELLO_VETO`",
        }
    }
    assert environment.ocad("registry", "list") == before
    assert not (environment.folder / "vetoed").exists()


@pytest.fixture
def broken_beside(environment: Environment) -> Iterator[None]:
    """`ocad-broken` installed for the length of a test."""
    environment.pip("install", "--no-deps", "--no-build-isolation", str(FIXTURES / "ocad-broken"))
    yield
    environment.pip("uninstall", "--yes", "ocad-broken")


def test_broken_plugins_beside_it_change_nothing_but_the_list(
    environment: Environment, registered: Any, broken_beside: None
) -> None:
    listed = {row["name"]: row for row in environment.ocad("plugins", "list")}
    assert listed["hello"]["broken"] is None
    assert "RuntimeError" in listed["raises-on-import"]["broken"]
    assert listed["raises-on-import"]["package"] == "ocad-broken 0.1.0"
    assert "hook API 2, this is 1" in listed["wrong-api"]["broken"]
    again = environment.train("--name", "again")
    assert (again["ref"], again["metrics"]) == ("again@1.0.0", registered["metrics"])
    cause = environment.ocad("train", "--plugin", "raises-on-import", "--data", "series.parquet", code=1)
    assert cause["error"]["message"] == (
        "plugin `raises-on-import` of package `ocad-broken 0.1.0` does not load "
        "(RuntimeError: the licence server does not answer)"
    )


@pytest.fixture
def uninstalled(environment: Environment) -> Iterator[None]:
    """Without `ocad-hello` for the length of a test."""
    environment.pip("uninstall", "--yes", "ocad-hello")
    yield
    environment.pip("install", "--no-deps", "--no-build-isolation", str(FIXTURES / "ocad-hello"))


def test_its_versions_outlive_it(environment: Environment, registered: Any, uninstalled: None) -> None:
    assert "hello" not in {row["name"] for row in environment.ocad("plugins", "list")}
    assert "hello-rtt@1.0.0" in {entry["ref"] for entry in environment.ocad("registry", "list")}
    assert environment.ocad("registry", "verify", "hello-rtt@1.0.0") == []
    verdict = environment.ocad("verify", "hello-rtt@1.0.0")
    assert (verdict["passed"], verdict["parity"]) == (True, registered["parity"])
    asked = environment.python("-c", "import ocad; ocad.load('hello-rtt@1.0.0')")
    assert asked.stderr.splitlines()[-1] == (
        "ocad.errors.PluginError: `hello-rtt@1.0.0` was made by the plugin `hello`, which is not installed: "
        "install the package `ocad-hello`"
    )
