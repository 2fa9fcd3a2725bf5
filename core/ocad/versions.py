"""What can be done with a registered version: verify it again from its stored artifacts, evaluate it, ask it."""

from __future__ import annotations

import dataclasses
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.contexts import Evaluation, PreparedData, Trained
from ocad.errors import ConfigError, DataError, UsageError
from ocad.gates import judge

if TYPE_CHECKING:
    import pandas as pd

    from ocad.config import PluginConfig
    from ocad.host import Plugin
    from ocad.session import Session
    from ocad_registry import GateResult, Parity, Version


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Parity and gates measured again; `passed` is what decides, the recorded verdict notwithstanding."""

    version: Version
    parity: Parity | None
    gates: list[GateResult]

    @property
    def passed(self) -> bool:
        """At least one gate, all of them passed, and parity passed where there is a graph."""
        return (
            bool(self.gates) and all(gate.passed for gate in self.gates) and (self.parity is None or self.parity.passed)
        )

    def to_json(self) -> dict[str, Any]:
        """The contract of `verify --json`."""
        return {
            "ref": self.version.ref,
            "parity": self.parity.model_dump() if self.parity else None,
            "gates": [gate.model_dump() for gate in self.gates],
            "passed": self.passed,
        }


def verify_version(version: Version) -> Verdict:
    """Judges gates and parity of `version` again, from its files alone; needs neither its plugin nor torch.

    Every file's digest is checked first. Raises `RegistryError` for a damaged version.
    """
    from ocad.export.parity import SAMPLES_FILE, load_samples, measure_parity
    from ocad.export.runtime import OnnxPredictor

    version.verify()
    manifest = version.manifest
    parity = None
    if manifest.parity and manifest.signature:
        samples, reference = load_samples(version.named(SAMPLES_FILE))
        predictor = OnnxPredictor(version.file("onnx"), manifest.signature)
        parity = measure_parity(predictor.predict, manifest.signature, samples, reference, manifest.parity.tolerance)
    return Verdict(version, parity, judge(manifest.gates, manifest.metrics))


def evaluate_version(version: Version, session: Session, data: str | None, folder: Path | None) -> Evaluation:
    """Prepares the version's data (or `data`) as it was trained on and measures the stored model on the test part.

    Plots and prepared splits go to `folder`; without one they are not kept.
    """
    from ocad.catalogue import find_data

    plugin = session.plugin_of(version)
    config = _config_of(version, plugin)
    recorded = version.manifest.data.name if version.manifest.data else ""
    source = find_data(data or recorded)
    model = plugin.ask("ocad_load", context=session.host_context(), version=version)
    with _kept(folder) as run:
        context = session.run_context(plugin, config, data=source, metric=version.manifest.metric, run=run)
        prepared: PreparedData = plugin.ask("ocad_prepare_data", context=context)
        trained = Trained(predictor=model)
        evaluation: Evaluation = plugin.ask("ocad_evaluate", context=context, trained=trained, data=prepared)
    return evaluation


def predict_file(version: Version, session: Session, data: str) -> pd.DataFrame:
    """Predictions for `data`: an npz of arrays named as the signature's inputs, or rows that the model itself reads.

    A model that reads rows has `predict_source(source)`; its answer has one row per prediction.
    """
    import pandas as pd

    from ocad.catalogue import find_data

    model = session.load(version.ref)
    if data.endswith(".npz"):
        if not hasattr(model, "predict"):
            raise UsageError(f"`{version.ref}` is a detector", "ask it with `ocad detect`")
        outputs = model.predict(_read_arrays(data))
        columns = {name: list(array.reshape(len(array), -1)) for name, array in outputs.items()}
        return pd.DataFrame(
            {name: [row[0] if row.size == 1 else row for row in rows] for name, rows in columns.items()}
        )
    if not hasattr(model, "predict_source"):
        raise UsageError(f"`{version.ref}` reads arrays only", "give an `.npz` with the signature's inputs")
    answer: pd.DataFrame = model.predict_source(find_data(data))
    return answer


def _read_arrays(path: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(
            f"cannot read `{path}` ({reason.rstrip('.').lower()})", "give arrays saved by `numpy.savez`"
        ) from None


def _config_of(version: Version, plugin: Plugin) -> PluginConfig:
    from pydantic import ValidationError

    try:
        return plugin.info.config.model_validate(dict(version.manifest.params))
    except ValidationError as error:
        raise ConfigError(
            f"the parameters of `{version.ref}` do not fit the plugin `{plugin.package}` ({error.error_count()} differ)",
            f"install `{version.manifest.plugin.package} {version.manifest.plugin.version}`",
        ) from None


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="ocad-") as temporary:
            yield Path(temporary)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
