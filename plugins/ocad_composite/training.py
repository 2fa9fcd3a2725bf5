"""From members and labelled rows to a composite, and how well it does."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.contexts import Evaluation, PreparedData, Trained
from ocad.detection.calibration import Calibration
from ocad.detection.events import EventCounts, EventMetrics, count_events
from ocad.detection.rule import AlarmRule
from ocad.detection.training import evaluate, prepare
from ocad.errors import ConfigError
from ocad.timeseries.windows import PARTS
from ocad_composite.evidence import gather, require_labels
from ocad_composite.members import chosen_members, metrics_of_members, units_of
from ocad_composite.search import search, steps_of
from ocad_composite.stored import Composite

if TYPE_CHECKING:
    from ocad.contexts import RunContext
    from ocad.protocols import Predictor
    from ocad_composite.config import CompositeConfig

logger = logging.getLogger("ocad.data")

FEW_INCIDENTS = 20
"""Below so many labelled incidents a warning says that the weights rest on little."""
_CAP, _THRESHOLD = 8.0, 2.0


def prepare_rows(context: RunContext) -> PreparedData:
    """The columns of all members, split in time; see `ocad.detection.training.prepare` and `chosen_members`."""
    config = cast("CompositeConfig", context.config)
    metrics = metrics_of_members(chosen_members(context, config))
    return prepare(dataclasses.replace(context, config=config.model_copy(update={"metrics": metrics})))


def train(context: RunContext, data: PreparedData) -> Trained:
    """Searches weights and thresholds on the labelled rows of `optimise_on`, then calibrates the weighted sum.

    Raises `DataError` for labels that are missing or of one class.
    """
    config = cast("CompositeConfig", context.config)
    members = chosen_members(context, config)
    frame, part = _parts(data, ("train", "validation"))
    considered = np.isin(part, config.optimise_on)
    require_labels(context.data.name, frame, considered)
    evidence = gather([member.detector for member in members], frame, considered, config.search.folds)
    if evidence.incidents < FEW_INCIDENTS:
        logger.warning("only %d labelled incidents decide about weights and thresholds", evidence.incidents)
    with context.progress.task("searching alarm rules", steps_of(config.search)) as task:
        found = search(evidence, first_rule(config, len(members)), config.search, context.seed, task.advance)
    estimates = {f"cv_{name}": value for name, value in _named(found.held_out.metrics()).items()}
    composite = Composite(
        members,
        found.rule,
        units_of(context.data, metrics_of_members(members)),
        Calibration.fit(evidence.normal_scores(found.rule), config.pooled),
        estimates | {"optimised_incidents": float(evidence.incidents)},
    )
    return Trained(predictor=cast("Predictor", composite), model=(composite, found))


def first_rule(config: CompositeConfig, size: int) -> AlarmRule:
    """The rule that the settings describe for `size` members; raises `ConfigError` where they do not fit."""
    for name in ("weights", "caps", "thresholds"):
        given = len(getattr(config, name))
        if given not in (0, size):
            raise ConfigError(
                f"`{name}` has {given} values for {size} members",
                f"give one for each member, or none: `--set {name}=[]`",
            )
    weights = config.weights or (1.0,) * size
    return AlarmRule(
        weights=tuple(weight / sum(weights) for weight in weights),
        caps=config.caps or (_CAP,) * size,
        thresholds=config.thresholds or (_THRESHOLD,) * size,
        agreement=config.agreement,
        on=config.hold.raise_at,
        off=config.hold.clear_at,
        **config.hold.model_dump(include={"instant", "k", "n", "m", "rest"}),
    )


def evaluate_composite(context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
    """The metrics of every detector on the test part, but events under the composite's own rule.

    `validation_event_*` and `validation_point_fpr` are of the part that the rule was chosen on, `cv_…` of blocks of time
    under rules that were chosen without them, `event_*` and `point_fpr` of the test part.
    """
    composite = cast("Composite", trained.predictor)
    measured = evaluate(context, trained, data)
    metrics = {name: value for name, value in measured.metrics.items() if not name.startswith(("event_", "point_"))}
    frame, part = _parts(data, PARTS)
    composite.forget()
    alarms = composite.detect(frame).alarms
    composite.forget()
    for name, prefix in (("validation", "validation_"), ("test", "")):
        rows = part == name
        if "label" in frame and frame["label"].to_numpy()[rows].any():
            found = _named(count_rows(frame[rows], alarms[rows]).metrics())
            metrics |= {f"{prefix}{key}": value for key, value in found.items()}
    return dataclasses.replace(measured, metrics=metrics | composite.estimates)


def count_rows(frame: pd.DataFrame, alarms: NDArray[np.bool_]) -> EventCounts:
    """The event counts of `alarms` `(n,)` in labelled rows sorted by endpoint and time, summed over endpoints."""
    label = frame["label"].to_numpy()
    counts = EventCounts()
    for places in frame.groupby("endpoint", sort=False).indices.values():
        counts += count_events(label[places], alarms[places])
    return counts


def _parts(data: PreparedData, names: tuple[str, ...]) -> tuple[pd.DataFrame, NDArray[np.str_]]:
    """The rows of the parts `names` together, sorted by endpoint and time, and the part of each."""
    frames = [pd.read_parquet(data.splits[name]).assign(part=name) for name in names]
    frame = pd.concat(frames).sort_values(["endpoint", "timestamp"], ignore_index=True)
    return frame.drop(columns="part"), frame["part"].to_numpy(str)


def _named(metrics: EventMetrics) -> dict[str, float]:
    return {name: float(value) for name, value in dataclasses.asdict(metrics).items()}
