"""The model that is served: a DeepFM-shaped graph with seeded random weights, exported and published by the bench."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ocad_registry import Artifact, Draft, GateResult, Parity, PluginReference, Registry, Signature, Tensor

if TYPE_CHECKING:
    import torch

FIELDS, DIMENSION, HIDDEN = 26, 16, (256, 128, 64)
WIDE = (2048, 2048, 1024)
"""A tower that makes a row some 100 times dearer, for overload: little to send, much to compute."""
VOCABULARY = 10_000
LARGE_VOCABULARY = 200_000
"""A fused table of 26 × 200,000 × 17 float32 is 354 MB."""
MODELS = ("deepfm", "deepfm-fused")
SEED = 20_240_817
TOLERANCE = 1e-5

Ids = npt.NDArray[np.int64]


def ids(rows: int, seed: int = SEED, vocabulary: int = VOCABULARY) -> Ids:
    """Random ids `(rows, 26)` below `vocabulary`."""
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, FIELDS), dtype=np.int64)


def build(fused: bool, vocabulary: int = VOCABULARY, hidden: Sequence[int] = HIDDEN) -> torch.nn.Module:
    """The network: first order, factorisation machine of second order and a tower (Guo et al. 2017).

    Takes ids `(batch, 26)` int64 and gives the click probability `(batch, 1)`. One table for each field, or one for all
    with offsets; a table holds the first-order weight beside the embedding.
    """
    import torch
    from torch import nn

    class DeepFM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = DIMENSION + 1
            sizes = [vocabulary * FIELDS] if fused else [vocabulary] * FIELDS
            self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
            self.register_buffer("offsets", torch.arange(FIELDS) * vocabulary)
            layers: list[nn.Module] = []
            for before, after in itertools.pairwise((FIELDS * DIMENSION, *hidden)):
                layers += [nn.Linear(before, after), nn.ReLU()]
            self.tower = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            if fused:
                rows = self.tables[0](ids + self.get_buffer("offsets"))
            else:
                rows = torch.stack([table(ids[:, field]) for field, table in enumerate(self.tables)], dim=1)
            first, embedded = rows[:, :, 0], rows[:, :, 1:]
            crossed = (embedded.sum(1) ** 2 - (embedded**2).sum(1)).sum(1, keepdim=True) / 2
            deep = self.tower(embedded.flatten(1))
            return torch.sigmoid(first.sum(1, keepdim=True) + crossed + deep)

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    network = DeepFM()
    for table in network.tables:
        assert isinstance(table, nn.Embedding)
        nn.init.normal_(table.weight, std=0.05)
    return network


class Export(NamedTuple):
    """An exported network, its files and how far it is from torch (greatest absolute difference of 512 rows)."""

    artifacts: list[Artifact]
    difference: float


def export(folder: Path, fused: bool, vocabulary: int = VOCABULARY, hidden: Sequence[int] = HIDDEN) -> Export:
    """Exports the network to `folder` and compares it with torch."""
    import torch

    from ocad.export.onnx import export_onnx

    network = build(fused, vocabulary, hidden)
    files = export_onnx(network, {"ids": torch.zeros(2, FIELDS, dtype=torch.int64)}, folder, ["probability"])
    sample = ids(512, vocabulary=vocabulary)
    with torch.inference_mode():
        reference = network(torch.from_numpy(sample)).numpy()
    answer = session(files[0].path).run(None, {"ids": sample})[0]
    return Export(
        [Artifact(file.path, file.role, file.media_type) for file in files], float(abs(answer - reference).max())
    )


def publish(registry: Registry, name: str, exported: Export) -> None:
    """Publishes `exported` as the next version of `name`."""
    difference, passed = exported.difference, exported.difference <= TOLERANCE
    gate = GateResult(
        name="export", metric="max_diff", op="<=", threshold=TOLERANCE, observed=difference, passed=passed
    )
    draft = Draft(
        name=name,
        plugin=PluginReference(name="bench", version="0", package="bench"),
        task="ctr",
        signature=Signature(
            inputs=[Tensor(name="ids", dtype="INT64", shape=[-1, FIELDS])],
            outputs=[Tensor(name="probability", dtype="FP32", shape=[-1, 1], scale=1.0)],
            batchable=True,
        ),
        metrics={"max_diff": difference},
        gates=[gate],
        parity=Parity(reference="torch", samples=512, max_scaled_diff=difference, tolerance=TOLERANCE, passed=passed),
    )
    registry.publish(draft, exported.artifacts)


def registries(folder: Path) -> dict[str, Path]:
    """The registries of the bench: `models` (two versions of each model), `one`, `large`, `wide` and `twenty`.

    Kept until this file changes.
    """
    found = {name: folder / name for name in ("models", "one", "large", "wide", "twenty")}
    stamp, recipe = folder / "complete", hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == recipe:
        return found
    for path in found.values():
        shutil.rmtree(path, ignore_errors=True)
    exports = {name: export(folder / "export" / name, name.endswith("fused")) for name in MODELS}
    for name in (*MODELS, *MODELS):
        publish(Registry(found["models"]), name, exports[name])
    publish(Registry(found["one"]), "deepfm", exports["deepfm"])
    for number in range(20):
        publish(Registry(found["twenty"]), f"deepfm-{number:02}", exports["deepfm-fused"])
    publish(Registry(found["large"]), "deepfm-large", export(folder / "export" / "large", True, LARGE_VOCABULARY))
    publish(Registry(found["wide"]), "deepfm-wide", export(folder / "export" / "wide", True, hidden=WIDE))
    shutil.rmtree(folder / "export")
    stamp.write_text(recipe, encoding="utf-8")
    return found


def session(path: Path, threads: int = 1) -> Any:
    """The bare session: onnxruntime from Python with the server's options."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
