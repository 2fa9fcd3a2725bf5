"""Golden cases about documents: strict JSON, types, digests, limits, formats."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.golden.registry_case import (
    FAILED_GATE,
    PARITY,
    PASSED_GATE,
    SIGNATURE,
    WEIGHTS,
    Case,
    Files,
    case,
    manifest,
    text,
)


@case
def metadata_flipped(c: Case) -> None:
    """One byte of the metadata differs, its digest is absent, malformed or in capitals: none of it is believed."""
    document = text(manifest("m@1.0.0", 1, {}))
    digest = hashlib.sha256(document).hexdigest()
    for number, line in enumerate([f"{'0' * 64}  metadata.json\n", digest, f"{digest.upper()}  metadata.json\n", ""]):
        c.version(f"m@1.{number}.0", 9 - number)
        c.write(f"m/1.{number}.0/metadata.sha256", line.encode())
    c.version("m@1.4.0", 1)
    (c.root / "m/1.4.0/metadata.sha256").unlink()
    c.version("m@0.9.0", 1)
    c.version("m@2.0.0", 2)
    flipped = (c.root / "m/2.0.0/metadata.json").read_bytes().replace(b"36000", b"36001")
    c.write("m/2.0.0/metadata.json", flipped)
    c.lists("m@0.9.0")
    for ref in ("m@2.0.0", "m@1.4.0", "m@1.3.0", "m@1.2.0", "m@1.1.0", "m@1.0.0"):
        c.broken(ref, "metadata-digest")
    c.resolves(**{"m": "0.9.0", "m@2.0.0": "2.0.0"})


@case
def path_escape(c: Case) -> None:
    """Paths in `files` that leave the version's folder, or mean different files to different systems."""
    paths = ["../../outside", "/etc/hostname", "a\\b", "a//b", "./a", "a/.hidden", "metadata.json", "", "a/..", "ä"]
    for number, path in enumerate(paths):
        document = manifest(f"m@1.{number}.0", 1, {path: ("weights", WEIGHTS)})
        c.raw(f"m@1.{number}.0", text(document))
    c.write("outside", WEIGHTS)
    c.version("m@2.0.0", files={"a/b+c/D_1-2.bin": ("weights", WEIGHTS)})
    c.lists("m@2.0.0")
    for number in reversed(range(len(paths))):
        c.broken(f"m@1.{number}.0", "bad-path")
    c.finds("outside", "warning", "stray")


@case
def newer_format(c: Case) -> None:
    """A version of a newer format among others; its other fields are not looked at."""
    c.version("m@1.0.0")
    c.raw("m@2.0.0", text(manifest("m@2.0.0", 2, {}) | {"format": 2, "files": "elsewhere"}))
    c.entry("m@production", 1, "m@2.0.0")
    c.lists("m@1.0.0")
    c.broken("m@2.0.0", "newer-format", "production")
    c.resolves(**{"m": "2.0.0", "m@1.0.0": "1.0.0"})
    c.points("m@production", "!newer-format")


@case
def newer_registry(c: Case) -> None:
    """The registry itself is of a newer format: nothing in it is read."""
    c.version("m@1.0.0")
    c.write("registry.json", b'{"format": 2, "layout": "sharded"}\n')
    c.expected["open"] = "newer-format"


@case
def bad_registry(c: Case) -> None:
    """`registry.json` names no format."""
    c.version("m@1.0.0")
    c.write("registry.json", b'{"format": "1"}\n')
    c.expected["open"] = "bad-registry"


@case
def no_registry_file(c: Case) -> None:
    """Without `registry.json` format 1 is assumed, and `verify` says so."""
    c.version("m@1.0.0")
    (c.root / "registry.json").unlink()
    c.lists("m@1.0.0")
    c.finds("registry.json", "warning", "registry-missing")
    c.resolves(m="1.0.0")


@case
def unknown_field(c: Case) -> None:
    """Unknown fields are legal at every level; optional ones may be absent; an unknown role is a role."""
    document = manifest("m@1.0.0", 1, {"notes.txt": ("notes", WEIGHTS)})
    for place in (document, document["plugin"], document["files"][0], document["gates"][0], document["data"]):
        place["x-new"] = {"deep": [1, None, 1e300, 123456789012345678901234567890]}
    for field in (
        "metric",
        "signature",
        "params",
        "parity",
        "parents",
        "git_commit",
        "environment",
        "description",
        "tags",
    ):
        del document[field]
    del document["data"]["splits"]
    c.write("m/1.0.0/notes.txt", WEIGHTS)
    c.raw("m@1.0.0", text(document))
    c.lists("m@1.0.0")
    c.query("metric is null and tags.team is null and parity is null", "m@1.0.0")


@case
def nan_metric(c: Case) -> None:
    """Metrics, and any other number, must be finite: NaN, Infinity, 1e999 and a 400-digit integer are no JSON here."""
    for number, wrong in enumerate(["NaN", "-Infinity", "1e999", "9" * 400]):
        good = text(manifest(f"m@1.{number}.0", 1, {}))
        c.raw(f"m@1.{number}.0", good.replace(b'"val_loss": 0.125', f'"val_loss": {wrong}'.encode()))
    for number in reversed(range(4)):
        c.broken(f"m@1.{number}.0", "bad-json")
    c.resolves(**{"m": "!not-found", "m@1.0.0": "1.0.0"})


@case
def broken_json(c: Case) -> None:
    """What some JSON parsers let pass and others do not."""
    good = text(manifest("m@9.9.9", 1, {}))
    deep = b"[" * 127 + b"]" * 127
    wrong = [
        good[:-40],
        b"",
        b"\xef\xbb\xbf" + good,
        good.replace(b'"format": 1,', b'"format": 1, "format": 1,'),
        good.replace(b'"epochs": 30,', b'"epochs": 30, "epochs": 30,'),
        good.replace(b'"radio"', b'"\xff"'),
        good.replace(b'"radio"', b'"\\ud800"'),
        good.replace(b'"radio"', b'"a\tb"'),
        good + b"{}",
        b"[" + good + b"]",
        good.replace(b'"epochs": 30', b'"epochs": 030'),
        good.replace(b'"epochs": 30', b'"epochs": ' + deep),
        good.replace(b'"epochs": 30', b'"epochs": 30, // a comment'),
        good.decode().encode("utf-16"),
    ]
    for number, data in enumerate(wrong):
        c.raw(f"m@1.{number}.0", data)
    shallow = b"[" * 125 + b"]" * 125
    document = text(manifest("m@2.0.0", 1, {})).replace(b'"epochs": 30', b'"epochs": ' + shallow)
    c.raw("m@2.0.0", b"\r\n\t " + document.replace(b'"radio"', b'"\\ud83d\\ude00 \\u0000"') + b" ")
    c.lists("m@2.0.0")
    for number in reversed(range(len(wrong))):
        c.broken(f"m@1.{number}.0", "bad-json")
    c.resolves(m="2.0.0")


@case
def bad_manifest(c: Case) -> None:
    """Strict JSON of the wrong shape: absent fields, types that are nearly right, contradictions."""
    two_graphs: Files = {"a.onnx": ("onnx", b""), "b.onnx": ("onnx", b"")}
    changes: list[dict[str, Any]] = [
        {"format": 0},
        {"format": 1.0},
        {"format": True},
        {"created_at": "2026-01-01T12:00:00Z"},
        {"metrics": {"val_loss": True}},
        {"metrics": {"val_loss": "0.1"}},
        {"params": None},
        {"tags": {"team": 1}},
        {"passed": 1},
        {"gates": []},
        {"gates": [FAILED_GATE]},
        {"gates": [{**PASSED_GATE, "op": "=="}]},
        {"passed": False},
        {"parity": {**PARITY, "samples": -1}},
        {"plugin": "tcn"},
        {"data": {"name": "d", "fingerprint": "", "rows": 2**53}},
        {"signature": {"inputs": [{"name": "x", "dtype": "float32", "shape": [-1]}], "outputs": []}},
        {"signature": {"inputs": [], "outputs": [{"name": "y", "dtype": "FP32", "shape": [-2]}]}},
        {"files": manifest("m@1.0.0", 1, two_graphs)["files"]},
        {"files": manifest("m@1.0.0", 1, {"a": ("weights", b"")})["files"] * 2},
        {"files": [{"path": "a", "role": "weights", "size": 1.0, "sha256": "0" * 64, "media_type": ""}]},
        {"files": [{"path": "a", "role": "weights", "size": 1, "sha256": "A" * 64, "media_type": ""}]},
        {"files": [{"path": "a", "role": "onnx", "size": 1, "sha256": "0" * 64, "media_type": ""}], "parity": None},
        {"format": 2**64},
    ]
    for number, change in enumerate(changes):
        c.raw(f"m@1.{number}.0", text(manifest(f"m@1.{number}.0", 1, {}) | change))
    unnamed = manifest("m@1.90.0", 1, {})
    del unnamed["metrics"]
    c.raw("m@1.90.0", text(unnamed))
    c.raw("m@1.91.0", text(manifest("m@1.90.0", 1, {})))
    c.raw("m@1.92.0", text(manifest("n@1.92.0", 1, {})))
    c.broken("m@1.92.0", "misplaced")
    c.broken("m@1.91.0", "misplaced")
    c.broken("m@1.90.0", "bad-manifest")
    for number in reversed(range(len(changes))):
        c.broken(f"m@1.{number}.0", "bad-manifest")


@case
def batchable(c: Case) -> None:
    """`batchable` of a signature: true, false, null and absent mean something, anything else is no manifest."""
    legal, wrong = [True, False, None], ["yes", 1, []]
    for number, value in enumerate([*legal, *wrong]):
        c.version(f"m@1.{number}.0", 9 - number, signature=SIGNATURE | {"batchable": value})
    c.version("m@1.9.0", 9)
    c.lists("m@1.9.0")
    for number in range(len(legal)):
        c.lists(f"m@1.{number}.0")
    for number in reversed(range(len(legal), len(legal) + len(wrong))):
        c.broken(f"m@1.{number}.0", "bad-manifest")
    c.query("signature.batchable = true", "m@1.0.0")
    c.query("signature.batchable is null", "m@1.9.0", "m@1.2.0")


@case
def huge_json(c: Case) -> None:
    """Documents over the limits are refused unread; one of exactly the limit is read."""
    c.version("m@1.0.0")
    good = c.version("m@1.1.0", 2)
    limit = 4 * 1024 * 1024
    padded = text(good | {"version": "1.2.0"})
    c.digests["m@1.2.0"] = hashlib.sha256(padded + b" " * (limit - len(padded))).hexdigest()
    c.write("m/1.2.0/weights.bin", WEIGHTS)
    c.write("m/1.2.0/metadata.sha256", f"{c.digests['m@1.2.0']}  metadata.json\n".encode())
    c.entry("m@production", 1, "m@1.0.0")
    c.expected["setup"] = [
        {"generate": "m/1.1.0/metadata.json", "repeat": " ", "times": limit + 1},
        {"generate": "m/1.2.0/metadata.json", "repeat": padded.decode(), "times": 1},
        {"append": "m/1.2.0/metadata.json", "repeat": " ", "times": limit - len(padded)},
        {"generate": "m/aliases/production/000002.json", "repeat": " ", "times": 64 * 1024 + 1},
    ]
    (c.root / "m/1.1.0/metadata.json").unlink()
    c.lists("m@1.2.0")
    c.lists("m@1.0.0")
    c.broken("m@1.1.0", "oversized-json")
    c.points("m@production", "!bad-alias-entry")
    c.finds("m@production", "error", "bad-alias-entry")


@case
def version_order(c: Case) -> None:
    """SemVer precedence where the times are equal, and the highest release that passed."""
    order = "1.10.0 1.9.0 1.0.0 1.0.0-rc.1 1.0.0-beta.11 1.0.0-beta.2 1.0.0-beta 1.0.0-alpha.beta 1.0.0-alpha.1 1.0.0-alpha 1.0.0-2"
    for version in order.split():
        failed = version == "1.10.0"
        c.version(f"m@{version}", gates=[FAILED_GATE if failed else PASSED_GATE], passed=not failed)
        c.lists(f"m@{version}", passed=not failed)
    c.resolves(m="1.9.0")
    c.query("version < '1.0.0' and version > '1.0.0-beta'", "m@1.0.0-rc.1", "m@1.0.0-beta.11", "m@1.0.0-beta.2")
