"""The peers of the click-through benchmarks: DeepFM of `deepctr-torch` and `torch-rechub`, trained by their own `fit`.

They are installed without their dependencies under `.cache/bench/ctr-peers`, so that all run on the same torch.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ocad.clicks.model import InputShape
from ocad.tabular.dataset import Clicks

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "bench" / "ctr-peers"
PACKAGES = ("deepctr-torch", "torch-rechub", "tqdm", "requests", "urllib3", "idna", "certifi", "charset-normalizer")
DIMENSION, HIDDEN, DROPOUT, BATCH, RATE = 10, (400, 400, 400), 0.2, 4096, 1e-3
"""The network of the Frappe benchmark (Zhu et al. 2022, BARS)."""
FRAPPE_SIZES = (957, 4082, 7, 7, 2, 3, 2, 9, 80, 233)
"""Values of the ten Frappe columns: 5,382 in all."""


@dataclass(frozen=True)
class Log:
    """Seeded rows of a latent factorisation model with the shape of Frappe."""

    shape: InputShape
    train: Clicks
    test: Clicks


def make_log(rows: int, sizes: Sequence[int] = FRAPPE_SIZES, seed: int = 1, test_rows: int = 50_000) -> Log:
    """`rows` training and `test_rows` test rows over fields of `sizes` values, skewed as real ones are."""
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    total = rows + test_rows
    columns = [np.minimum((generator.random(total) ** 2.5 * size).astype(np.int64), size - 1) for size in sizes]
    ids = np.stack(columns, axis=1) + offsets
    vectors = generator.normal(0, 0.55, (sum(sizes), 4)).astype(np.float32)
    taken = vectors[ids]
    pairs = 0.5 * (taken.sum(axis=1) ** 2 - (taken**2).sum(axis=1)).sum(axis=1)
    label = (generator.random(total) < 1 / (1 + np.exp(0.7 - pairs))).astype(np.float32)
    empty = np.empty((total, 0), np.float32)
    parts = (Clicks(ids[rows_of], empty[rows_of], label[rows_of]) for rows_of in (slice(rows), slice(rows, None)))
    shape = InputShape(tuple(offsets.tolist()), tuple(sizes), (None,) * len(sizes), sum(sizes), ())
    return Log(shape, *parts)


def install() -> dict[str, str]:
    """Puts the peers where they can be imported, and returns their versions."""
    if not (FOLDER / "requests").is_dir():
        uv = shutil.which("uv")
        pip = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
        subprocess.run([*pip, "-q", "--no-deps", "--target", str(FOLDER), *PACKAGES], check=True)
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return {found.metadata["Name"]: found.version for found in distributions(path=[str(FOLDER)])}


def deepctr(
    shape: InputShape, dimension: int = DIMENSION, hidden: Sequence[int] = HIDDEN
) -> tuple[nn.Module, Callable[[Clicks], None]]:
    """The model of `deepctr-torch`, and what trains it for one epoch."""
    with contextlib.redirect_stdout(io.StringIO()):  # it looks for newer versions of itself
        import deepctr_torch  # type: ignore[import-not-found] # noqa: F401
    from deepctr_torch.inputs import SparseFeat  # type: ignore[import-not-found]
    from deepctr_torch.models import DeepFM  # type: ignore[import-not-found]

    columns = [SparseFeat(f"f{place}", size, embedding_dim=dimension) for place, size in enumerate(shape.sizes)]
    settings: dict[str, Any] = {"dnn_hidden_units": tuple(hidden), "dnn_dropout": DROPOUT, "dnn_use_bn": True}
    model = DeepFM(columns, columns, l2_reg_linear=0, l2_reg_embedding=0, **settings)
    model.compile(torch.optim.Adam(model.parameters(), RATE), "binary_crossentropy")

    def train(clicks: Clicks) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(own_columns(clicks.ids, shape), clicks.label, batch_size=BATCH, epochs=1, verbose=0)

    return model, train


def rechub(
    shape: InputShape, dimension: int = DIMENSION, hidden: Sequence[int] = HIDDEN
) -> tuple[nn.Module, Callable[[Clicks], None]]:
    """The model of `torch-rechub`, and what trains it for one epoch."""
    from torch_rechub.basic.features import SparseFeature  # type: ignore[import-not-found]
    from torch_rechub.models.ranking import DeepFM  # type: ignore[import-not-found]
    from torch_rechub.trainers import CTRTrainer  # type: ignore[import-not-found]
    from torch_rechub.utils.data import DataGenerator  # type: ignore[import-not-found]

    features = [SparseFeature(f"f{place}", size, embed_dim=dimension) for place, size in enumerate(shape.sizes)]
    model = DeepFM(features, features, {"dims": list(hidden), "dropout": DROPOUT, "activation": "relu"})
    folder = tempfile.mkdtemp(prefix="ctr-peer-")
    settings = {"optimizer_params": {"lr": RATE}, "n_epoch": 1, "model_path": folder}
    trainer = CTRTrainer(model, **settings)

    def train(clicks: Clicks) -> None:
        loader, _, _ = DataGenerator(own_columns(clicks.ids, shape), clicks.label).generate_dataloader(
            x_val=own_columns(clicks.ids[:1], shape), y_val=clicks.label[:1], x_test=own_columns(clicks.ids[:1], shape),
            y_test=clicks.label[:1], batch_size=BATCH,
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trainer.fit(loader)

    return model, train


def own_columns(ids: NDArray[np.int64], shape: InputShape) -> dict[str, NDArray[np.int64]]:
    """The ids as the peers take them: each field from 0, by name."""
    return {f"f{place}": ids[:, place] - offset for place, offset in enumerate(shape.offsets)}


def peer_inputs(name: str, ids: NDArray[np.int64], shape: InputShape) -> Any:
    """What the peer's `forward` takes for `ids`."""
    columns = own_columns(ids, shape)
    if name == "deepctr-torch":
        return torch.from_numpy(np.stack(list(columns.values()), axis=1)).float()
    return {field: torch.from_numpy(np.ascontiguousarray(values)) for field, values in columns.items()}


PEERS = {"deepctr-torch": deepctr, "torch-rechub": rechub}
