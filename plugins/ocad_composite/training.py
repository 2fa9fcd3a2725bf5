"""From members and labelled rows to a composite, and how well it does."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.contexts import Evaluation, PreparedData, Trained
from ocad.detection.detector import normal_rows
from ocad.detection.events import EventCounts, count_frame
from ocad.detection.labelled import Labelled, gather, require_labels
from ocad.detection.rule import AlarmRule
from ocad.detection.search import Found, search, steps_of
from ocad.detection.training import evaluate, prepare
from ocad.errors import ConfigError
from ocad.timeseries.windows import PARTS
from ocad_composite.members import chosen_members, metrics_of_members, units_of
from ocad_composite.stored import Composite

if TYPE_CHECKING:
    from ocad.contexts import RunContext
    from ocad.protocols import Predictor
    from ocad_composite.config import CompositeConfig

logger = logging.getLogger("ocad.data")

FEW_INCIDENTS = 20
"""Below so many labelled incidents a warning says that the weights rest on little."""


def prepare_rows(context: RunContext) -> PreparedData:
    """The columns of all members, split in time; see `ocad.detection.training.prepare` and `chosen_members`."""
    config = cast("CompositeConfig", context.config)
    metrics = metrics_of_members(chosen_members(context, config))
    return prepare(dataclasses.replace(context, config=config.model_copy(update={"metrics": metrics})))


def train(context: RunContext, data: PreparedData) -> Trained:
    """Searches a rule on the labelled rows of `optimise_on`, then measures how rare its weighted mean is.

    Raises `DataError` for labels that are missing or of one class.
    """
    config = cast("CompositeConfig", context.config)
    members = chosen_members(context, config)
    frame, part = _parts(data, ("train", "validation"))
    considered = np.isin(part, config.optimise_on)
    require_labels(context.data.name, frame, considered)
    labelled = gather([member.detector for member in members], frame, considered, config.rule.folds)
    if labelled.incidents < FEW_INCIDENTS:
        logger.warning("only %d labelled incidents decide about weights and thresholds", labelled.incidents)
    found = _searched(context, labelled, plain_rule(config, len(members)))
    estimates = {f"cv_{name}": value for name, value in found.held_out.metrics().to_json().items()}
    estimates |= {"optimised_incidents": float(labelled.incidents), "plain_rule_replaced": float(found.replaced)}
    units = units_of(context.data, metrics_of_members(members))
    composite = Composite(members, found.rule, units, None, estimates)
    composite.calibrate_mean(normal_rows(frame[part == "validation"]).reset_index(drop=True), config.pooled)
    return Trained(predictor=cast("Predictor", composite), model=(composite, found))


def plain_rule(config: CompositeConfig, size: int) -> AlarmRule:
    """The rule that the settings describe for `size` members; raises `ConfigError` where they do not fit."""
    given = len(config.weights)
    if given not in (0, size):
        hint = "give one for each member, or none: `--set weights=[]`"
        raise ConfigError(f"`weights` has {given} values for {size} members", hint)
    weights, hold = config.weights or (1.0, *(0.0,) * (size - 1)), config.hold
    if not sum(weights) > 0:
        raise ConfigError("`weights` has no weight above 0", "give the members that count one")
    return AlarmRule(
        weights=tuple(weight / sum(weights) for weight in weights),
        on=hold.raise_at,
        instant=hold.raise_at if hold.instant is None else hold.instant,
        off=0.75 * hold.raise_at if hold.clear_at is None else hold.clear_at,
        **hold.model_dump(include={"k", "n", "m", "rest"}),
    )


def _searched(context: RunContext, labelled: Labelled, plain: AlarmRule) -> Found:
    settings = cast("CompositeConfig", context.config).rule
    if not settings.search:
        counts = sum(labelled.count(plain), EventCounts())
        return Found(plain, False, counts, counts, (0.0, 0.0, 0.0))
    with context.progress.task("searching alarm rules", steps_of(len(plain.weights))) as task:
        found = search(labelled, plain, settings.folds, context.seed, task.advance)
    told = "better than the plain rule" if found.replaced else "not shown better than the plain rule, which stays"
    logger.info("the best rule is %s (F1 %+.3f, 90 %% %+.3f to %+.3f)", told, *found.gain)
    return found


def evaluate_composite(context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
    """The metrics of every detector on the test part, but events under the composite's own rule.

    `validation_event_*` and `validation_point_fpr` are of the part that the rule was chosen on, `cv_…` of blocks of time
    under rules that were chosen without them, `event_*` and `point_fpr` of the test part.
    """
    composite = cast("Composite", trained.predictor)
    measured = evaluate(context, trained, data)
    metrics = {name: value for name, value in measured.metrics.items() if not name.startswith(("event_", "point_"))}
    frame, part = _parts(data, tuple(name for name in PARTS if name in data.splits))
    composite.forget()
    alarms = composite.detect(frame).alarms
    composite.forget()
    for name, prefix in (("validation", "validation_"), ("test", "")):
        rows = part == name
        if "label" in frame and frame["label"].to_numpy()[rows].any():
            found = count_frame(frame[rows], alarms[rows], composite.rule.rest).metrics().to_json()
            metrics |= {f"{prefix}{key}": value for key, value in found.items()}
    return dataclasses.replace(measured, metrics=metrics | composite.estimates)


def _parts(data: PreparedData, names: tuple[str, ...]) -> tuple[pd.DataFrame, NDArray[np.str_]]:
    """The rows of the parts `names` together, sorted by endpoint and time, and the part of each."""
    frames = [pd.read_parquet(data.splits[name]).assign(part=name) for name in names]
    frame = pd.concat(frames).sort_values(["endpoint", "timestamp"], ignore_index=True)
    return frame.drop(columns="part"), frame["part"].to_numpy(str)
