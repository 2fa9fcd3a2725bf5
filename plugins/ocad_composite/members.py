"""The members of a composite: registered detectors by exact version, checked against each other and the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocad.catalogue import column_names, find_data
from ocad.detection.detector import SeriesDetector
from ocad.errors import OcadError, UsageError, VerificationError, nearest
from ocad.units import UNITS
from ocad_registry import RegistryError

if TYPE_CHECKING:
    from ocad.catalogue import DataSource
    from ocad.contexts import HostContext, RunContext
    from ocad_composite.config import CompositeConfig
    from ocad_registry import Version

logger = logging.getLogger("ocad.data")


@dataclass(frozen=True, slots=True)
class Member:
    """One registered detector, loaded."""

    version: Version
    detector: SeriesDetector

    @property
    def name(self) -> str:
        """The model's name, by which incidents speak of it."""
        return self.version.name


def chosen_members(context: RunContext, config: CompositeConfig) -> list[Member]:
    """The members that the settings name, loaded and fit to work together on the run's data.

    Raises `UsageError` for too few members, one that is no detector or is named twice, or members that were trained on
    other metrics or units; `RegistryError` for a reference that is not there.
    """
    if not config.members:
        hint = "give references of registered detectors: `--set members=[rule_based-oran,changepoint-oran]`"
        raise UsageError("a composite needs members", hint)
    members = [_open(context, reference) for reference in config.members]
    names = [member.name for member in members]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the member `{name}` is named twice", "name each model once, in one version")
    _check_metrics(context, config, members)
    _check_units(context.data, members)
    for member in members:
        _tell_overlap(context, config, member)
    return members


def recorded_member(context: HostContext, composite: str, reference: str, metadata_sha256: str) -> Member:
    """The member `reference` that the version `composite` was trained with.

    Raises `VerificationError` when it is gone, damaged, or not the version that it was.
    """
    hint = "bring that version back, or train the composite again"
    try:
        version = context.registry.resolve(reference)
        if version.metadata_sha256 != metadata_sha256:
            raise VerificationError(
                f"the member `{reference}` of `{composite}` is not the one it was trained with", hint
            )
        return _open(context, reference)
    except RegistryError as error:
        message = f"the member `{reference}` of `{composite}` cannot be read ({error.message})"
        raise VerificationError(message, hint) from None


def metrics_of_members(members: Sequence[Member]) -> tuple[str, ...]:
    """The columns that the members read, in the order in which they first come."""
    return tuple(dict.fromkeys(metric for member in members for metric in member.detector.metrics))


def units_of(source: DataSource, metrics: Sequence[str]) -> dict[str, str]:
    """The unit of each metric as the data has it."""
    return {metric: source.unit_of(metric) for metric in metrics}


def _open(context: HostContext, reference: str) -> Member:
    version = context.registry.resolve(reference)
    detector = context.load(version.ref)
    if not isinstance(detector, SeriesDetector):
        task = version.manifest.task
        said = "a composite itself" if task == "detect" else f"a model for the task `{task}`"
        raise UsageError(
            f"the member `{version.ref}` is {said}, not a detector of series", "`ocad registry list` shows others"
        )
    return Member(version, detector)


def _check_metrics(context: RunContext, config: CompositeConfig, members: Sequence[Member]) -> None:
    """Every member reads what the run is about, and the data has it."""
    source = context.data
    known = list(source.columns) or column_names(source)
    wanted = config.metrics or ((context.metric,) if context.metric in known else ())
    for member in members:
        for metric in member.detector.metrics:
            if wanted and metric not in wanted:
                asked = ", ".join(f"`{name}`" for name in wanted)
                message = f"the member `{member.version.ref}` was trained on the metric `{metric}`, not on {asked}"
                raise UsageError(
                    message, "name members of these metrics, or a `--metric` that stands for all of theirs"
                )
            if metric not in known:
                message = (
                    f"data `{source.name}` has no metric `{metric}`, which the member `{member.version.ref}` reads"
                )
                raise UsageError(message, nearest(metric, known))


def _check_units(source: DataSource, members: Sequence[Member]) -> None:
    """The members were trained on values in the units of the data."""
    for member in members:
        trained = _trained_units(member)
        for metric, unit in units_of(source, member.detector.metrics).items():
            if unit and trained[metric] and trained[metric] != unit:  # a file does not say its units
                message = f"the member `{member.version.ref}` was trained on `{metric}` in {trained[metric]}"
                hint = "train the member again on data of this unit"
                raise UsageError(f"{message}, data `{source.name}` has it in {unit}", hint)


def _trained_units(member: Member) -> Mapping[str, str]:
    data = member.version.manifest.data
    try:
        return units_of(find_data(data.name if data else ""), member.detector.metrics)
    except OcadError:  # the catalogue does not know the set any more: its metrics were in the canonical units
        return {metric: UNITS.get(metric, "") for metric in member.detector.metrics}


def _tell_overlap(context: RunContext, config: CompositeConfig, member: Member) -> None:
    """Warns of a member that was fitted on rows which now decide about its weight."""
    manifest = member.version.manifest
    share = (manifest.params.get("split") or {}).get("train", 0.0)
    same = manifest.data is not None and manifest.data.name == context.data.name
    if same and (share > config.split.train + 1e-9 or "train" in config.optimise_on):
        logger.warning("member `%s` was fitted on rows that the composite is optimised on", member.version.ref)
