"""Many versions of a bucket are read with one request each, and what is wrong with one is still found."""

from __future__ import annotations

import hashlib

import pytest
from tests.registry.conftest import DraftMaker
from tests.registry.objects.faults import Fault, FaultyProxy, Request
from tests.registry.objects.test_objects import put

from ocad_registry import Registry, prefetch
from ocad_registry.prefetch import Prefetch
from ocad_registry.storage_objects import ObjectStorage

NAME, VERSIONS = "tcn-udp_echo", 6


@pytest.fixture
def filled(moto_url: str, make_draft: DraftMaker, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(prefetch, "MANY", 3)
    registry = Registry(moto_url)
    for _ in range(VERSIONS):
        registry.publish(make_draft(), [])
    return registry


def gets(proxy: FaultyProxy, file: str) -> int:
    return sum(
        request.method == "GET" and request.path.split("?")[0].endswith(f"/{file}") for request in proxy.requests
    )


@pytest.mark.parametrize(("many", "expected"), [(3, 0), (1000, VERSIONS)])
def test_a_listing_spares_the_digests(
    filled: Registry, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, many: int, expected: int
) -> None:
    monkeypatch.setattr(prefetch, "MANY", many)
    assert len(Registry(filled.root).list()) == VERSIONS
    assert (gets(proxy, "metadata.json"), gets(proxy, "metadata.sha256")) == (VERSIONS, expected)


def test_damage_is_found_among_many(filled: Registry) -> None:
    line = f"{hashlib.sha256(b'other').hexdigest()}  metadata.json\n".encode()
    put(filled.root, f"{NAME}/1.1.0/metadata.sha256", line)
    put(filled.root, f"{NAME}/1.2.0/metadata.json", b"{}")
    put(filled.root, f"{NAME}/1.3.0/metadata.sha256", b"")
    entries = Registry(filled.root).list()
    broken = {entry.version: entry.broken.partition(":")[0] for entry in entries if entry.broken}
    assert broken == dict.fromkeys(("1.1.0", "1.2.0", "1.3.0"), "metadata-digest")


def test_etags_of_another_kind_cost_requests_and_no_more(filled: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a bucket whose objects are encrypted with a key of KMS."""
    monkeypatch.setattr(ObjectStorage, "etags", lambda self, folder: dict.fromkeys(["x"], "0" * 32))
    assert [entry.broken for entry in Registry(filled.root).list()] == [None] * VERSIONS


def test_requests_that_fail_are_sent_again(filled: Registry, proxy: FaultyProxy) -> None:
    failed: set[str] = set()

    def once(request: Request) -> Fault | None:
        path = request.path.split("?")[0]
        if request.method != "GET" or not path.endswith("/metadata.json") or path in failed:
            return None
        failed.add(path)
        return Fault(keep=10)

    proxy.fault = once
    assert [entry.broken for entry in Registry(filled.root).list()] == [None] * VERSIONS
    assert len(failed) == VERSIONS


def test_a_document_above_its_limit_is_read_by_itself(filled: Registry) -> None:
    storage = ObjectStorage(filled.root)
    ahead = Prefetch(storage)
    ahead.add([(NAME, "1.0.0")])
    with pytest.raises(Exception, match="larger than 10 bytes"):
        ahead.read(f"{NAME}/1.0.0/metadata.json", 10)
