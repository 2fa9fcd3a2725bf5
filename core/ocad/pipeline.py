"""The pipeline: prepare → train → evaluate → export → verify → gate → register → promote, one function a stage.

`train` runs it for one metric in this process; `ocad.parallel` runs one process for each of several metrics.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocad.contexts import Artifact, Evaluation, Export, PreparedData, RunContext, Trained, VersionDraft
from ocad.errors import PluginError, RunInterruptedError, UsageError
from ocad.evidence import environment, git_commit
from ocad.gates import judge
from ocad.runs import RESULT_FILE, TrainRequest, create_run, write_json

if TYPE_CHECKING:
    from ocad.catalogue import DataSource
    from ocad.config import PluginConfig
    from ocad.host import Host, Plugin
    from ocad.session import Session
    from ocad_registry import Draft, Parity, Registry, Version


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A registered version with the evidence that decides about it; `to_json` is the contract of `train --json`."""

    version: Version
    run: Path
    also: tuple[Version, ...] = ()
    """Other graphs of the same model, registered as its children (`Export.also`)."""
    promoted: str | None = None
    """The alias that points at it now, where one was asked for and the version passed."""

    def to_json(self) -> dict[str, Any]:
        """Name, version, reference, paths, metrics, gates, parity and the verdict."""
        manifest = self.version.manifest
        return {
            "name": self.version.name,
            "version": self.version.version,
            "ref": self.version.ref,
            "path": self.version.location,
            "run": str(self.run),
            "metrics": dict(manifest.metrics),
            "gates": [gate.model_dump() for gate in manifest.gates],
            "parity": manifest.parity.model_dump() if manifest.parity else None,
            "passed": manifest.passed,
        }


def train(request: TrainRequest, session: Session, resume: Path | None = None) -> TrainResult:
    """Runs the whole pipeline and returns the registered version, whether it passed or not.

    Raises `OcadError` (data, configuration, plugin, veto) before anything is registered; a `KeyboardInterrupt` becomes
    a `RunInterruptedError` that says how to resume. Promotes only when the version passed.
    """
    host, registry = session.host, session.registry
    plugin = host.plugin(request.plugin)
    config = resolve_config(plugin, request)
    source = resolve_data(plugin, request)
    refuse_bad_target(registry, request)
    run = resume or create_run(request, config)
    context = session.run_context(
        plugin, config, data=source, metric=request.metric, run=run, resume=resume is not None
    )
    host.fire("ocad_run_started", context=context)
    try:
        version, *also = _stages(plugin, context, request, host)
    except KeyboardInterrupt:
        raise RunInterruptedError(f"interrupted; `{run}` is kept", f"go on with `ocad train --resume {run}`") from None
    result = TrainResult(version, run, tuple(also))
    write_json(run / RESULT_FILE, result.to_json())
    for registered in (version, *also):
        host.fire("ocad_version_registered", version=registered)
    if request.promote and all(registered.manifest.passed for registered in (version, *also)):
        registry.promote(version.ref, request.promote)
        for moved in (version, *also):  # the children go along
            if registry.aliases(moved.name).get(request.promote) == moved.version:
                entry = registry.history(moved.name, request.promote)[-1]
                host.fire("ocad_alias_moved", name=moved.name, alias=request.promote, entry=entry)
        result = dataclasses.replace(result, promoted=request.promote)
    return result


def resolve_config(plugin: Plugin, request: TrainRequest) -> PluginConfig:
    """The plugin's configuration: `--config`, else `configs/PLUGIN/METRIC.yaml` or `default.yaml`, then the overrides."""
    from ocad.config import load_config
    from ocad.project import project_root

    file = Path(request.config) if request.config else None
    if file is None:
        folder = project_root() / "configs" / plugin.name
        names = (f"{request.metric}.yaml", "default.yaml")
        file = next((folder / name for name in names if (folder / name).is_file()), None)
    return load_config(plugin.info.config, file, request.overrides)


def resolve_data(plugin: Plugin, request: TrainRequest) -> DataSource:
    """The data that `--data` names, else the catalogue's entry of the metric's name, or the default for it or for the task."""
    from ocad.catalogue import find_data, list_data

    if request.data:
        return find_data(request.data)
    wanted = request.metric or plugin.info.task
    default = next((source for source in list_data() if wanted in (source.name, *source.default_for)), None)
    if default:
        return find_data(default.name)
    wanted = f"metric `{request.metric}`" if request.metric else f"plugin `{request.plugin}`"
    raise UsageError(f"no default data for the {wanted}", "give `--data PATH|NAME`; `ocad data list` shows the names")


def refuse_bad_target(registry: Registry, request: TrainRequest) -> None:
    """Raises the registry's error now, not after an hour of training: a bad name or alias, a version that is taken."""
    from ocad_registry import NotFound, VersionExists, names

    name = names.check_model(request.model_name())
    if request.promote:
        names.check_alias(request.promote)
    if not request.version:
        return
    try:
        taken = registry.resolve(f"{name}@{names.check_version(request.version)}")
    except NotFound:
        return
    raise VersionExists(f"`{taken.ref}` exists", "a version never changes; give another `--version`")


def _stages(plugin: Plugin, context: RunContext, request: TrainRequest, host: Host) -> list[Version]:
    """Every stage in order, up to the published version and then those of `Export.also`."""
    data: PreparedData = plugin.ask("ocad_prepare_data", context=context)
    trained: Trained = plugin.ask("ocad_train", context=context, data=data)
    evaluation: Evaluation = plugin.ask("ocad_evaluate", context=context, trained=trained, data=data)
    refuse_non_finite(plugin, evaluation.metrics)
    write_json(context.run / "metrics.json", evaluation.metrics)
    export: Export = plugin.ask("ocad_export", context=context, trained=trained)

    def register(name: str, graph: Export, version: str | None) -> Version:
        proven, parity = prove_parity(plugin, context, trained, graph)
        draft = draft_version(plugin, context, name, data, evaluation, proven, parity)
        passed = draft.decide([artifact.role for artifact in proven.artifacts])
        host.ask_veto(
            VersionDraft(name, plugin.name, draft.task, draft.metric, evaluation.metrics, passed, context.run)
        )
        return publish(context.registry, draft, proven, version, context.run)

    name = request.model_name()
    versions = [register(name, export, request.version)]
    for key, other in export.also.items():
        child = dataclasses.replace(other, parents=(*other.parents, versions[0].ref))
        versions.append(register(f"{name}-{key}", child, versions[0].version))
    return versions


def refuse_non_finite(plugin: Plugin, metrics: Mapping[str, float]) -> None:
    """Raises `PluginError` naming the first metric that is not a finite number."""
    for name, value in metrics.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise PluginError(
                f"plugin `{plugin.name}` measured `{name}` as {value!r}", "metrics must be finite numbers"
            )


def prove_parity(plugin: Plugin, context: RunContext, trained: Trained, export: Export) -> tuple[Export, Parity | None]:
    """Measures the exported graph against `ocad_reference`; the samples are stored with the version as evidence.

    Returns the export with the samples' file added and its signature saying whether rows may share a run, and the parity;
    None for a version without a graph.
    """
    graph = next((artifact.path for artifact in export.artifacts if artifact.role == "onnx"), None)
    if graph is None:
        return export, None
    if export.signature is None or not export.samples:
        raise PluginError(
            f"plugin `{plugin.name}` exports a graph without signature or samples", "return both in `Export`"
        )
    from ocad.export.batching import is_batchable
    from ocad.export.parity import SAMPLES_FILE, measure_parity, save_samples
    from ocad.export.runtime import OnnxPredictor

    reference = plugin.ask("ocad_reference", context=context, trained=trained, inputs=export.samples)
    predictor = OnnxPredictor(graph, export.signature)
    parity = measure_parity(predictor.predict, export.signature, export.samples, reference)
    stored = graph.parent / SAMPLES_FILE
    save_samples(stored, export.samples, reference)
    artifacts = (*export.artifacts, Artifact(stored, "report", "application/x-npz"))
    batchable = is_batchable(predictor.predict, export.signature, export.samples)
    signature = export.signature.model_copy(update={"batchable": batchable})
    return dataclasses.replace(export, artifacts=artifacts, signature=signature), parity


def draft_version(
    plugin: Plugin,
    context: RunContext,
    name: str,
    data: PreparedData,
    evaluation: Evaluation,
    export: Export,
    parity: Parity | None,
) -> Draft:
    """The version's metadata before it is published, gates judged."""
    from ocad_registry import DataReference, Draft, Parent, PluginReference

    parents = [context.registry.resolve(reference) for reference in export.parents]
    package, _, plugin_version = plugin.package.rpartition(" ")
    return Draft(
        name=name,
        plugin=PluginReference(name=plugin.name, version=plugin_version, package=package),
        task=plugin.info.task,
        metric=context.metric,
        signature=export.signature,
        params=context.config.model_dump(mode="json"),
        metrics=dict(evaluation.metrics),
        gates=judge(context.config.gates, evaluation.metrics),
        parity=parity,
        data=DataReference(
            name=data.name, fingerprint=data.fingerprint, rows=sum(data.rows.values()), splits=dict(data.rows)
        ),
        parents=[Parent(ref=parent.ref, metadata_sha256=parent.metadata_sha256) for parent in parents],
        git_commit=git_commit(Path.cwd()),
        environment=environment(),
        description=export.description,
    )


def publish(registry: Registry, draft: Draft, export: Export, version: str | None, run: Path) -> Version:
    """Publishes the draft; a failure keeps the run, from which `--resume` publishes without training again."""
    from ocad_registry import Artifact as Published
    from ocad_registry import RegistryError

    files = [Published(path=item.path, role=item.role, media_type=item.media_type) for item in export.artifacts]
    try:
        return registry.publish(draft, files, version)
    except RegistryError as error:
        error.hint = f"{error.hint}; then `ocad train --resume {run}` publishes the trained run".removeprefix("; ")
        raise
