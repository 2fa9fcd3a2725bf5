"""Fixtures that every room shares."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import zipfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.needs import lacking, require, skipped_for

settings.register_profile("ocad", deadline=None)  # the machine may be busy
settings.load_profile("ocad")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The registry's caches lie in a temporary folder, of child processes too."""
    os.environ["OCAD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--shuffle SEED`: the files in random order, and the tests in each; what needs an order fails there."""
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in the random order of SEED")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffles as asked for; a file's tests stay together, whose fixtures are its own."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    generator, files = random.Random(seed), dict[Path, list[pytest.Item]]()
    for item in items:
        files.setdefault(item.path, []).append(item)
    ordered = list(files.values())
    generator.shuffle(ordered)
    for tests in ordered:
        generator.shuffle(tests)
    items[:] = [item for tests in ordered for item in tests]


def pytest_configure() -> None:
    """Takes Ctrl-C and hang-ups again where a shell's `&` or nohup left them ignored: tests send them, to children too."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: skips or fails what is marked to need something that is not here."""
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            require(tool)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """After pytest's own summary, as the last line: how many tests were skipped for want of which tool."""
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of xdist: its parent writes
        return result
    reports = reporter.stats.get("skipped", [])
    if found := skipped_for(str(report.longrepr[2]) for report in reports if isinstance(report.longrepr, tuple)):
        counts = ", ".join(f"{tool} {count}" for tool, count in sorted(found.items()))
        reporter.write_line(f"skipped for want of tools: {found.total()} ({counts})")
    return result


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; skips where it is absent and not required."""
    folder = Path(os.environ.get("OCAD_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        lacking(f"no shared data at {folder}: set OCAD_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def plugin_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `sys.path` or PYTHONPATH with the packages of `tests/fixtures/` as a wheel installs them."""
    folder = tmp_path_factory.mktemp("plugins")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    for package in sorted((ROOT / "tests" / "fixtures").glob("ocad-*")):
        subprocess.run(build, cwd=package, check=True, capture_output=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"
