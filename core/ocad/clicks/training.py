"""From a log to a calibrated model: the first two hooks of every click-through plugin."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ocad.calibration.calibrators import Calibrator
from ocad.calibration.choice import compare_calibrators, fit_calibrator
from ocad.clicks.model import InputShape, Learner, Scorer
from ocad.clicks.predictor import BATCH_ROWS, FittedPredictor
from ocad.contexts import Trained
from ocad.runs import write_json
from ocad.tabular.dataset import Clicks, load_clicks
from ocad.tabular.prepare import load_encoder, prepare_clicks

if TYPE_CHECKING:
    from ocad.clicks.config import ClickConfig
    from ocad.contexts import PreparedData, RunContext
    from ocad.tabular.encoder import Encoder

PARITY_SAMPLES = 1024
"""Validation rows that parity is measured on, spread evenly over the part; all of them where there are fewer."""


@dataclass(frozen=True, slots=True)
class TrainedClicks:
    """The handle of every click-through plugin on a trained model."""

    scorer: Scorer
    calibrator: Calibrator
    held_out: FittedPredictor
    """What the validation part was held out from: `scorer` itself, unless that was trained on it in the end."""
    shape: InputShape
    encoder: Encoder
    data: Path
    """The folder of the prepared data, with `preprocess.json` and `vocab.json`."""
    samples: dict[str, NDArray[np.generic]]
    """Validation rows as the graph's inputs."""


def prepare(context: RunContext) -> PreparedData:
    """`train`, `validation` and `test` of the log, encoded by what was fitted on `train` alone.

    Of a version that is measured again only the rows in question, by its own encoder.
    """
    if context.version is not None:
        from ocad.clicks.again import prepare_again

        return prepare_again(context, context.version)
    config = cast("ClickConfig", context.config)
    return prepare_clicks(context, config.features, config.split, config.data)


def train(context: RunContext, data: PreparedData, learner: Learner) -> Trained:
    """Trains, calibrates on the validation part, and trains again on both; `trained.model` is a `TrainedClicks`.

    A second model has nothing left to be calibrated on: it takes the calibrator of the first, which was trained alike.
    """
    folder = data.splits["train"].parent
    encoder = load_encoder(folder)
    shape = InputShape.of(encoder)
    training, validation = (load_clicks(data.splits[part]) for part in ("train", "validation"))
    fitted = learner.fit(context, training, validation, shape)
    calibrator = calibrate(context, fitted.scorer, validation, shape)
    held_out = FittedPredictor(fitted.scorer, calibrator, shape)
    scorer = fitted.scorer
    if refits(cast("ClickConfig", context.config), len(training) + len(validation)) and fitted.again:
        scorer = fitted.again(joined(training, validation))
    chosen = np.unique(np.linspace(0, len(validation) - 1, PARITY_SAMPLES).astype(int))
    samples = shape.arrays(validation.ids[chosen], validation.numerics[chosen])
    handle = TrainedClicks(scorer, calibrator, held_out, shape, encoder, folder, samples)
    predictor = FittedPredictor(scorer, calibrator, shape)
    return Trained(predictor, handle, list(fitted.history), dict(fitted.checkpoints))


def refits(config: ClickConfig, rows: int) -> bool:
    """Whether a model of so many rows of training and validation is trained again on all of them."""
    from ocad.clicks.config import SMALL_ROWS

    return rows <= SMALL_ROWS if config.refit == "auto" else config.refit


def joined(first: Clicks, second: Clicks) -> Clicks:
    """The rows of both parts, which were prepared together."""
    columns: dict[str, Any] = {}
    for column in fields(Clicks):
        one, other = getattr(first, column.name), getattr(second, column.name)
        columns[column.name] = None if one is None or other is None else np.concatenate([one, other])
    return Clicks(**columns)


def calibrate(context: RunContext, scorer: Scorer, validation: Clicks, shape: InputShape) -> Calibrator:
    """The calibrator for `scorer`, fitted on the validation part; `calibration.json` in the run keeps how it was chosen."""
    method: str = cast("ClickConfig", context.config).calibration.method
    logit = logits(scorer, validation, shape)
    compared = {}
    if method == "auto":
        comparison = compare_calibrators(logit, validation.label, context.seed, validation.weight)
        method, compared = comparison.chosen, dict(comparison.losses)
    calibrator = fit_calibrator(method, logit, validation.label, validation.weight)
    write_json(
        context.run / "calibration.json",
        {"chosen": method, "cross_validated_logloss": compared, "calibrator": calibrator.to_json()},
    )
    return calibrator


def logits(scorer: Scorer, clicks: Clicks, shape: InputShape) -> NDArray[np.float64]:
    """Log-odds `(n,)` of prepared rows, a batch at a time."""
    answer = np.empty(len(clicks))
    for start in range(0, len(clicks), BATCH_ROWS):
        rows = slice(start, start + BATCH_ROWS)
        answer[rows] = scorer.logit(shape.arrays(clicks.ids[rows], clicks.numerics[rows]))
    return answer


def calibrator_facts(handle: TrainedClicks) -> str:
    """One line for the version's description."""
    kind = handle.calibrator.kind
    return "uncalibrated" if kind == "identity" else f"{kind} calibration"
