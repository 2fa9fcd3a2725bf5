"""A hostile writer of the registry's folder: nothing unsigned, altered or older is ever answered, and nothing crashes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.serving import graphs, tampering
from tests.serving.conftest import Launch
from tests.serving.registries import publish
from tests.serving.servers import tensor, wait_for

from ocad_registry import Registry
from ocad_registry.signing import create_key

ROW = tensor("x", "FP32", [[1.0, 2.0]])
IDS = tampering.IDS


def attacked(folder: Path, starts: int, seed: int) -> None:
    counts = tampering.attack(folder, starts, seed, "--require-signature=aliases")
    assert set(counts) <= {"right", "refused"}, counts
    assert min(counts["right"], counts["refused"]) > 0, counts


def test_some_starts_under_attack(tmp_path: Path) -> None:
    attacked(tmp_path, 12, 3)


@pytest.mark.slow
def test_a_thousand_starts_under_attack(tmp_path: Path) -> None:
    attacked(tmp_path, 1000, 5)


def test_a_folder_that_others_can_write_is_served_from_private_copies(launch: Launch, tmp_path: Path) -> None:
    root = tmp_path / "models"
    publish(root, "table", graphs.lookup(120_000))
    (root / "table").chmod(0o775)
    server = launch(root)
    before = server.infer("table", [IDS]).body
    data = next((root / "table" / "1.0.0").glob("*.data"))
    data.chmod(0o644)
    data.write_bytes(b"")
    assert server.infer("table", [IDS]).body == before
    assert list((tmp_path / "cache" / "versions").glob(f"*/*/{data.name}"))


def test_a_revoked_key_and_a_removed_signature_count_at_once(launch: Launch, tmp_path: Path) -> None:
    root, ours, other, keys = tmp_path / "models", tmp_path / "ours.pem", tmp_path / "other.pem", tmp_path / "keys.pem"
    for key in (ours, other):
        create_key(key)
    store = Registry(root)
    for name, key in (("revoked", other), ("removed", ours), ("kept", ours)):
        publish(root, name, graphs.scale(1.0))
        store.sign(name, key)
    keys.write_bytes(Path(f"{ours}.pub").read_bytes() + Path(f"{other}.pub").read_bytes())
    server = launch(root, "--require-signature", "--keys", str(keys), "--poll", "0.05")
    assert {server.infer(name, [ROW]).status for name in ("revoked", "removed", "kept")} == {200}
    keys.write_bytes(Path(f"{ours}.pub").read_bytes())
    next((root / "removed" / "signatures" / "1.0.0").iterdir()).unlink()
    for name in ("revoked", "removed"):
        wait_for(lambda name=name: server.infer(name, [ROW]).status != 200, f"{name} to be refused")  # type: ignore[misc]
        assert server.infer(name, [ROW], "1.0.0").status == 503
    assert server.infer("kept", [ROW]).status == 200
    assert "is not served any more" in server.log_text()
    problems = server.get("/v2/health/ready").json()["problems"]
    assert {name: problem.partition(":")[0] for name, problem in problems.items()} == {
        "revoked": "unsigned",
        "removed": "unsigned",
    }
    keys.write_bytes(b"")
    wait_for(lambda: "--keys" in server.get("/v2/health/ready").json()["problems"], "the unreadable keys")
    assert server.infer("kept", [ROW]).status == 200, "what was trusted last is trusted on"
