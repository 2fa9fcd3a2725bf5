"""Trains the trees with LightGBM, early stopping on the validation part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ocad.calibration.calibrators import fit_platt
from ocad.clicks.model import IDS, NUMERICS, Fitted, InputShape
from ocad.contexts import Artifact
from ocad.metrics.probability import logloss
from ocad.metrics.ranking import auc
from ocad_gbdt.trees import export_trees

if TYPE_CHECKING:
    from ocad.calibration.calibrators import Calibrator
    from ocad.contexts import RunContext
    from ocad.protocols import Arrays
    from ocad.tabular.dataset import Clicks
    from ocad_gbdt.config import GbdtConfig, TreeSettings


LOSS = "binary_logloss"


class GbdtLearner:
    """See `ocad.clicks.model.Learner`."""

    def fit(self, context: RunContext, train: Clicks, validation: Clicks, shape: InputShape) -> Fitted:
        """Boosted trees, as many as the validation part wants; `history` has its AUC and log loss after each tree."""
        settings = cast("GbdtConfig", context.config).trees
        parameters = _parameters(settings, context.seed)
        training = _dataset(train, shape, settings)
        watched = _dataset(validation, shape, settings, training)
        curves: dict[str, Any] = {}
        with context.progress.task("growing trees", settings.trees) as task:
            booster = lightgbm.train(
                parameters,
                training,
                settings.trees,
                valid_sets=[watched],
                valid_names=["validation"],
                feval=_calibrated if settings.positive_weight != 1 else None,
                callbacks=[
                    lightgbm.early_stopping(settings.patience, first_metric_only=True, verbose=False),
                    lightgbm.record_evaluation(curves),
                    lambda _: task.advance(),
                ],
            )
        measured = curves["validation"]
        history = [
            {"epoch": float(number), "val_auc": area, "val_loss": loss}
            for number, (area, loss) in enumerate(zip(measured["auc"], measured[LOSS], strict=True), start=1)
        ]

        def again(rows: Clicks) -> TreeScorer:
            grown = lightgbm.train(parameters, _dataset(rows, shape, settings), booster.best_iteration)
            return TreeScorer(grown, shape)

        return Fitted(TreeScorer(booster, shape), history, again=again)


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


def _calibrated(probability: NDArray[np.float64], data: lightgbm.Dataset) -> list[tuple[str, float, bool]]:
    """Log loss and AUC where weighted clicks bend the odds: the loss is that after Platt scaling, which bends them back."""
    label, weighting = np.asarray(data.get_label()), data.get_weight()
    weight = None if weighting is None else np.asarray(weighting)
    certain = np.clip(probability, 1e-15, 1 - 1e-15)
    logit = np.log(certain) - np.log1p(-certain)
    loss = logloss(label, fit_platt(logit, label, weight).apply(logit), weight)
    return [(LOSS, loss, False), ("auc", auc(label, logit, weight), True)]


def _dataset(
    clicks: Clicks, shape: InputShape, settings: TreeSettings, like: lightgbm.Dataset | None = None
) -> lightgbm.Dataset:
    given = shape.arrays(clicks.ids, clicks.numerics)
    table = feature_table(shape, cast("Any", given.get(IDS)), cast("Any", given.get(NUMERICS)))
    fields = list(range(len(shape.offsets)))
    return lightgbm.Dataset(
        table,
        clicks.label,
        weight=clicks.weight,
        reference=like,
        categorical_feature=fields,
        params={"min_data_in_bin": settings.bin_rows, "max_bin": settings.bins, "verbosity": -1},
    )


def _parameters(settings: TreeSettings, seed: int) -> dict[str, Any]:
    return {
        "objective": "binary",
        # the first decides when to stop: an AUC alone may be highest with one tree, whose odds are all but equal
        "metric": [LOSS, "auc"] if settings.positive_weight == 1 else ["None"],
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.leaf_rows,
        "feature_fraction": settings.column_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": int(settings.row_share < 1),
        "lambda_l2": settings.l2,
        "min_data_in_bin": settings.bin_rows,
        "max_bin": settings.bins,
        "cat_smooth": settings.category_smoothing,
        "cat_l2": settings.category_l2,
        "min_data_per_group": settings.category_rows,
        "max_cat_threshold": settings.category_set,
        "max_cat_to_onehot": settings.category_single,
        "scale_pos_weight": settings.positive_weight,
        "num_threads": settings.threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        # numbers are never missing here: the encoder and the graph put the training mean in their place
        "use_missing": False,
        "verbosity": -1,
    }
