"""What hooks receive and return: frozen dataclasses, light to import (no torch, pandas or pydantic at run time).

Arrays are numpy; a dict of arrays is keyed by the names of the signature's inputs or outputs and its first axis is the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ocad.catalogue import DataSource
    from ocad.config import PluginConfig
    from ocad.protocols import Arrays, Detector, Predictor, Progress
    from ocad_registry import Registry, Signature, Version

HOOK_API_VERSION = 1
"""The version of the hook contract; a plugin built for another one is skipped and shown in `ocad plugins list`."""

Task = Literal["forecast", "detect", "ctr", "index"]
ArtifactRole = Literal["onnx", "onnx-data", "weights", "estimator", "index", "preprocess", "report"]


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a plugin says of itself; `config` is a subclass of `ocad.config.PluginConfig`."""

    name: str
    task: str
    summary: str
    config: type[PluginConfig]
    api_version: int = HOOK_API_VERSION


def _no_plugin(name: str) -> Any:
    raise LookupError(f"there is no host to ask for the plugin `{name}`")


@dataclass(frozen=True, slots=True)
class HostContext:
    """What every hook can reach: the registry and the other registered models."""

    registry: Registry
    load: Callable[[str], Predictor | Detector]
    """`load("name@version")` loads any registered version through the plugin that its metadata names."""
    other_plugin: Callable[[str], Any] = field(default=_no_plugin, kw_only=True)
    """`other_plugin("name")` is another installed plugin, to be asked for what it offers to others (`ocad_new_detector`)."""


@dataclass(frozen=True, slots=True)
class RunContext(HostContext):
    """One run of the pipeline: `run` is its folder (DESIGN §5), `data` where the rows come from."""

    plugin: str
    config: PluginConfig
    data: DataSource
    metric: str | None
    run: Path
    seed: int
    progress: Progress
    resume: bool = False
    version: Version | None = None
    """The registered version that is measured again: it reads the rows with what it was fitted with, and nothing is fitted."""
    part: str = "test"
    """With `version`: which rows, `train`, `validation`, `test` or `all`; they are prepared as the split `test`."""
    epoch_ended: Callable[[int, Mapping[str, float]], None] = lambda epoch, metrics: None
    """Called by the training loop after each epoch; fires the event `ocad_epoch_ended`."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Splits on disk: `splits` names a parquet file for each of `train`, `validation`, `test`; `rows` counts theirs."""

    name: str
    fingerprint: str
    """sha256 (64 hex digits) over the prepared rows: equal input, configuration and seed give an equal fingerprint."""
    splits: Mapping[str, Path]
    rows: Mapping[str, int]
    statistics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model: `predictor` answers in the terms of the signature, `model` is the plugin's own handle."""

    predictor: Predictor
    model: Any = None
    history: Sequence[Mapping[str, float]] = ()
    checkpoints: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`metrics` are finite numbers under flat names; `curves` are tables (list of rows) by name; `plots` are PNG files."""

    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    plots: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file to publish with the version, under its own name; `media_type` is guessed from the name when empty."""

    path: Path
    role: ArtifactRole
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    """What goes into the registry: files, the served signature, and real validation inputs (≥ 512 rows) for parity."""

    artifacts: Sequence[Artifact]
    signature: Signature | None
    samples: Arrays = field(default_factory=dict)
    description: str = ""
    parents: Sequence[str] = ()
    """References (`name@version`) of the registered versions that this one is built from."""
    also: Mapping[str, Export] = field(default_factory=dict)
    """Other graphs of the same model: each is proven like this one and registered as `NAME-KEY` with this one as parent."""


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """What `ocad_before_register` sees: the evidence of a version that is about to be published."""

    name: str
    plugin: str
    task: str
    metric: str | None
    metrics: Mapping[str, float]
    passed: bool
    run: Path
