"""What goes wrong with a server: one clear error each, bounded retries, and nothing left behind."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.registry.conftest import DraftMaker, Publisher
from tests.registry.objects.faults import Fault, FaultyProxy, Request, hang_up

from ocad_registry import Artifact, Registry, StorageFailed
from ocad_registry.remotes import ATTEMPTS

Fails = Callable[[Request], bool]


@pytest.fixture
def registry(moto_url: str) -> Registry:
    return Registry(moto_url, by="ops@example")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts are as good as six."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")


def failure(read: Callable[[], object]) -> StorageFailed:
    """What `read` fails with: one line, which ends with what to do."""
    with pytest.raises(StorageFailed) as caught:
        read()
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def gets(ending: str) -> Fails:
    return lambda request: request.method == "GET" and request.path.endswith(ending)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("status", "code", "expected", "words"),
    [
        (403, "InvalidAccessKeyId", "no-access", "check `AWS_ACCESS_KEY_ID`"),
        (403, "SignatureDoesNotMatch", "no-access", "check `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`"),
        (403, "AccessDenied", "no-access", "what that user may do with the bucket"),
        (403, "RequestTimeTooSkewed", "clock-skew", "set the clock"),
        (503, "SlowDown", "throttled", "try again later"),
        (500, "InternalError", "storage", "look at its log"),
        (400, "AuthorizationHeaderMalformed", "wrong-region", "set `AWS_REGION`"),
        (418, "{Teapot}", "storage", "look at the server's log"),
    ],
)
def test_what_a_server_refuses(
    proxy: FaultyProxy, registry: Registry, make_draft: DraftMaker, status: int, code: str, expected: str, words: str
) -> None:
    proxy.fault = lambda request: Fault(status, code)
    error = failure(registry.list)
    assert error.code == expected
    assert code.strip("{}") in error.message
    assert words in error.hint
    assert len(proxy.requests) <= 2
    publishing = failure(lambda: registry.publish(make_draft(), []))
    assert publishing.code == expected
    assert publishing.hint.startswith("nothing was published; ")


@pytest.mark.slow
def test_a_wrong_secret_at_a_server_that_checks_it(
    s3proxy_address: str, enter: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = enter(s3proxy_address)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    error = failure(Registry(url).list)
    assert error.code == "no-access"
    assert "SignatureDoesNotMatch" in error.message
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`" in failure(Registry(url).list).hint


def test_a_missing_bucket(url: str, make_draft: DraftMaker) -> None:
    elsewhere = Registry("s3://no-such-bucket-anywhere/models")
    for attempt in (elsewhere.list, lambda: elsewhere.resolve("m"), lambda: elsewhere.publish(make_draft(), [])):
        error = failure(attempt)
        assert error.code == "no-bucket"
        assert "create it, or correct the registry's URL" in error.hint


@pytest.mark.usefixtures("quick")
def test_no_server_at_all(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        error = failure(Registry(moto_url).list)
    assert error.code == "unreachable"
    assert "no server answers at `http://127.0.0.1:" in error.message
    assert "check `AWS_ENDPOINT_URL`" in error.hint


@pytest.mark.parametrize("code", ["SlowDown", "InternalError"])
def test_throttling_that_ends_is_waited_for(
    proxy: FaultyProxy, registry: Registry, publish: Publisher, code: str
) -> None:
    """The first two answers to each kind of request are refusals."""
    seen: dict[str, int] = {}

    def throttle(request: Request) -> Fault | None:
        seen[request.method] = seen.get(request.method, 0) + 1
        return Fault(503 if code == "SlowDown" else 500, code) if seen[request.method] <= 2 else None

    proxy.fault = throttle
    assert publish().ref == "tcn-udp_echo@1.0.0"
    proxy.fault = lambda request: None
    assert registry.verify() == []


@pytest.mark.parametrize("ending", ["/metadata.json", "/weights.bin"])
def test_a_connection_cut_in_the_middle_of_a_body(
    proxy: FaultyProxy, registry: Registry, publish: Publisher, artifact: Artifact, ending: str
) -> None:
    publish()
    cut: list[Request] = []
    fails = gets(ending)

    def once(request: Request) -> Fault | None:
        if fails(request) and len(cut) < 2:
            cut.append(request)
            return Fault(keep=100)
        return None

    proxy.fault = once
    assert registry.resolve("tcn-udp_echo@1.0.0").file("weights").read_bytes() == artifact.path.read_bytes()
    assert len(cut) == 2


def test_a_connection_that_is_always_cut(
    proxy: FaultyProxy, registry: Registry, publish: Publisher, tmp_path: Path
) -> None:
    publish()
    proxy.fault = lambda request: Fault(keep=100) if gets("/weights.bin")(request) else None
    before = len(proxy.requests)
    error = failure(lambda: registry.resolve("tcn-udp_echo@1.0.0").file("weights"))
    assert error.code == "connection"
    assert len([request for request in proxy.requests[before:] if gets("/weights.bin")(request)]) == ATTEMPTS
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_a_put_whose_answer_is_lost_is_ours(proxy: FaultyProxy, registry: Registry, publish: Publisher) -> None:
    """The store did it, the client never heard: it asks again, is told that the object exists, and finds its own bytes."""
    lost: set[str] = set()

    def lose(request: Request) -> Fault | None:
        if request.method == "PUT" and request.path not in lost:
            lost.add(request.path)
            return Fault(after=hang_up)
        return None

    proxy.fault = lose
    version = publish()
    entry = registry.promote(version.ref, "production")
    proxy.fault = lambda request: None
    assert (version.ref, entry.number) == ("tcn-udp_echo@1.0.0", 1)
    assert len(lost) == 5
    assert registry.verify() == []


@pytest.mark.usefixtures("quick")
def test_a_failure_that_leaves_it_open_says_so(
    proxy: FaultyProxy, registry: Registry, make_draft: DraftMaker, publish: Publisher
) -> None:
    proxy.fault = lambda request: (
        Fault(after=hang_up) if request.method == "PUT" and request.path.endswith("/metadata.json") else None
    )
    before = len(proxy.requests)
    error = failure(publish)
    assert len([request for request in proxy.requests[before:] if request.path.endswith("/metadata.json")]) <= 4
    assert "whether it was done is not known" in error.hint
    proxy.fault = lambda request: None
    assert [entry.ref for entry in registry.list()] == ["tcn-udp_echo@1.0.0"], "it was, whole"
    assert registry.verify() == []


def test_two_writers_in_each_others_way(proxy: FaultyProxy, registry: Registry, publish: Publisher) -> None:
    """AWS answers 409 while another conditional put of the same key is under way."""
    seen: dict[str, int] = {}

    def conflict(request: Request) -> Fault | None:
        seen[request.path] = seen.get(request.path, 0) + 1
        first = request.method == "PUT" and seen[request.path] == 1
        return Fault(409, "ConditionalRequestConflict") if first else None

    proxy.fault = conflict
    assert registry.promote(publish().ref, "production").number == 1
