"""Buckets on both servers, and the environment that leads to them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.needs import lacking
from tests.registry.objects.faults import FaultyProxy
from tests.registry.objects.servers import KEY, SCRIPT, SECRET, moto, s3proxy
from tests.registry.writers import artifacts, draft

from ocad_registry import Registry, Version


@pytest.fixture(scope="session")
def moto_address() -> Iterator[str]:
    with moto() as address:
        yield address


@pytest.fixture(scope="session")
def s3proxy_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """s3proxy; skips without Java, Maven or the script, unless OCAD_REQUIRE_SHARED=1."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None] + (
        [] if SCRIPT.is_file() else [str(SCRIPT)]
    )
    if missing:
        lacking(f"s3proxy needs {', '.join(missing)}")
    with s3proxy(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Points the environment at a server and makes a bucket there; the URL of a registry in it."""

    def point(address: str) -> str:
        for name in (
            "AWS_PROFILE",
            "AWS_SESSION_TOKEN",
            "AWS_ENDPOINT_URL_S3",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AWS_CA_BUNDLE",
        ):
            monkeypatch.delenv(name, raising=False)
        settings = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": address,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
            "OCAD_CACHE": str(tmp_path / "cache"),
            "NO_PROXY": "127.0.0.1",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        return make_bucket()

    return point


def make_bucket() -> str:
    """A new bucket on the server of the environment; the URL of a registry in it."""
    from ocad_registry.remotes import connect

    bucket = f"bucket-{uuid4().hex[:12]}"
    connect("s3://").call_s3("create_bucket", Bucket=bucket)
    return f"s3://{bucket}/team/models"


@pytest.fixture(params=["moto", pytest.param("s3proxy", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, enter: Callable[[str], str]) -> str:
    """An empty bucket on each of the two servers."""
    return enter(request.getfixturevalue(f"{request.param}_address"))


@pytest.fixture
def moto_url(moto_address: str, enter: Callable[[str], str]) -> str:
    return enter(moto_address)


@pytest.fixture
def publish_to() -> Callable[[str], Version]:
    """Publishes what `writers.py` publishes, to a URL."""
    return lambda place: Registry(place).publish(draft(), artifacts())


@pytest.fixture
def registry(url: str) -> Registry:
    return Registry(url, by="ops@example")


@pytest.fixture
def proxy(moto_url: str, moto_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Stands between the environment's clients and moto, with the bucket of `moto_url`."""
    with FaultyProxy(moto_address) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.address)
        yield between
