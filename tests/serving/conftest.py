"""The server under test: the real binary, over a registry of small graphs that each worker publishes once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.registry.objects.conftest import (  # noqa: F401 - fixtures of the tests here too
    enter,
    moto_address,
    moto_url,
    proxy,
    s3proxy_address,
    url,
)
from tests.serving import graphs
from tests.serving.registries import publish, publish_without_graph
from tests.serving.servers import Server

from ocad.errors import OcadError
from ocad.serving import find_server
from ocad_registry import Registry

Launch = Callable[..., Server]


@pytest.fixture(scope="session", autouse=True)
def binary() -> Path:
    """The server's binary; fails with what to do when it is not built."""
    try:
        return find_server()
    except OcadError as error:
        pytest.fail(f"{error}", pytrace=False)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of every kind of graph; nothing may be changed in it."""
    root = tmp_path_factory.mktemp("serving") / "models"
    for element in graphs.ELEMENT_TYPES:
        publish(root, f"echo-{element.name.lower()}", graphs.echo(element.name))
    for factor in (1.0, 2.0, 3.0):
        publish(root, "scale", graphs.scale(factor))  # 1.0.0, 1.1.0, 1.2.0
    publish(root, "scale", graphs.scale(4.0), "2.0.0-rc.1")
    Registry(root).promote("scale@1.1.0", "production")
    Registry(root).promote("scale@1.0.0", "old")
    publish(root, "mixed", graphs.mixed())
    publish(root, "tower", graphs.tower())
    publish(root, "lookup", graphs.lookup())
    publish(root, "fixed", graphs.fixed())
    publish(root, "quantised", graphs.quantised())
    publish(root, "busy", graphs.busy())
    publish(root, "failed", graphs.scale(9.0), passed=False)
    publish_without_graph(root, "detector")
    return root


@pytest.fixture(scope="session")
def server(registry: Path) -> Iterator[Server]:
    """One server over `registry` for all tests that change nothing."""
    with Server(registry) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Starts servers of a test's own, `launch(registry, *options, env=…, ready=…, folder=…)`, and ends them after it."""
    with ExitStack() as stack:

        def start(
            root: Path | str,
            *options: str,
            env: dict[str, str] | None = None,
            ready: bool = True,
            folder: Path | None = None,
        ) -> Server:
            running = stack.enter_context(Server(root, *options, env=env, folder=folder))
            if ready:
                running.wait_ready()
            return running

        yield start


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A registry of the test's own: `scale` at 1.0.0 (factor 1), promoted to production."""
    root = tmp_path / "models"
    publish(root, "scale", graphs.scale(1.0))
    Registry(root).promote("scale@1.0.0", "production")
    return root
