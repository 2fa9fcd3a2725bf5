"""Trains the trees with LightGBM, early stopping on the validation part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ocad.clicks.model import IDS, NUMERICS, Fitted, InputShape
from ocad.contexts import Artifact
from ocad_gbdt.trees import export_trees

if TYPE_CHECKING:
    from ocad.calibration.calibrators import Calibrator
    from ocad.contexts import RunContext
    from ocad.protocols import Arrays
    from ocad.tabular.dataset import Clicks
    from ocad_gbdt.config import GbdtConfig, TreeSettings


class GbdtLearner:
    """See `ocad.clicks.model.Learner`."""

    def fit(self, context: RunContext, train: Clicks, validation: Clicks, shape: InputShape) -> Fitted:
        """Boosted trees, as many as the validation part wants; `history` has its AUC and log loss after each tree."""
        settings = cast("GbdtConfig", context.config).trees
        training = _dataset(train, shape)
        watched = _dataset(validation, shape, training)
        curves: dict[str, Any] = {}
        with context.progress.task("growing trees", settings.trees) as task:
            booster = lightgbm.train(
                _parameters(settings, context.seed),
                training,
                settings.trees,
                valid_sets=[watched],
                valid_names=["validation"],
                callbacks=[
                    lightgbm.early_stopping(settings.patience, first_metric_only=True, verbose=False),
                    lightgbm.record_evaluation(curves),
                    lambda _: task.advance(),
                ],
            )
        measured = curves["validation"]
        history = [
            {"epoch": float(number), "val_auc": auc, "val_loss": loss}
            for number, (auc, loss) in enumerate(zip(measured["auc"], measured["binary_logloss"], strict=True), start=1)
        ]
        return Fitted(TreeScorer(booster, shape), history)


class TreeScorer:
    """A trained booster. See `ocad.clicks.model.Scorer`."""

    def __init__(self, booster: lightgbm.Booster, shape: InputShape) -> None:
        self._booster, self._shape = booster, shape

    def logit(self, inputs: Arrays) -> NDArray[np.float64]:
        """See `Scorer`; LightGBM adds its leaves in float64."""
        return self.exact_logit(inputs)

    def exact_logit(self, inputs: Arrays) -> NDArray[np.float64]:
        """See `Scorer`."""
        table = feature_table(self._shape, inputs.get(IDS), inputs.get(NUMERICS))
        return np.asarray(self._booster.predict(table, raw_score=True), np.float64)

    def export(self, calibrator: Calibrator, folder: Path) -> list[Artifact]:
        """The graph, and LightGBM's own text form as `model.txt`."""
        artifacts = export_trees(self._booster.dump_model(), self._shape, calibrator, folder)
        text = folder / "model.txt"
        self._booster.save_model(text)
        return [*artifacts, Artifact(text, "estimator", "text/plain")]


def feature_table(
    shape: InputShape, ids: NDArray[np.int64] | None, numerics: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """`(n, fields + m)`: each field's own numbers from 0 (exact in float32 below 16 million), then the numerics."""
    parts = []
    if ids is not None:
        parts.append((ids - np.asarray(shape.offsets, np.int64)).astype(np.float32))
    if numerics is not None:
        parts.append(np.where(np.isnan(numerics), np.asarray(shape.fills, np.float32), numerics))
    return np.concatenate(parts, axis=1)


def _dataset(clicks: Clicks, shape: InputShape, like: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
    given = shape.arrays(clicks.ids, clicks.numerics)
    table = feature_table(shape, cast("Any", given.get(IDS)), cast("Any", given.get(NUMERICS)))
    fields = list(range(len(shape.offsets)))
    return lightgbm.Dataset(table, clicks.label, weight=clicks.weight, reference=like, categorical_feature=fields)


def _parameters(settings: TreeSettings, seed: int) -> dict[str, Any]:
    return {
        "objective": "binary",
        "metric": ["auc", "binary_logloss"],
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.leaf_rows,
        "feature_fraction": settings.column_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": int(settings.row_share < 1),
        "lambda_l2": settings.l2,
        "scale_pos_weight": settings.positive_weight,
        "num_threads": settings.threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        # numbers are never missing here: the encoder and the graph put the training mean in their place
        "use_missing": False,
        "verbosity": -1,
    }
