"""Golden cases about what writers to an object store leave: payload under a folder of its writer, claims, losers."""

from __future__ import annotations

from tests.golden.registry_case import FAILED_GATE, WEIGHTS, Case, Files, case, network, network_files

WINNER = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
LOSER = "f9e8d7c6b5a4938271605f4e3d2c1b0a"


def under(writer: str, files: Files) -> Files:
    """The same files as the publisher `writer` (32 hex digits) stores them."""
    return {f"{writer}/{path}": content for path, content in files.items()}


@case
def object_store(c: Case) -> None:
    """As object stores hold it: the payload under a folder of its writer, what losers and killed writers left beside it."""
    c.version("m@1.0.0", 1, under(WINNER, network_files()))
    c.version("m@1.1.0", 2, under(LOSER, network_files()), metrics={"val_loss": 0.0625, "skill": 0.5})
    c.write(f"m/1.1.0/{WINNER}/model.onnx", network())
    c.finds("m@1.1.0", "warning", "unlisted-file")
    c.version("m@1.2.0", 3, under(WINNER, {"weights.bin": ("weights", WEIGHTS)}), gates=[FAILED_GATE], passed=False)
    c.version("m@1.3.0", 4, {})
    c.write("m/1.4.0/metadata.sha256", f"{'a' * 64}  metadata.json\n".encode())
    c.write(f"m/1.4.0/{WINNER}/model.onnx", network())
    c.finds("m@1.4.0", "warning", "incomplete")
    c.write(f"m/1.5.0/{LOSER}/model.onnx", network())
    c.finds("m@1.5.0", "warning", "incomplete")
    c.write(
        "m/deleted/1.6.0.json", b'{"deleted_at": "2026-02-01T08:00:00.000000Z", "by": "ops@example", "reason": ""}\n'
    )
    c.write(f"m/1.6.0/{WINNER}/model.onnx", network())
    c.entry("m@production", 1, "m@1.1.0")
    c.entry("m@production", 2, "m@1.0.0", "rollback")
    c.entry("m@canary", 1, "m@1.1.0")
    c.lists("m@1.3.0")
    c.lists("m@1.2.0", passed=False)
    c.lists("m@1.1.0", "canary")
    c.lists("m@1.0.0", "production")
    c.points("m@production", "1.0.0")
    c.points("m@canary", "1.1.0")
    gone = dict.fromkeys(("m@1.4.0", "m@1.5.0", "m@1.6.0"), "!not-found")
    c.resolves(**{"m": "1.0.0", "m@1.3.0": "1.3.0"}, **gone)
    c.query(f"files.path = '{WINNER}/model.onnx'", "m@1.0.0")
    c.query("files.role = 'onnx'", "m@1.1.0", "m@1.0.0")


@case
def object_store_damaged(c: Case) -> None:
    """Damage under the folder of a writer: bytes, a missing file, external data that lies beside another writer's."""
    files = under(WINNER, network_files())
    c.version("m@1.0.0", 1, files)
    c.write(f"m/1.0.0/{WINNER}/model.onnx.data", bytes(16))
    c.version("m@1.1.0", 2, files)
    (c.root / f"m/1.1.0/{WINNER}/model.onnx.data").unlink()
    outside = under(WINNER, {"model.onnx": ("onnx", network(f"../{LOSER}/model.onnx.data"))})
    c.version("m@1.2.0", 3, outside | under(LOSER, {"model.onnx.data": network_files()["model.onnx.data"]}))
    from_root = under(WINNER, {"model.onnx": ("onnx", network(f"{WINNER}/model.onnx.data"))})
    c.version("m@1.3.0", 4, from_root | under(WINNER, {"model.onnx.data": network_files()["model.onnx.data"]}))
    c.version("m@1.4.0", 5, {f"{WINNER}/../model.bin": ("weights", WEIGHTS)})
    kinds = {"m@1.3.0": "external-data", "m@1.2.0": "external-data", "m@1.1.0": "missing-file", "m@1.0.0": "digest"}
    for ref, kind in kinds.items():
        c.lists(ref)
        c.damaged(ref, kind)
    c.broken("m@1.4.0", "bad-path")
    c.resolves(**{"m": "1.3.0"})
