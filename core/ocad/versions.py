"""What can be done with a registered version: verify it again from its stored artifacts, evaluate it, ask it."""

from __future__ import annotations

import dataclasses
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.contexts import Evaluation, PreparedData, RunContext, Trained
from ocad.errors import ConfigError, DataError, OcadError, UsageError
from ocad.gates import judge

if TYPE_CHECKING:
    import pandas as pd

    from ocad.catalogue import DataSource
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


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Rows on which a stored version is measured: the `part` of the data, `test`, or `all` of data it was not trained on."""

    version: Version
    context: RunContext
    prepared: PreparedData
    part: str
    own: bool
    """Whether the version read them with what it was fitted with; else its plugin prepared the data anew."""

    @property
    def count(self) -> int:
        """How many there are."""
        return self.prepared.rows["test"]

    def __str__(self) -> str:
        rows = "all rows" if self.part == "all" else f"the {self.part} part"
        reader = "as it was fitted" if self.own else "by its own split"
        return f"`{self.version.ref}` reads {rows} of `{self.context.data.name}` ({self.count} rows) {reader}"


@contextmanager
def rows_again(
    version: Version, session: Session, data: str | None, folder: Path | None, part: str | None
) -> Iterator[Rows]:
    """The rows `part` of the version's data, or of `data`, read as the version was fitted to read them.

    Without `part` it is `test` of the data that it was trained on and `all` of any other. They lie in `folder`; without one
    they are not kept. Raises `UsageError` for a part that the plugin cannot give.
    """
    from ocad.catalogue import find_data

    plugin = session.plugin_of(version)
    config = _config_of(version, plugin)
    recorded = version.manifest.data.name if version.manifest.data else ""
    source = find_data(data or recorded)
    wanted = part or ("test" if _is_recorded(source, recorded) else "all")
    with _kept(folder) as run:
        context = session.run_context(
            plugin, config, data=source, metric=version.manifest.metric, run=run, version=version, part=wanted
        )
        prepared: PreparedData = plugin.ask("ocad_prepare_data", context=context)
        own = "train" not in prepared.splits
        if not own and part not in (None, "test"):
            raise UsageError(f"the plugin `{plugin.name}` measures its test part alone", "leave `--part` out")
        yield Rows(version, context, prepared, wanted if own else "test", own)


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """What a version measures on `rows`."""

    rows: Rows
    evaluation: Evaluation

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics of these rows."""
        return self.evaluation.metrics


def evaluate_version(
    version: Version, session: Session, data: str | None, folder: Path | None, part: str | None = None
) -> Measurement:
    """The stored model measured on rows of its data, or of `data`; see `rows_again`. Plots go to `folder` as well."""
    plugin = session.plugin_of(version)
    model = plugin.ask("ocad_load", context=session.host_context(), version=version)
    with rows_again(version, session, data, folder, part) as rows:
        evaluation: Evaluation = plugin.ask(
            "ocad_evaluate", context=rows.context, trained=Trained(predictor=model), data=rows.prepared
        )
    return Measurement(rows, evaluation)


def _is_recorded(source: DataSource, recorded: str) -> bool:
    """Whether `source` is the data of that name, also by another spelling of its path."""
    from ocad.catalogue import find_data

    if source.name == recorded:
        return True
    try:
        known = find_data(recorded)
    except OcadError:
        return False
    return (known.path, known.where) == (source.path, source.where)


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
