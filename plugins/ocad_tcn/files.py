"""The plugin by files: weights and graphs under their known names, for scripts that do not know the registry.

Each argument that names a model is the path of a file or a reference (`tcn-udp_echo@production`).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from ocad_tcn.forecaster import Forecaster

SEQUENCES = Path("data/processed/timeseries_train.parquet")
SEQUENCE_COUNT = 23_000
VERIFIED_WINDOWS = 1024


def write_sequences(data: str = "udp_echo", metric: str = "udp_echo", output: Path = SEQUENCES) -> int:
    """Writes the newest 23,000 training windows of `data` to `output` (columns `sequence`, `target`); returns how many."""
    import dataclasses

    from ocad.catalogue import find_data
    from ocad.timeseries.frame import read_frame
    from ocad.timeseries.windows import split_windows
    from ocad_tcn.config import WindowSettings

    settings = WindowSettings()
    frame = read_frame(find_data(data), [metric]).data
    windows = split_windows(frame, metric, settings.length, settings.shares, settings.gap)["train"]
    newest = slice(max(0, len(windows) - SEQUENCE_COUNT), None)
    kept = {field.name: getattr(windows, field.name)[newest] for field in dataclasses.fields(windows)}
    dataclasses.replace(windows, **kept).write(output)
    return len(kept["target"])


def train_files(metric: str, epochs: int, version: str, folder: Path) -> list[Path]:
    """`ocad train` for `metric`, then `METRIC_VERSION.pth` and `.json` (its metadata) in `folder`.

    Registers `version` in the default registry; raises `VerificationError` when it did not pass, files written all the same.
    """
    from ocad.host import Host
    from ocad.pipeline import train
    from ocad.progress import console_progress
    from ocad.runs import TrainRequest
    from ocad.session import Session
    from ocad_registry import Registry

    request = TrainRequest("tcn", metric, overrides=(f"train.epochs={epochs}",), version=version.removeprefix("v"))
    result = train(request, Session(Host(), Registry(), console_progress()))
    folder.mkdir(parents=True, exist_ok=True)
    weights, metadata = folder / f"{metric}_{version}.pth", folder / f"{metric}_{version}.json"
    shutil.copyfile(result.version.file("weights"), weights)
    metadata.write_text(json.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if not result.version.manifest.passed:
        message = f"`{result.version.ref}` is registered, but it failed its gates or parity"
        raise VerificationError(message, f"`{metadata}` has the evidence")
    return [weights, metadata]


def convert(model: str, output: Path, shape: tuple[int, ...]) -> list[Path]:
    """Exports the weights `model` to the graph `output`; `shape` `(batch, length, 1)` must fit, its batch stays free."""
    import torch

    from ocad.export.onnx import export_onnx
    from ocad_tcn.predictor import INPUT, OUTPUT

    forecaster = read_weights(model)
    expected = (forecaster.architecture.length, 1)
    if shape[1:] != expected:
        given = ",".join(map(str, shape))
        raise UsageError(f"`{model}` takes windows of {expected[0]}, not `{given}`", f"give `1,{expected[0]},1`")
    example = {INPUT: torch.from_numpy(typical_windows(forecaster, 2))}
    artifacts = export_onnx(forecaster, example, output.parent, [OUTPUT], output.name.removesuffix(".onnx"))
    return [artifact.path for artifact in artifacts]


def verify(graph: str, weights: str) -> dict[str, Any]:
    """The parity of `graph` with `weights` on 1,024 windows; raises `VerificationError` when it fails."""
    import torch

    from ocad.export.parity import measure_parity
    from ocad.export.runtime import OnnxPredictor
    from ocad_tcn.predictor import INPUT, OUTPUT, make_signature

    forecaster = read_weights(weights)
    signature = make_signature(forecaster.architecture.length, forecaster.architecture.deviation, "")
    samples = {INPUT: typical_windows(forecaster, VERIFIED_WINDOWS)}
    with torch.inference_mode():
        exact = forecaster.double()(torch.from_numpy(samples[INPUT].astype(np.float64))).numpy()
    parity = measure_parity(
        OnnxPredictor(model_file(graph, "onnx"), signature).predict, signature, samples, {OUTPUT: exact}
    )
    if not parity.passed:
        message = f"`{graph}` differs from `{weights}` by {parity.max_scaled_diff:.3g} of the output's scale"
        raise VerificationError(message, f"at most {parity.tolerance:g} is allowed: convert the weights again")
    return parity.model_dump()


def model_file(model: str, role: str) -> Path:
    """The file `model`, or the file of `role` in the registered version that it names."""
    from ocad_registry import Registry

    return Path(model) if Path(model).is_file() else Registry().resolve(model).file(role)


def read_weights(model: str) -> Forecaster:
    """The forecaster in a `.pth` file or a registered version."""
    from ocad_tcn.forecaster import load_forecaster

    return load_forecaster(model_file(model, "weights"))[0]


def typical_windows(forecaster: Forecaster, count: int) -> NDArray[np.float32]:
    """Seeded windows `(count, length, 1)` that wander around the training mean, with a heavy tail every tenth row."""
    architecture = forecaster.architecture
    generator = np.random.default_rng(7)
    steps = generator.normal(size=(count, architecture.length, 1)).cumsum(axis=1) / 3
    steps[::10] *= generator.exponential(5.0, size=(len(steps[::10]), 1, 1))
    return (architecture.mean + architecture.deviation * steps).astype(np.float32)


@dataclass(frozen=True, slots=True)
class InferenceFigures:
    """Medians over rounds in turn: µs a call at batch 1, and MiB resident in a fresh process after one answer."""

    torch_us: float
    onnx_us: float
    torch_mib: float
    onnx_mib: float

    @property
    def speedup(self) -> float:
        """How many times faster the graph answers."""
        return self.torch_us / self.onnx_us

    @property
    def memory_saved(self) -> float:
        """The share of resident memory that the graph does without."""
        return 1 - self.onnx_mib / self.torch_mib

    def to_json(self) -> dict[str, float]:
        """All figures by name."""
        return {**asdict(self), "speedup": self.speedup, "memory_saved": self.memory_saved}

    def markdown(self) -> str:
        """A table of both."""
        return "\n".join(
            [
                "| batch 1 | torch eager | onnxruntime | ratio |",
                "| --- | --- | --- | --- |",
                f"| µs a call | {self.torch_us:.1f} | {self.onnx_us:.1f} | {self.speedup:.1f} × faster |",
                f"| MiB resident | {self.torch_mib:.0f} | {self.onnx_mib:.0f} | {self.memory_saved:.0%} less |",
            ]
        )
