"""The commands on a registry in a bucket: from training to detection, files read through the cache."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import HELLO, CommandLine
from tests.registry.objects.conftest import enter, moto_address, moto_url  # noqa: F401 - fixtures

from ocad_registry.remotes import connect

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "registry.md"


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """The URL of an empty registry on a running server."""
    url: str = request.getfixturevalue("moto_url")
    return url


def test_a_model_lives_in_a_bucket(ocad: CommandLine, bucket: str, tmp_path: Path) -> None:
    store = ("--registry", bucket, "--json")
    trained = ocad(*HELLO, "--promote", "production", *store)
    assert trained.code == 0, trained.err
    assert trained.value["path"] == f"{bucket}/hello-udp_echo/1.0.0"
    assert ocad(*HELLO, *store).value["ref"] == "hello-udp_echo@1.1.0"

    assert ocad("verify", "hello-udp_echo@production", *store).value["passed"] is True
    assert ocad("evaluate", "hello-udp_echo", *store).code == 0
    predicted = ocad("predict", "hello-udp_echo", "--data", "windows.npz", "--output", "p.parquet", *store)
    assert predicted.value["rows"] == 2

    assert ocad("registry", "promote", "hello-udp_echo@1.1.0", "production", *store).value["number"] == 2
    assert ocad("registry", "rollback", "hello-udp_echo", "production", *store).value["version"] == "1.0.0"
    assert len(ocad("registry", "history", "hello-udp_echo", "production", *store).value) == 3
    shown = ocad("registry", "show", "hello-udp_echo", *store).value
    assert (shown["aliases"], shown["path"]) == (["production"], f"{bucket}/hello-udp_echo/1.0.0")
    assert [entry["version"] for entry in ocad("registry", "query", "task = 'forecast'", *store).value] == [
        "1.1.0",
        "1.0.0",
    ]
    assert len(ocad("registry", "list", *store).value) == 2
    assert ocad("registry", "verify", *store).value == []
    assert ocad("registry", "unset", "hello-udp_echo", "production", *store).code == 0
    kept = {path.name for path in (tmp_path / "cache" / "versions").rglob("*") if path.is_file()}
    assert {Path(file["path"]).name for file in shown["files"]} <= kept


def test_a_detector_lives_in_a_bucket(ocad: CommandLine, bucket: str) -> None:
    store = ("--registry", bucket, "--json")
    trained = ocad("train", "--plugin", "rule_based", "--metric", "udp_echo", "--data", "link", *store)
    assert trained.code in (0, 3), trained.err
    detected = ocad("detect", trained.value["ref"], "--data", "link", *store)
    assert detected.code == 0, detected.err
    answer = ocad("doctor", *store)
    assert f"{bucket}: 1 versions of 1 models" in answer.out


def test_the_guide(ocad: CommandLine, bucket: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of docs/registry.md, "Object stores", as it stands there."""
    connect(bucket).call_s3("create_bucket", Bucket="ocad")
    monkeypatch.setenv("OCAD_REGISTRY", "s3://ocad/team/models")
    shutil.copy(work / "series.parquet", work / "measurements.parquet")
    (block,) = re.findall(r"```sh s3\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [shlex.split(line) for line in block.splitlines()]
    assert len(commands) >= 8
    for command in commands:
        answer = ocad(*command[1:])
        assert (answer.code, bool(answer.out)) == (0, True), f"{command}: {answer}"


def test_what_a_bucket_refuses_is_one_line(ocad: CommandLine, bucket: str) -> None:
    refused = ocad("registry", "list", "--registry", "s3://no-such-bucket-anywhere/models", "--json")
    assert refused.code == 1
    assert refused.value["error"]["code"] == "no-bucket"
    plain = ocad("registry", "list", "--registry", "ftp://host/models")
    assert (plain.code, plain.out) == (2, "")
    assert "Traceback" not in plain.err
