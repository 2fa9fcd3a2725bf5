"""The server over a registry in an object store: Python publishes and promotes, the server follows, also through outages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from tests.registry.objects.faults import Fault, FaultyProxy, Request, hang_up
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.registries import flip, publish
from tests.serving.servers import Server, tensor, wait_for

from ocad_registry import Registry, Version

ROW = tensor("x", "FP32", [[1.0, 2.0]])
WIDE = tensor("x", "FP32", [[0.5] * 16])
SHORT = ("--poll", "0.05")
Start = Callable[..., Server]


@pytest.fixture
def start(launch: Launch, tmp_path: Path) -> Start:
    """Starts servers that look often."""

    def run(place: str, *options: str, ready: bool = True) -> Server:
        return launch(place, *SHORT, *options, ready=ready, folder=tmp_path)

    return run


def put(place: str, folder: Path, factor: float, version: str | None = None) -> Version:
    """Publishes `scale` with `factor`."""
    return publish(place, "scale", graphs.scale(factor), version, folder=folder)


def served(server: Server, selector: str = "") -> tuple[str, float]:
    """The version of `scale` that answers, and its factor."""
    answer = server.infer("scale", [ROW], selector).json()
    return answer["parameters"]["version"], answer["outputs"][0]["data"][0]


def wait_until_served(server: Server, version: str) -> None:
    wait_for(lambda: served(server)[0] == version, f"`scale@{version}` to answer", 30)


def problems(server: Server) -> dict[str, str]:
    """What `/v2/health/ready` complains about."""
    found: dict[str, str] = server.get("/v2/health/ready").json()["problems"]
    return found


def copies(folder: Path) -> list[Path]:
    """The files in the read cache, but for its locks."""
    return sorted(
        path for path in (folder / "cache" / "versions").rglob("*") if path.is_file() and path.name != ".lock"
    )


def test_publish_promote_roll_back_and_delete_are_followed(url: str, tmp_path: Path, start: Start) -> None:
    put(url, tmp_path, 1.0)
    store = Registry(url)
    store.promote("scale@1.0.0", "production")
    server = start(url)
    assert served(server) == ("1.0.0", 1.0)
    put(url, tmp_path, 2.0)
    wait_for(lambda: server.infer("scale", [ROW], "1.1.0").status == 200, "the published version", 30)
    assert served(server, "1.1.0") == ("1.1.0", 2.0)
    assert served(server) == ("1.0.0", 1.0), "and production has not moved"
    store.promote("scale@1.1.0", "production")
    wait_until_served(server, "1.1.0")
    store.rollback("scale", "production")
    wait_until_served(server, "1.0.0")
    store.delete("scale@1.1.0")
    wait_for(lambda: server.infer("scale", [ROW], "1.1.0").status == 404, "the deletion", 30)
    assert problems(server) == {}


def test_weights_beside_the_graph_come_through_the_cache_that_python_shares(
    moto_url: str, tmp_path: Path, start: Start
) -> None:
    published = publish(moto_url, "tower", graphs.tower(), folder=tmp_path)
    server = start(moto_url)
    first = server.infer("tower", [WIDE]).json()["outputs"]
    held = {path: path.stat().st_ino for path in copies(tmp_path)}
    assert len(held) == 2, "the graph and its weights"
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in held)
    Registry(moto_url).resolve(published.ref).verify()
    assert Registry(moto_url).resolve(published.ref).file("onnx") in held, "Python finds the server's copy"
    server.stop()
    again = start(moto_url)
    assert again.infer("tower", [WIDE]).json()["outputs"] == first
    assert {path: path.stat().st_ino for path in copies(tmp_path)} == held, "nothing is fetched twice"


def test_a_damaged_copy_in_the_cache_is_fetched_again(moto_url: str, tmp_path: Path, start: Start) -> None:
    publish(moto_url, "tower", graphs.tower(), folder=tmp_path)
    start(moto_url).stop()
    whole = {path: path.read_bytes() for path in copies(tmp_path)}
    for path in whole:
        flip(path)
    assert start(moto_url).infer("tower", [WIDE]).status == 200
    assert {path: path.read_bytes() for path in copies(tmp_path)} == whole


def test_a_damaged_object_is_refused_with_the_verdict(moto_url: str, tmp_path: Path, start: Start) -> None:
    from ocad_registry.remotes import connect

    version = put(moto_url, tmp_path, 1.0)
    key = f"{moto_url.removeprefix('s3://')}/scale/1.0.0/{version.files[0].path}"
    connect(moto_url).pipe_file(key, bytes(version.files[0].size))
    server = start(moto_url, ready=False)
    wait_for(lambda: "scale" in problems(server), "the refusal", 30)
    assert "digest: " in problems(server)["scale"]
    assert copies(tmp_path) == [], "what is not what was published is not kept"


def test_a_damaged_object_is_fetched_once_and_again_when_it_has_changed(
    moto_url: str, proxy: FaultyProxy, tmp_path: Path, start: Start
) -> None:
    from ocad_registry.remotes import connect

    version = put(moto_url, tmp_path, 1.0)
    file = version.files[0]
    key = f"{moto_url.removeprefix('s3://')}/scale/1.0.0/{file.path}"
    whole = connect(moto_url).cat_file(key)
    connect(moto_url).pipe_file(key, bytes(file.size))
    before = len(proxy.requests)

    def asked(method: str) -> int:
        return sum(one.method == method and one.path.endswith(file.path) for one in proxy.requests[before:])

    server = start(moto_url, ready=False)
    wait_for(lambda: asked("HEAD") >= 5, "some looks", 30)
    assert asked("GET") == 1
    connect(moto_url).pipe_file(key, whole)
    wait_for(lambda: server.get("/v2/health/ready").status == 200, "the repaired object", 30)


def test_a_store_that_is_down_is_told_and_waited_for(
    moto_url: str, proxy: FaultyProxy, tmp_path: Path, start: Start
) -> None:
    put(moto_url, tmp_path, 1.0)
    Registry(moto_url).promote("scale@1.0.0", "production")
    put(moto_url, tmp_path, 2.0)
    server = start(moto_url)
    assert server.metrics()["ocad_server_registry_up"] == 1

    proxy.fault = lambda request: Fault(before=hang_up)
    wait_for(lambda: "registry.json" in problems(server), "the outage to be told", 60)
    ready = server.get("/v2/health/ready")
    assert ready.status == 200, "it goes on serving"
    assert "unreachable" in ready.json()["problems"]["registry.json"]
    assert server.metrics()["ocad_server_registry_up"] == 0
    assert served(server) == ("1.0.0", 1.0)
    proxy.fault = lambda request: None
    Registry(moto_url).promote("scale@1.1.0", "production")
    wait_until_served(server, "1.1.0")
    wait_for(lambda: problems(server) == {}, "the end of the outage to be told", 30)
    assert server.metrics()["ocad_server_registry_up"] == 1


def test_a_server_that_starts_during_an_outage_becomes_ready_after_it(
    moto_url: str, proxy: FaultyProxy, tmp_path: Path, start: Start
) -> None:
    put(moto_url, tmp_path, 1.0)
    proxy.fault = lambda request: Fault(status=503, code="SlowDown")
    server = start(moto_url, ready=False)
    wait_for(lambda: "registry.json" in problems(server), "the outage to be told", 60)
    assert server.get("/v2/health/ready").status == 503
    proxy.fault = lambda request: None
    wait_for(lambda: server.get("/v2/health/ready").status == 200, "readiness", 30)
    assert served(server) == ("1.0.0", 1.0)


def test_answers_cut_short_are_asked_for_again(moto_url: str, proxy: FaultyProxy, tmp_path: Path, start: Start) -> None:
    publish(moto_url, "tower", graphs.tower(), folder=tmp_path)
    cut: set[str] = set()

    def fault(request: Request) -> Fault | None:
        name = request.path.rpartition("/")[2]
        if request.method == "GET" and name.startswith("model.onnx") and name not in cut:
            cut.add(name)
            return Fault(keep=100)
        return None

    proxy.fault = fault
    assert start(moto_url).infer("tower", [WIDE]).status == 200
    assert cut == {"model.onnx", "model.onnx.data"}


def test_wrong_credentials_are_said(
    request: pytest.FixtureRequest,
    enter: Callable[[str], str],
    tmp_path: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = enter(request.getfixturevalue("s3proxy_address"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    server = start(place, ready=False)
    wait_for(lambda: "registry.json" in problems(server), "the refusal", 30)
    assert "AWS_SECRET_ACCESS_KEY" in problems(server)["registry.json"]
    assert '"wrong"' not in server.log_text()


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "AccessDenied", "check `AWS_ACCESS_KEY_ID`"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (400, "AuthorizationHeaderMalformed", "set `AWS_REGION`"),
        (503, "SlowDown", "raise `--poll`"),
        (500, "InternalError", "look at its log"),
    ],
)
def test_refusals_of_the_store_say_what_to_do(
    proxy: FaultyProxy, start: Start, moto_url: str, status: int, code: str, advice: str
) -> None:
    proxy.fault = lambda request: Fault(status=status, code=code)
    server = start(moto_url, ready=False)
    wait_for(lambda: "registry.json" in problems(server), "the refusal", 60)
    said = problems(server)["registry.json"]
    assert advice in said
    assert code in said
    assert "\n" not in said


def test_a_missing_bucket_is_said(moto_url: str, start: Start) -> None:
    server = start(f"{moto_url.rpartition('/team')[0]}-not/models", ready=False)
    wait_for(lambda: "registry.json" in problems(server), "the refusal", 30)
    assert "no such bucket" in problems(server)["registry.json"]


JUNK = [
    "",
    "/",
    "/a",
    "scale//",
    "scale//1.0.0/metadata.json",
    "scale/aliases//000009.json",
    "./x",
    "scale/../x",
    "\x01",
]


@pytest.mark.parametrize("junk", JUNK)
def test_keys_that_are_no_paths_hinder_nobody(moto_url: str, tmp_path: Path, start: Start, junk: str) -> None:
    from ocad_registry.remotes import connect

    put(moto_url, tmp_path, 1.0)
    Registry(moto_url).promote("scale@1.0.0", "production")
    server = start(moto_url)
    bucket, _, prefix = moto_url.removeprefix("s3://").partition("/")
    connect(moto_url).call_s3("put_object", Bucket=bucket, Key=f"{prefix}/{junk}", Body=b"junk")
    put(moto_url, tmp_path, 2.0)
    Registry(moto_url).promote("scale@1.1.0", "production")
    wait_until_served(server, "1.1.0")
    assert problems(server) == {}
    assert server.metrics()["ocad_server_registry_up"] == 1
    start(moto_url)


def test_a_quiet_registry_costs_listings_only(moto_url: str, proxy: FaultyProxy, tmp_path: Path, start: Start) -> None:
    put(moto_url, tmp_path, 1.0)
    Registry(moto_url).promote("scale@1.0.0", "production")
    start(moto_url)
    before = len(proxy.requests)
    wait_for(lambda: len(proxy.requests) >= before + 30, "some looks", 30)
    quiet = proxy.requests[before:]
    assert all("list-type=2" in request.path for request in quiet), quiet


def test_what_changes_in_the_middle_of_a_look_leaves_no_gap(
    moto_url: str, proxy: FaultyProxy, tmp_path: Path, start: Start
) -> None:
    put(moto_url, tmp_path, 1.0)
    store = Registry(moto_url)
    store.promote("scale@1.0.0", "production")
    server = start(moto_url)
    changing, done = Event(), Event()
    published: list[str] = []

    def change() -> None:
        published.append(put(moto_url, tmp_path, len(published) + 2.0).ref)
        store.promote(published[-1], "production")
        if len(published) == 8:
            done.set()
        changing.clear()

    def fault(request: Request) -> Fault | None:
        if "list-type=2" not in request.path or changing.is_set() or done.is_set():
            return None
        changing.set()
        return Fault(after=change)

    proxy.fault = fault
    answers = [server.infer("scale", [ROW]).status]
    while not done.is_set() or served(server)[0] != "1.8.0":
        answers.append(server.infer("scale", [ROW]).status)
    assert set(answers) == {200}
