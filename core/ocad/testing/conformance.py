"""One suite over every plugin: runs the whole pipeline on a small series or click log and checks each promise."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from pydantic import BaseModel, ValidationError

from ocad.config import Config, PluginConfig, load_config
from ocad.contexts import ArtifactRole, Evaluation, Export, PreparedData, RunContext, Trained
from ocad.errors import OcadError, UsageError
from ocad.host import Host, Plugin
from ocad.progress import SilentProgress
from ocad.session import Session

if TYPE_CHECKING:
    from ocad_registry import Version

HEAVY_MODULES = ("torch", "pandas", "sklearn", "onnxruntime", "pyarrow", "lightgbm")
"""Modules that importing a plugin's entry module must not import (DESIGN §3)."""
_SHORT_TRAINING = "train.epochs=2"
_SCORED_ROWS = 0.9
"""The share of rows that must have a finite score, or rank, in what a model answers for its own data."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise and whether it is kept: `verdict` is `passed`, `failed` or `skipped`; `detail` says why."""

    check: str
    verdict: str
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return asdict(self)


@dataclass
class Bench:
    """What the checks share; each stage leaves its result for the next."""

    session: Session
    plugin: Plugin
    folder: Path
    data: str
    metric: str | None
    context: RunContext | None = None
    prepared: PreparedData | None = None
    trained: Trained | None = None
    evaluation: Evaluation | None = None
    export: Export | None = None
    version: Version | None = None
    findings: list[Finding] = field(default_factory=list)

    def config(self) -> PluginConfig:
        """The plugin's defaults, with two epochs where it trains by epochs."""
        return short_config(self.plugin.info.config)

    def make_context(self, run: str) -> RunContext:
        """The context of a fresh run folder."""
        from ocad.catalogue import find_data

        folder = self.folder / run
        folder.mkdir()
        source = find_data(self.data)
        return self.session.run_context(self.plugin, self.config(), data=source, metric=self.metric, run=folder)


class Skipped(Exception):  # noqa: N818
    """Raised by a check that does not apply."""


def check_plugin(
    name: str, data: str | None = None, metric: str | None = None, folder: Path | None = None
) -> list[Finding]:
    """Runs every check over the plugin `name` on `data` (default: a seeded series) and returns one finding for each.

    Works in `folder`, or in a temporary one. Raises `UsageError` for an unknown plugin, `PluginError` for a broken one.
    """
    from ocad_registry import Registry

    host = Host()
    plugin = host.plugin(name)
    with tempfile.TemporaryDirectory(prefix="ocad-check-") as temporary:
        work = folder or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        session = Session(host, Registry(work / "models"), SilentProgress())
        bench = Bench(session, plugin, work, *_rows(plugin.info.task, work, data, metric))
        for check in CHECKS:
            bench.findings.append(_run(check, bench))
    return bench.findings


def _rows(task: str, folder: Path, data: str | None, metric: str | None) -> tuple[str, str | None]:
    """The data and the metric: as given, else a click log for models of clicks and a series for all others."""
    from ocad.testing.clicks import write_clicks
    from ocad.testing.series import write_series

    if task == "ctr":
        return data or str(write_clicks(folder / "clicks.parquet")), metric
    metric = metric or "udp_echo"
    return data or str(write_series(folder / "series.parquet", metric)), metric


def short_config(model: type[Config]) -> Config:
    """`model` with its defaults, `train.epochs` set to 2 where it has that."""
    train = model.model_fields.get("train")
    kind = train.annotation if train else None
    by_epochs = isinstance(kind, type) and issubclass(kind, BaseModel) and "epochs" in kind.model_fields
    return load_config(model, None, [_SHORT_TRAINING] if by_epochs else [])


def _run(check: Callable[[Bench], str], bench: Bench) -> Finding:
    title = (check.__doc__ or check.__name__).strip().splitlines()[0].rstrip(".")
    try:
        return Finding(title, "passed", check(bench))
    except Skipped as reason:
        return Finding(title, "skipped", str(reason))
    except Exception as error:
        return Finding(title, "failed", f"{type(error).__name__}: {error}")


def describes_itself(bench: Bench) -> str:
    """The plugin describes itself and its settings."""
    info = bench.plugin.info
    assert len(info.summary.splitlines()) == 1, "the summary must be one line"
    assert issubclass(info.config, PluginConfig), "the config must derive from `ocad.config.PluginConfig`"
    return info.task


def imports_lightly(bench: Bench) -> str:
    """Importing the entry module imports nothing heavy."""
    module = bench.session.host.entries[bench.plugin.name].module
    code = f"import sys, {module}; print(*[m for m in {HEAVY_MODULES} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip(), f"`{module}` imports {done.stdout.strip()}"
    return module


def refuses_unknown_settings(bench: Bench) -> str:
    """An unknown setting is refused, the defaults are complete."""
    bench.config()
    try:
        bench.plugin.info.config.model_validate({"no_such_setting": 1})
    except ValidationError:
        return ""
    raise AssertionError('the config accepts unknown keys: keep `extra="forbid"`')


def prepares_data(bench: Bench) -> str:
    """Data is prepared as parquet splits, twice the same."""
    import pandas as pd

    bench.context = bench.make_context("first")
    bench.prepared = bench.plugin.ask("ocad_prepare_data", context=bench.context)
    again = bench.plugin.ask("ocad_prepare_data", context=bench.make_context("again"))
    assert bench.prepared.fingerprint == again.fingerprint, "the fingerprint changes from run to run"
    assert len(bench.prepared.fingerprint) == 64, "the fingerprint must be a sha256 in hexadecimal"
    assert {"train", "validation", "test"} <= set(bench.prepared.splits), (
        "splits `train`, `validation`, `test` are needed"
    )
    for split, path in bench.prepared.splits.items():
        assert len(pd.read_parquet(path)) == bench.prepared.rows[split], f"`{split}` has other rows than it says"
    return ", ".join(f"{split} {rows}" for split, rows in bench.prepared.rows.items())


def trains(bench: Bench) -> str:
    """A model is trained and answers."""
    bench.trained = bench.plugin.ask("ocad_train", context=bench.context, data=_need(bench.prepared))
    return f"{len(bench.trained.history)} epochs"


def evaluates(bench: Bench) -> str:
    """Metrics are finite numbers under flat names, plots are files."""
    from ocad.pipeline import refuse_non_finite

    bench.evaluation = bench.plugin.ask(
        "ocad_evaluate", context=bench.context, trained=_need(bench.trained), data=_need(bench.prepared)
    )
    refuse_non_finite(bench.plugin, bench.evaluation.metrics)
    assert bench.evaluation.metrics, "no metric is measured"
    for plot in bench.evaluation.plots:
        assert plot.is_file(), f"the plot `{plot.name}` does not exist"
    return f"{len(bench.evaluation.metrics)} metrics"


def exports(bench: Bench) -> str:
    """Artifacts exist, have known roles, and at most one is a graph, with samples enough to prove it."""
    from ocad.export.parity import MINIMUM_SAMPLES

    export: Export = bench.plugin.ask("ocad_export", context=bench.context, trained=_need(bench.trained))
    roles = [artifact.role for artifact in export.artifacts]
    assert set(roles) <= set(get_args(ArtifactRole)), f"unknown roles: {set(roles) - set(get_args(ArtifactRole))}"
    assert roles.count("onnx") <= 1, "at most one `onnx` is served"
    for artifact in export.artifacts:
        assert artifact.path.is_file(), f"`{artifact.path.name}` does not exist"
    if "onnx" in roles:
        rows = {name: len(array) for name, array in export.samples.items()}
        assert min(rows.values(), default=0) >= MINIMUM_SAMPLES, (
            f"parity needs {MINIMUM_SAMPLES} samples, it has {rows}"
        )
    bench.export = export
    return ", ".join(roles)


def registers(bench: Bench) -> str:
    """The version is published with parity and gates, and verifies from its files alone."""
    from ocad.pipeline import draft_version, prove_parity, publish
    from ocad.versions import verify_version

    context = _need(bench.context)
    export, parity = prove_parity(bench.plugin, context, _need(bench.trained), _need(bench.export))
    assert parity is None or parity.passed, f"parity {parity and parity.max_scaled_diff:.3g}"
    evaluation, prepared = _need(bench.evaluation), _need(bench.prepared)
    draft = draft_version(bench.plugin, context, "checked", prepared, evaluation, export, parity)
    bench.version = publish(context.registry, draft, export, None, context.run)
    again = verify_version(bench.version).parity
    assert again is None or again.passed, "parity does not hold from the stored files"
    return f"parity {parity.max_scaled_diff:.1e}" if parity else "no graph"


def loads(bench: Bench) -> str:
    """The registered version loads and answers as the trained model does, row by row and in batches."""
    model = bench.session.load(_need(bench.version).ref)
    export = _need(bench.export)
    if not export.samples or export.signature is None:
        raise Skipped("it has no samples")
    reference = bench.plugin.ask(
        "ocad_reference", context=bench.context, trained=_need(bench.trained), inputs=export.samples
    )
    predict: Any = getattr(model, "predict", None)
    assert predict is not None, "a version with a signature must load as a predictor"
    for rows in (1, 7):
        answer = predict({name: array[:rows] for name, array in export.samples.items()})
        for tensor in export.signature.outputs:
            expected = reference[tensor.name][:rows]
            assert answer[tensor.name].shape == expected.shape, f"`{tensor.name}` has another shape"
            worst = float(np.abs(answer[tensor.name] - expected).max() / (tensor.scale or 1.0))
            assert worst < 1e-3, f"`{tensor.name}` differs by {worst:.2g} of its scale"
    return ", ".join(tensor.name for tensor in export.signature.outputs)


def refuses_wrong_inputs(bench: Bench) -> str:
    """Inputs that do not fit the signature are refused with an error of ours."""
    export = _need(bench.export)
    if export.signature is None:
        raise Skipped("it has no signature")
    model: Any = bench.session.load(_need(bench.version).ref)
    name = export.signature.inputs[0].name
    for wrong in ({}, {"no_such_input": np.zeros((1, 1))}, {name: np.zeros((1,) * 9)}):
        try:
            model.predict(wrong)
        except OcadError:
            continue
        raise AssertionError(f"accepted {wrong}")
    return ""


def evaluates_registered(bench: Bench) -> str:
    """A registered version is evaluated again to the same metrics."""
    from ocad.versions import evaluate_version

    again = evaluate_version(_need(bench.version), bench.session, bench.data, None).metrics
    for name, value in _need(bench.evaluation).metrics.items():
        assert np.isclose(again[name], value, rtol=1e-3, atol=1e-6), f"`{name}` was {value:g}, is {again[name]:g}"
    return ""


def repeats(bench: Bench) -> str:
    """The same seed gives the same model, bit for bit."""
    context = bench.make_context("repeated")
    prepared = bench.plugin.ask("ocad_prepare_data", context=context)
    trained = bench.plugin.ask("ocad_train", context=context, data=prepared)
    samples = _need(bench.export).samples
    first = bench.plugin.ask("ocad_reference", context=bench.context, trained=_need(bench.trained), inputs=samples)
    second = bench.plugin.ask("ocad_reference", context=context, trained=trained, inputs=samples)
    for name in first:
        assert np.array_equal(first[name], second[name]), f"`{name}` differs between two runs of one seed"
    return ""


def detects(bench: Bench) -> str:
    """Scores are one for each row, and higher where the series is anomalous."""
    from ocad.catalogue import find_data
    from ocad.timeseries.frame import read_frame

    if not bench.plugin.implements("ocad_detect"):
        raise Skipped("it detects nothing")
    model = bench.session.load(_need(bench.version).ref)
    frame = read_frame(find_data(bench.data), [bench.metric] if bench.metric else None, varying=False).data
    context = bench.session.host_context()
    scores = np.asarray(bench.plugin.ask("ocad_detect", context=context, model=model, frame=frame))
    assert scores.shape == (len(frame),), f"{scores.shape} scores for {len(frame)} rows"
    assert np.isfinite(scores).mean() >= _SCORED_ROWS, "too many rows have no finite score"
    if "label" in frame and frame["label"].any():
        truth = frame["label"].to_numpy() == 1
        higher = np.nanmedian(scores[truth]) > np.nanquantile(scores[~truth], _SCORED_ROWS)
        assert higher, "labelled spikes do not stand out: higher must be more anomalous"
    return f"{len(scores)} scores"


def refuses_empty_data(bench: Bench) -> str:
    """A file without rows is refused with an error of ours before anything is trained."""
    import pandas as pd

    if not bench.data.endswith(".parquet"):
        raise Skipped("the data is no parquet file")
    empty = bench.folder / "empty.parquet"
    pd.read_parquet(bench.data).head(0).to_parquet(empty, index=False)
    data, bench.data = bench.data, str(empty)
    try:
        bench.plugin.ask("ocad_prepare_data", context=bench.make_context("empty"))
    except OcadError as error:
        return error.message
    finally:
        bench.data = data
    raise AssertionError("an empty file was prepared")


def _need(stage: Any) -> Any:
    if stage is None:
        raise UsageError("an earlier check failed", "see above")
    return stage


CHECKS: tuple[Callable[[Bench], str], ...] = (
    describes_itself,
    imports_lightly,
    refuses_unknown_settings,
    prepares_data,
    trains,
    evaluates,
    exports,
    registers,
    loads,
    refuses_wrong_inputs,
    evaluates_registered,
    repeats,
    detects,
    refuses_empty_data,
)
