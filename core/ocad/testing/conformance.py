"""One suite over every plugin: runs the whole pipeline on a small series or click log and checks each promise."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from ocad.config import PluginConfig
from ocad.contexts import ArtifactRole, Export
from ocad.errors import OcadError
from ocad.host import Host
from ocad.progress import SilentProgress
from ocad.session import Session
from ocad.testing.bench import Bench, Finding, Skipped, bench_rows, need, train_parts
from ocad.testing.detectors import DETECTOR_CHECKS

HEAVY_MODULES = ("torch", "pandas", "sklearn", "onnxruntime", "pyarrow", "lightgbm")
"""Modules that importing a plugin's entry module must not import (DESIGN §3)."""


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
        bench = Bench(session, plugin, work, *bench_rows(plugin.info.task, work, data, metric))
        for check in CHECKS:
            bench.findings.append(_run(check, bench))
    return bench.findings


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


def builds_parts(bench: Bench) -> str:
    """The versions that it is built from are trained first, in the same registry."""
    bench.parts = train_parts(bench)
    if not bench.parts:
        raise Skipped("it is built from no other version")
    return ", ".join(bench.parts)


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
    bench.trained = bench.plugin.ask("ocad_train", context=bench.context, data=need(bench.prepared))
    return f"{len(bench.trained.history)} epochs"


def evaluates(bench: Bench) -> str:
    """Metrics are finite numbers under flat names, plots are files."""
    from ocad.pipeline import refuse_non_finite

    bench.evaluation = bench.plugin.ask(
        "ocad_evaluate", context=bench.context, trained=need(bench.trained), data=need(bench.prepared)
    )
    refuse_non_finite(bench.plugin, bench.evaluation.metrics)
    assert bench.evaluation.metrics, "no metric is measured"
    for plot in bench.evaluation.plots:
        assert plot.is_file(), f"the plot `{plot.name}` does not exist"
    return f"{len(bench.evaluation.metrics)} metrics"


def exports(bench: Bench) -> str:
    """Artifacts exist, have known roles, and at most one is a graph, with samples enough to prove it."""
    from ocad.export.parity import MINIMUM_SAMPLES

    export: Export = bench.plugin.ask("ocad_export", context=bench.context, trained=need(bench.trained))
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

    context = need(bench.context)
    export, parity = prove_parity(bench.plugin, context, need(bench.trained), need(bench.export))
    assert parity is None or parity.passed, f"parity {parity and parity.max_scaled_diff:.3g}"
    evaluation, prepared = need(bench.evaluation), need(bench.prepared)
    draft = draft_version(bench.plugin, context, "checked", prepared, evaluation, export, parity)
    bench.version = publish(context.registry, draft, export, None, context.run)
    again = verify_version(bench.version).parity
    assert again is None or again.passed, "parity does not hold from the stored files"
    return f"parity {parity.max_scaled_diff:.1e}" if parity else "no graph"


def loads(bench: Bench) -> str:
    """The registered version loads and answers as the trained model does, row by row and in batches."""
    export = need(bench.export)
    if not export.samples or export.signature is None:
        raise Skipped("it has no samples")
    reference = bench.plugin.ask(
        "ocad_reference", context=bench.context, trained=need(bench.trained), inputs=export.samples
    )
    predict = answering(bench)
    for rows in (1, 7):
        answer = predict({name: array[:rows] for name, array in export.samples.items()})
        for tensor in export.signature.outputs:
            expected = reference[tensor.name][:rows]
            assert answer[tensor.name].shape == expected.shape, f"`{tensor.name}` has another shape"
            worst = float(np.abs(answer[tensor.name] - expected).max() / (tensor.scale or 1.0))
            assert worst < 1e-3, f"`{tensor.name}` differs by {worst:.2g} of its scale"
    return ", ".join(tensor.name for tensor in export.signature.outputs)


def answering(bench: Bench) -> Callable[[Any], dict[str, Any]]:
    """`predict` of the loaded version; a detector that scores rows alone is asked through its stored graph."""
    from ocad.export.runtime import OnnxPredictor

    version = need(bench.version)
    model: Any = bench.session.load(version.ref)
    if not hasattr(model, "predict") and bench.plugin.info.task == "detect":
        model = OnnxPredictor(version.file("onnx"), version.manifest.signature)
    assert hasattr(model, "predict"), "a version with a signature must load as a predictor"
    predict: Callable[[Any], dict[str, Any]] = model.predict
    return predict


def refuses_wrong_inputs(bench: Bench) -> str:
    """Inputs that do not fit the signature are refused with an error of ours."""
    export = need(bench.export)
    if export.signature is None:
        raise Skipped("it has no signature")
    predict = answering(bench)
    name = export.signature.inputs[0].name
    for wrong in ({}, {"no_such_input": np.zeros((1, 1))}, {name: np.zeros((1,) * 9)}):
        try:
            predict(wrong)
        except OcadError:
            continue
        raise AssertionError(f"accepted {wrong}")
    return ""


def evaluates_registered(bench: Bench) -> str:
    """A registered version is evaluated again to the same metrics, but for those of validation, which `val_` begins."""
    from ocad.versions import evaluate_version

    again = evaluate_version(need(bench.version), bench.session, bench.data, None).metrics
    for name, value in need(bench.evaluation).metrics.items():
        if name.startswith("val_") and name not in again:
            continue
        assert np.isclose(again[name], value, rtol=1e-3, atol=1e-6), f"`{name}` was {value:g}, is {again[name]:g}"
    return ""


def repeats(bench: Bench) -> str:
    """The same seed gives the same model, bit for bit."""
    context = bench.make_context("repeated")
    prepared = bench.plugin.ask("ocad_prepare_data", context=context)
    trained = bench.plugin.ask("ocad_train", context=context, data=prepared)
    export = need(bench.export)
    if not bench.plugin.implements("ocad_reference"):
        again = bench.plugin.ask("ocad_export", context=context, trained=trained)
        for first, second in zip(export.artifacts, again.artifacts, strict=True):
            assert first.path.read_bytes() == second.path.read_bytes(), f"`{first.path.name}` differs between two runs"
        return "artifacts"
    first = bench.plugin.ask(
        "ocad_reference", context=bench.context, trained=need(bench.trained), inputs=export.samples
    )
    second = bench.plugin.ask("ocad_reference", context=context, trained=trained, inputs=export.samples)
    for name in first:
        assert np.array_equal(first[name], second[name]), f"`{name}` differs between two runs of one seed"
    return ""


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


CHECKS: tuple[Callable[[Bench], str], ...] = (
    describes_itself,
    imports_lightly,
    refuses_unknown_settings,
    builds_parts,
    prepares_data,
    trains,
    evaluates,
    exports,
    registers,
    loads,
    refuses_wrong_inputs,
    evaluates_registered,
    repeats,
    *DETECTOR_CHECKS,
    refuses_empty_data,
)
