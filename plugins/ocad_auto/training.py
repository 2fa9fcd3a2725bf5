"""From rows without labels to a choice of detectors: what they find of injected incidents, and what they agree on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.contexts import Evaluation, Trained
from ocad.detection.config import ENOUGH_HELD_OUT
from ocad.detection.detector import TIMES, normal_rows
from ocad.detection.events import EventCounts, alerts_of, count_frame
from ocad.detection.hold import REST, default_hold
from ocad.detection.incidents import SHARE
from ocad.detection.inject import Injection, inject
from ocad.detection.labelled import Labelled, gather
from ocad.detection.rule import AlarmRule
from ocad.detection.search import LEVELS, Found, search, steps_of
from ocad.detection.training import evaluate, fit_and_calibrate, metrics_of
from ocad.detection.units import ALARM
from ocad.errors import DataError, UsageError
from ocad_auto.stored import Auto, Choice

if TYPE_CHECKING:
    from ocad.contexts import PreparedData, RunContext
    from ocad.detection.detector import SeriesDetector
    from ocad.protocols import Predictor
    from ocad_auto.config import AutoConfig

logger = logging.getLogger("ocad.data")

NEAR_ROWS = 10
"""Alarms of two detectors that are so near tell of the same."""
LEAST_WEIGHT = 0.1
"""A detector that would weigh less is left out."""
LEAST_ROWS = int(ENOUGH_HELD_OUT.threshold)
"""Held-out rows below which there is nothing to choose on."""
AGREED = "agreed"
LEAST_FOUND = 0.25
"""The share of what is put in that a detector must find to be taken without a comparison, as the gate for shifts asks."""
NO_LINK = "no metric is a delay or a share of losses, and no label says what happens here"
CAUTIOUS = tuple(level for level in LEVELS if level >= ALARM)
"""The levels that are tried where incidents are injected ones: how rare false alarms must be, they do not tell."""


def train(context: RunContext, data: PreparedData) -> Trained:
    """Fits the detectors that the settings name and chooses among them; `trained.predictor` is an `Auto`.

    Raises `DataError` for too few held-out rows, or where no detector can be fitted.
    """
    config = cast("AutoConfig", context.config)
    metrics = metrics_of(context)
    fitted, validation = (pd.read_parquet(data.splits[name]) for name in ("train", "validation"))
    held_out = len(normal_rows(validation))
    if held_out < LEAST_ROWS:
        message = (
            f"too few rows in data `{context.data.name}`: {held_out} normal ones are held out to choose detectors on"
        )
        raise DataError(message, f"give so many that there are {LEAST_ROWS}, or train a single detector")
    units = {metric: context.data.unit_of(metric) for metric in metrics}
    some = _candidates(config, units, _has_labels(validation))
    auto = _choose(context, metrics, units, some, fitted, validation)
    if len(some) < len(config.choice.detectors) and auto.choice.measured["choice_recall"] < LEAST_FOUND:
        logger.info("`%s` hardly finds what was put in, so all detectors are tried", some[0])
        auto = _choose(context, metrics, units, config.choice.detectors, fitted, validation)
    auto.calibrate_mean(normal_rows(validation).reset_index(drop=True), config.pooled)
    for line in auto.choice.told:
        logger.info(line)
    return Trained(predictor=cast("Predictor", auto), model=auto)


def _choose(
    context: RunContext,
    metrics: Sequence[str],
    units: dict[str, str],
    candidates: Sequence[str],
    fitted: pd.DataFrame,
    validation: pd.DataFrame,
) -> Auto:
    """The choice among `candidates`; raises `DataError` where none of them can be fitted."""
    config = cast("AutoConfig", context.config)
    members, left_out = {}, {name: NO_LINK for name in config.choice.detectors if name not in candidates}
    for name in candidates:
        if name == "subspace" and not _of_no_link(units) and len(metrics) < config.choice.joint_metrics:
            left_out[name] = f"it needs {config.choice.joint_metrics} metrics that can move together"
            continue
        detector = _new_detector(context, name, metrics).use_units(units).use_scales(config.scales)
        try:
            members[name] = fit_and_calibrate(detector, fitted, validation, config.pooled)
        except DataError as error:
            left_out[name] = error.message
    if not members:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise DataError(f"no detector can be fitted ({reasons})", "give a longer series")
    labelled, source = _labelled(config, members, fitted, validation, context.seed)
    plain = AlarmRule.plain((1.0, *(0.0,) * (len(members) - 1)))
    levels = LEVELS if _has_labels(validation) else CAUTIOUS
    with context.progress.task("choosing detectors", steps_of(len(members), levels)) as task:
        found = search(labelled, plain, config.choice.folds, context.seed, task.advance, levels)
    return _chosen(members, found, labelled, units, left_out, source)


def evaluate_auto(context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
    """The metrics of every detector on the test part, but events under the chosen rule; with what the choice rests on."""
    auto = cast("Auto", trained.predictor)
    measured = evaluate(context, trained, data)
    metrics = {name: value for name, value in measured.metrics.items() if not name.startswith(("event_", "point_"))}
    test = pd.read_parquet(data.splits["test"])
    if "label" in test and test["label"].nunique() == 2:
        auto.forget()
        alarms = auto.detect(test).alarms
        auto.forget()
        metrics |= count_frame(test, alarms, auto.rule.rest).metrics().to_json()
    return dataclasses.replace(measured, metrics={**metrics, **auto.choice.measured})


def _of_no_link(units: Mapping[str, str]) -> bool:
    """Whether no metric is a delay or a share of losses, which detectors of links are made for."""
    return not any(unit in (*TIMES, SHARE) for unit in units.values())


def _candidates(config: AutoConfig, units: Mapping[str, str], labelled: bool) -> Sequence[str]:
    """The detectors that are tried, first what stays where no mixture is shown to be better.

    What can be put into series is what happens on links. It says little of any other: without labels of their own one
    detector is taken as it is.
    """
    names, first = config.choice.detectors, config.choice.other_than_links
    if first not in names or not _of_no_link(units):
        return names
    return [first, *(name for name in names if name != first)] if labelled else [first]


def _new_detector(context: RunContext, name: str, metrics: Sequence[str]) -> SeriesDetector:
    found = context.other_plugin(name).call("ocad_new_detector", metrics=metrics)
    if found is None:
        raise UsageError(f"the plugin `{name}` cannot be part of another", "name others in `choice.detectors`")
    return cast("SeriesDetector", found)


def _labelled(
    config: AutoConfig,
    members: dict[str, SeriesDetector],
    fitted: pd.DataFrame,
    validation: pd.DataFrame,
    seed: int,
) -> tuple[Labelled, str]:
    """The members' scores on the held-out rows, with their own labels where they have some, else with incidents put in;
    and in words whose incidents they are.

    What at least two members alarm at where nothing was put in counts as an incident too: it is there for both to see.
    """
    metrics = next(iter(members.values())).metrics
    held_out = pd.concat([fitted, validation]).sort_values(["endpoint", "timestamp"], kind="stable", ignore_index=True)
    considered = _are_of(held_out, validation)
    if _has_labels(validation):
        return gather(list(members.values()), held_out, considered, config.choice.folds), "labelled incidents"
    natural = held_out.drop(columns="label", errors="ignore")
    agreed = _agreed(members, natural)
    places = np.flatnonzero(considered)
    part = natural.iloc[places].reset_index(drop=True)
    varying = [metric for metric in metrics if part.groupby("endpoint")[metric].nunique().min() > 1]
    how = Injection(magnitude=config.choice.magnitude, prevalence=config.choice.prevalence, seed=seed)
    try:
        injected, _ = inject(part, varying or metrics, how)
    except DataError as error:
        logger.warning("no incidents can be put into the held-out rows: %s", error.message)
        injected = part.assign(label=np.int8(0), kind="")
    rows = natural.assign(label=np.int8(0), kind="")
    for column in (*metrics, "label", "kind"):
        rows.loc[places, column] = injected[column].to_numpy()
    both = agreed & (rows["label"] == 0).to_numpy()
    rows.loc[both, "label"], rows.loc[both, "kind"] = 1, AGREED
    return gather(list(members.values()), rows, considered, config.choice.folds), "incidents put into held-out rows"


def _has_labels(frame: pd.DataFrame) -> bool:
    return "label" in frame and bool((frame["label"] == 1).any())


def _are_of(frame: pd.DataFrame, part: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows of `frame`, sorted by endpoint and time, are not before the first row of their endpoint in `part`."""
    first = part.groupby("endpoint")["timestamp"].min()
    return np.asarray((frame["timestamp"] >= frame["endpoint"].map(first)).fillna(False).to_numpy(bool))


def _agreed(members: dict[str, SeriesDetector], frame: pd.DataFrame) -> NDArray[np.bool_]:
    """The rows of `frame` near which at least two members alarm by the default hold-down."""
    votes = np.zeros(len(frame), np.int64)
    parts = [np.asarray(rows) for rows in frame.groupby("endpoint", sort=False).indices.values()]
    for detector in members.values():
        detector.forget()
        scores = detector.score(frame)
        detector.forget()
        for rows in parts:
            near = np.zeros(len(rows), np.int64)
            for alert in alerts_of(default_hold().run(scores[rows]), REST):
                near[max(0, alert.start - NEAR_ROWS) : alert.end + NEAR_ROWS + 1] = 1
            votes[rows] += near
    return votes >= 2


def _chosen(
    members: dict[str, SeriesDetector],
    found: Found,
    labelled: Labelled,
    units: dict[str, str],
    left_out: dict[str, str],
    source: str,
) -> Auto:
    """The members that weigh something, their weights adding up to 1 again; those that do not are named in `told`."""
    least = min(LEAST_WEIGHT, max(found.rule.weights))
    weights = [weight if weight >= least else 0.0 for weight in found.rule.weights]
    rule = dataclasses.replace(found.rule, weights=tuple(weight / sum(weights) for weight in weights))
    counts = sum(labelled.count(rule), EventCounts())
    kept = {name: weight for name, weight in zip(members, rule.weights, strict=True) if weight > 0}
    if found.replaced:
        left_out |= {name: f"it would weigh less than {LEAST_WEIGHT:.0%}" for name in members if name not in kept}
    told = [
        f"chosen: {', '.join(f'{name} {weight:.0%}' for name, weight in kept.items())};"
        f" alarm at {rule.on:g} noise units, {rule.k} of {rule.n} rows",
        f"on {labelled.incidents} {source}: {counts.metrics().event_recall:.0%} found,"
        f" {counts.metrics().event_precision:.0%} of the alarms right",
        *_compared(list(members), found),
        *(f"left out: {name}: {reason}" for name, reason in left_out.items()),
    ]
    measured = {
        "choice_recall": counts.metrics().event_recall,
        "choice_f1": counts.metrics().event_f1,
        "choice_f1_gain": found.gain[0],
        "choice_incidents": float(counts.found + counts.missed),
    }
    rule = dataclasses.replace(rule, weights=tuple(kept.values()))
    return Auto({name: members[name] for name in kept}, rule, units, None, Choice(tuple(told), measured))


def _compared(names: Sequence[str], found: Found) -> list[str]:
    """Whether the choice is better than the first detector alone, in words."""
    gain = f"(F1 {found.gain[0]:+.3f}, 90 % {found.gain[1]:+.3f} to {found.gain[2]:+.3f})"
    if found.replaced:
        return [f"it is better than {names[0]} alone at its default {gain} on rows that did not choose it"]
    return [f"no mixture of {', '.join(names)} was shown to be better {gain}"] if len(names) > 1 else []
