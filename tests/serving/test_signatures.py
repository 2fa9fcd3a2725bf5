"""`--require-signature`: what none of the trusted keys has signed is refused, and says so; what Python signs is served."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.registry.objects.faults import FaultyProxy
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.registries import publish
from tests.serving.servers import Server, command, environment, tensor, wait_for

from ocad_registry import Registry
from ocad_registry.signing import create_key

ROW = tensor("x", "FP32", [[1.0, 2.0]])


def served(server: Server) -> str:
    """The version of `scale` that answers."""
    version: str = server.infer("scale", [ROW]).json()["model_version"]
    return version


def required(keys: Path) -> tuple[str, ...]:
    """The flags, with frequent looks: a new signature alone is found by polling."""
    return "--require-signature", "--keys", str(keys), "--poll", "0.05"


def test_only_what_a_trusted_key_has_signed_is_served(launch: Launch, models: Path, tmp_path: Path) -> None:
    ours, other, store = tmp_path / "ours.pem", tmp_path / "other.pem", Registry(models)
    create_key(ours)
    create_key(other)
    store.sign("scale@1.0.0", ours)
    for factor in (2.0, 3.0):
        publish(models, "scale", graphs.scale(factor))
    store.sign("scale@1.1.0", other)
    server = launch(models, *required(Path(f"{ours}.pub")))
    assert served(server) == "1.0.0"
    lines = {line["version"]: line for line in server.request("POST", "/v2/repository/index", "{}").json()}
    assert {version: line["state"] for version, line in lines.items()} == {
        "1.0.0": "READY",
        "1.1.0": "UNAVAILABLE",
        "1.2.0": "UNAVAILABLE",
    }
    assert lines["1.1.0"]["reason"].startswith("unsigned: ")
    assert server.infer("scale", [ROW], "1.2.0").status == 503
    store.promote("scale@1.1.0", "production")
    wait_for(lambda: "scale" in server.get("/v2/health/ready").json()["problems"], "the refusal")
    assert served(server) == "1.0.0", "an unsigned version does not take over"
    store.sign("scale@1.1.0", ours)
    wait_for(lambda: served(server) == "1.1.0", "the version that is signed now")


def test_without_the_flag_signatures_do_not_matter(launch: Launch, models: Path) -> None:
    assert served(launch(models)) == "1.0.0"


def test_signatures_are_read_from_object_stores(
    launch: Launch, moto_url: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    create_key(key)
    publish(moto_url, "scale", graphs.scale(1.0), folder=tmp_path)
    publish(moto_url, "scale", graphs.scale(2.0), folder=tmp_path)
    Registry(moto_url).sign("scale@1.0.0", key)
    server = launch(moto_url, *required(Path(f"{key}.pub")), folder=tmp_path)
    assert served(server) == "1.0.0"
    assert any("/signatures/1.1.0/" in request.path for request in proxy.requests)
    Registry(moto_url).sign("scale@1.1.0", key)
    wait_for(lambda: served(server) == "1.1.0", "the version that is signed now", 30)


def test_keys_that_are_none_stop_the_start(models: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    create_key(key)
    for keys, cause in ((key, "nothing secret"), (tmp_path / "absent", "absent")):
        failed = subprocess.run(
            command(models, *required(keys)),
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert failed.returncode == 1
        assert cause in failed.stderr
