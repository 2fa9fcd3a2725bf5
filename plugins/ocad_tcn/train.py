"""Training: the view chosen on validation, then the shared torch loop. `ocad_train`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ocad.contexts import Trained
from ocad.timeseries.scaling import SCALINGS
from ocad.timeseries.significance import standard_error
from ocad.timeseries.windows import Windows, read_windows
from ocad.training.loop import Reporting
from ocad_tcn.fitting import Material, View, fit_forecaster
from ocad_tcn.forecaster import Forecaster
from ocad_tcn.predictor import TorchForecaster, predict_windows
from ocad_tcn.prepare import metric_of

if TYPE_CHECKING:
    from ocad.contexts import PreparedData, RunContext
    from ocad_tcn.config import TcnConfig

TRIALS = "trials"


@dataclass(frozen=True, slots=True)
class TrainedForecaster:
    """The plugin's handle on a trained model: with the windows that its export is proven on."""

    forecaster: Forecaster
    metric: str
    unit: str
    validation: Windows


def train(context: RunContext, data: PreparedData) -> Trained:
    """Trains a forecaster; `trained.model` is a `TrainedForecaster`."""
    config, metric = cast("TcnConfig", context.config), metric_of(context)
    material = Material.of(config, read_windows(data.splits["train"]), read_windows(data.splits["validation"]))
    view = choose_view(material, context)
    forecaster, result = fit_forecaster(
        material,
        view,
        config.train,
        context.run,
        seed=context.seed,
        reporting=Reporting(context.progress, context.epoch_ended, f"training tcn on {metric}"),
        resume=context.resume and (context.run / "checkpoints" / "last.pth").is_file(),
    )
    handle = TrainedForecaster(forecaster, metric, context.data.unit_of(metric), material.validation)
    predictor = TorchForecaster(forecaster, handle.unit)
    return Trained(predictor, handle, list(result.history), dict(result.checkpoints))


def choose_view(material: Material, context: RunContext) -> View:
    """The configured view; what is `auto` is chosen by short trials on validation, and kept in the run folder."""
    record = context.run / TRIALS / "chosen.json"
    if context.resume and record.is_file():
        return View(**json.loads(record.read_text(encoding="utf-8"))["view"])
    network = material.config.network
    scalings = SCALINGS if network.scaling == "auto" else (network.scaling,)
    views = (True, False) if network.view == "auto" else (network.view == "relative",)
    candidates = [View(scaling, relative) for scaling, relative in product(scalings, views)]
    if len(candidates) == 1:
        return candidates[0]
    errors = {view: try_view(material, view, context) for view in candidates}
    chosen = prefer_relative(errors)
    losses = {str(view): float(error.mean()) for view, error in errors.items()}
    record.write_text(json.dumps({"view": asdict(chosen), "val_loss": losses}, indent=2), encoding="utf-8")
    return chosen


def try_view(material: Material, view: View, context: RunContext) -> NDArray[np.float64]:
    """The squared errors `(n,)` on validation, standardised, of a network trained for a few epochs under `view`."""
    options, validation = material.config.train, material.validation
    options = options.model_copy(update={"epochs": min(material.config.network.trial_epochs, options.epochs)})
    folder = context.run / TRIALS / str(view).replace(", ", "-")
    reporting = Reporting(context.progress, label=f"trying the view {view}")
    forecaster, _ = fit_forecaster(material, view, options, folder, seed=context.seed, reporting=reporting)
    forecast = predict_windows(TorchForecaster(forecaster, ""), validation.sequence)
    errors: NDArray[np.float64] = ((forecast - validation.target) / forecaster.architecture.deviation) ** 2
    return errors


def prefer_relative(errors: dict[View, NDArray[np.float64]]) -> View:
    """The view with the lowest mean error, or the best relative one where that is worse by one standard error at most.

    The one-standard-error rule (Breiman et al. 1984): a relative view also answers for levels that training never saw,
    which the validation part cannot reward.
    """
    ranked = sorted(errors, key=lambda view: float(errors[view].mean()))
    for view in ranked:
        difference = errors[view] - errors[ranked[0]]
        if view.relative and float(difference.mean()) <= standard_error(difference):
            return view
    return ranked[0]
