"""One golden registry under construction: its files and, stated by hand, what every reader must say about it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

PASSED_GATE = {"name": "skill", "metric": "skill", "op": ">", "threshold": 0.0, "observed": 0.25, "passed": True}
FAILED_GATE = {**PASSED_GATE, "observed": -0.25, "passed": False}
PARITY = {"reference": "torch", "samples": 512, "max_scaled_diff": 1e-7, "tolerance": 1e-5, "passed": True}
SIGNATURE = {
    "inputs": [{"name": "window", "dtype": "FP32", "shape": [-1, 4], "unit": "us"}],
    "outputs": [{"name": "forecast", "dtype": "FP32", "shape": [-1, 4], "unit": "us", "scale": 12.5}],
}
WEIGHTS = b"weights of a small model\n"
CASES: dict[str, Callable[[Case], None]] = {}

Files = dict[str, tuple[str, bytes]]
"""Path → role and content."""


class Case:
    """One golden registry under construction."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "registry"
        self.digests: dict[str, str] = {}
        self.expected: dict[str, Any] = {"description": "", "setup": [], "open": None, "resolve": {}, "list": []}
        self.expected |= {"read": {}, "aliases": {}, "verify": [], "queries": {}}
        self.write("registry.json", b'{"format": 1}\n')

    def write(self, path: str, data: bytes) -> None:
        """A file of the registry."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def beside(self, name: str, data: bytes) -> None:
        """A file beside the registry."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        (self.root.parent / name).write_bytes(data)

    def raw(self, ref: str, data: bytes, line: bytes | None = None) -> None:
        """A version with these bytes as metadata, and their digest."""
        folder = ref.replace("@", "/")
        self.digests[ref] = hashlib.sha256(data).hexdigest()
        self.write(f"{folder}/metadata.json", data)
        self.write(f"{folder}/metadata.sha256", line or f"{self.digests[ref]}  metadata.json\n".encode())

    def version(self, ref: str, day: int = 1, files: Files | None = None, **changes: Any) -> dict[str, Any]:
        """A version with its payload; the metadata it was given."""
        files = {"weights.bin": ("weights", WEIGHTS)} if files is None else files
        document = manifest(ref, day, files) | changes
        for path, (_, data) in files.items():
            self.write(f"{ref.replace('@', '/')}/{path}", data)
        self.raw(ref, text(document))
        return document

    def entry(self, alias: str, number: int, target: str | None, /, kind: str = "promote", **changes: Any) -> None:
        """An alias entry; `alias` and `target` are references."""
        name, _, label = alias.partition("@")
        fields = {
            "kind": kind,
            "version": target and target.partition("@")[2],
            "metadata_sha256": target and self.digests.get(target, "0" * 64),
            "moved_at": f"2026-02-{number:02d}T08:00:00.000000Z",
            "by": "ops@example",
            "reason": "",
            "forced": False,
        }
        self.write(f"{name}/aliases/{label}/{number:06d}.json", text(fields | changes))

    def lists(self, ref: str, *aliases: str, passed: bool = True) -> None:
        """The next line of the list, readable and whole."""
        self.expected["list"].append({"ref": ref, "aliases": list(aliases), "passed": passed})
        self.expected["read"].setdefault(ref, None)

    def broken(self, ref: str, kind: str, *aliases: str) -> None:
        """The next line of the list: broken; every reading of it says so."""
        self.expected["list"].append({"ref": ref, "aliases": list(aliases), "broken": kind})
        self.damaged(ref, kind)

    def damaged(self, ref: str, kind: str) -> None:
        """Reading the whole version gives `kind`."""
        self.expected["read"][ref] = kind
        self.finds(ref, "error", kind)

    def finds(self, reference: str, severity: str, kind: str) -> None:
        """A line of `verify`."""
        self.expected["verify"].append({"reference": reference, "severity": severity, "kind": kind})

    def resolves(self, **answers: str) -> None:
        """Reference → version, or a kind when it begins with `!`."""
        self.expected["resolve"] |= {reference: outcome(answer) for reference, answer in answers.items()}

    def points(self, alias: str, answer: str) -> None:
        """What an alias is read as."""
        self.expected["aliases"][alias] = outcome(answer)

    def query(self, expression: str, *refs: str) -> None:
        """The answer to a query."""
        self.expected["queries"][expression] = {"error": "invalid-query"} if refs == ("!",) else list(refs)

    def finish(self) -> dict[str, Any]:
        """The content of `expected.json`."""
        self.expected["verify"].sort(key=lambda line: (line["reference"], line["severity"], line["kind"]))
        if self.expected["open"]:
            return {key: self.expected[key] for key in ("description", "setup", "open")}
        return self.expected


def case(function: Callable[[Case], None]) -> Callable[[Case], None]:
    """Registers a case under its function's name; its docstring is the description."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


def outcome(answer: str) -> str | dict[str, str]:
    """An answer, or the error that `!kind` stands for."""
    return {"error": answer[1:]} if answer.startswith("!") else answer


def text(document: dict[str, Any]) -> bytes:
    """A document as bytes."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def manifest(ref: str, day: int, files: Files) -> dict[str, Any]:
    """A valid `metadata.json`."""
    name, _, version = ref.partition("@")
    listed = [
        {
            "path": path,
            "role": role,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "media_type": "application/octet-stream",
        }
        for path, (role, data) in files.items()
    ]
    return {
        "format": 1,
        "name": name,
        "version": version,
        "created_at": f"2026-01-{day:02d}T12:00:00.000000Z",
        "plugin": {"name": "tcn", "version": "0.1.0", "package": "ocad"},
        "task": "forecast",
        "metric": "udp_echo",
        "signature": SIGNATURE,
        "files": listed,
        "params": {"epochs": 30, "channels": [32, 32, 32], "note": None},
        "metrics": {"val_loss": 0.125, "skill": 0.25, "val.auc": 0.5},
        "gates": [PASSED_GATE],
        "parity": PARITY,
        "passed": True,
        "data": {"name": "udp_echo", "fingerprint": "f" * 64, "rows": 36000, "splits": {"train": 23000, "test": 6000}},
        "parents": [],
        "git_commit": "c" * 40,
        "environment": {"python": "3.11"},
        "description": "",
        "tags": {"team": "radio"},
    }


def network(location: str = "model.onnx.data", offset: int = 0) -> bytes:
    """An ONNX graph, y = x * w, whose `w` of four floats lies outside at `location` (none if it is empty)."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": str(offset), "length": "16"}.items():
        if value:
            weight.external_data.add(key=key, value=value)
    shape: list[str | int | None] = ["batch", 4]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["window", "w"], ["forecast"])],
        "golden",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, shape)],
        initializer=[weight],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.producer_name = "golden"
    return bytes(model.SerializeToString(deterministic=True))


def network_files(onnx_bytes: bytes | None = None) -> Files:
    """A network and its external data."""
    data = struct.pack("<4f", 0.5, 1.0, 1.5, 2.0)
    return {
        "model.onnx": ("onnx", network() if onnx_bytes is None else onnx_bytes),
        "model.onnx.data": ("onnx-data", data),
    }
