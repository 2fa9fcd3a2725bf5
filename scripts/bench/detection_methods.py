"""What can be scored: a method takes training rows, the rows that follow them and the metrics, and says where it alarms.

No method is shown a label. `method_named` makes one of a name: a baseline of this file, or an installed plugin with
`PLUGIN`, `PLUGIN:CONFIG.yaml` or either followed by ` key=value …`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from ocad.catalogue import DataSource
from ocad.config import load_config
from ocad.contexts import PreparedData, RunContext
from ocad.detection.config import DetectorConfig
from ocad.detection.detector import SeriesDetector
from ocad.detection.ensemble import Ensemble, watched
from ocad.detection.hold import Hold
from ocad.detection.incidents import Incident
from ocad.detection.rule import AlarmRule
from ocad.detection.training import surprises
from ocad.detection.units import TO_SIGMA
from ocad.errors import UsageError
from ocad.host import Host
from ocad.progress import SilentProgress
from ocad.timeseries.windows import split_rows
from ocad.units import UNITS
from ocad_registry import Registry

Floats = NDArray[np.float64]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NEIGHBOURS = 5
FALSE_ALARMS = 0.001
"""The share of training rows above the alarm level of the baselines that have no scale of their own."""


@dataclass(frozen=True, slots=True)
class Detected:
    """What a method says of `n` rows, in their order."""

    score: Floats
    """`(n,)`, higher is more anomalous."""
    alarm: NDArray[np.bool_]
    """`(n,)`: whether the endpoint was in alarm after the row."""
    surprise: Floats | None = None
    """`(n,)`: -log10 of the share of held-out rows that score as high; None of a method that promises none."""
    incidents: tuple[Incident, ...] = ()
    """What an operator would be told; empty of a baseline, which tells nothing."""
    rest: int = 0
    """Quiet rows until another alarm is another alert."""


Method = Callable[[pd.DataFrame, pd.DataFrame, Sequence[str]], Detected]
"""`method(train, test, metrics)`: both frames have `timestamp`, `endpoint` and the metrics, sorted by endpoint and time, and
the rows of an endpoint in `test` follow those in `train`."""


def unlabelled(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The columns that a method may see."""
    return frame[["timestamp", "endpoint", *metrics]].reset_index(drop=True)


def plugin_method(
    name: str, overrides: Sequence[str] = (), config: Path | None = None, rule: AlarmRule | None = None
) -> Method:
    """The detector of an installed plugin, trained by its hook on the training rows, without a registry.

    Training and validation part have the proportion that the configuration gives them. It runs once over the training rows
    before the test rows, so that its state is that of a detector in use. A detector alarms by `rule` (None: the plain
    one), an ensemble by its own. Raises what the plugin raises, `UsageError` for one that needs registered models.
    """

    def method(train: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]) -> Detected:
        model = train_plugin(name, train, metrics, overrides, config)
        units = {metric: UNITS.get(metric, "") for metric in metrics}
        ensemble = model if isinstance(model, Ensemble) else watched(name, model, units, rule)
        ensemble.forget()
        ensemble.detect(unlabelled(train, metrics))
        rows = unlabelled(test, metrics)
        found = ensemble.detect(rows)
        rare = surprises(model.calibration, rows, found.scores) if model.calibration else None
        return Detected(found.scores, found.alarms, rare, tuple(found.incidents), ensemble.rule.rest)

    return method


def raw_method(name: str, config: Path | None, on: float, overrides: Sequence[str] = ()) -> Method:
    """A plugin's raw statistic with no calibration and no lost rows: an alarm from `on`, until five rows are below half of it."""

    def method(train: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]) -> Detected:
        model = train_plugin(name, train, metrics, overrides, config)
        if isinstance(model, Ensemble):
            raise UsageError(f"the ensemble of `{name}` has no raw statistic", "give a plugin of one detector")
        model.forget()
        model.raw(unlabelled(train, metrics))
        score = model.raw(unlabelled(test, metrics))
        return Detected(score, held(test, score, lambda: Hold(on, on, 1, 1, on / 2, 5)))

    return method


def train_plugin(
    name: str, train: pd.DataFrame, metrics: Sequence[str], overrides: Sequence[str], config: Path | None
) -> SeriesDetector | Ensemble:
    """What the plugin's `ocad_train` makes of the rows of `train`, unlabelled."""
    host = Host()
    plugin = host.plugin(name)
    settings = cast(
        "DetectorConfig", load_config(plugin.info.config, config, (*overrides, f"metrics=[{','.join(metrics)}]"))
    )
    shares = settings.split.shares
    first = shares[0] / (shares[0] + shares[1])
    rows = unlabelled(train, metrics)
    part = split_rows(rows, (first, 1 - first, 0.0), gap=0)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        pieces = {"train": rows[part == 0], "validation": rows[part != 0]}
        paths = {key: run / f"{key}.parquet" for key in pieces}
        for key, piece in pieces.items():
            piece.to_parquet(paths[key], index=False)
        metric = metrics[0] if len(metrics) == 1 else None
        context = RunContext(
            Registry(run / "models"), _no_model, name, settings, DataSource(name="rows", path=run), metric, run,
            settings.seed, SilentProgress(), other_plugin=host.plugin,
        )  # fmt: skip
        data = PreparedData("rows", "", paths, {key: len(piece) for key, piece in pieces.items()})
        return cast("SeriesDetector | Ensemble", plugin.ask("ocad_train", context=context, data=data).predictor)


def median_mad(level: float = 8.0, window: int = 500, k: int = 2, n: int = 3) -> Method:
    """The operator's own rule: a value `level` deviations from the median of the last `window` rows, `k` times in `n` rows.

    The deviation is 1.4826 · MAD of the same rows; of several metrics the largest counts. A lost row counts as far as an
    alarm asks, so that `k` of them in `n` rows alarm.
    """

    def method(train: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]) -> Detected:
        score = np.zeros(len(test))
        for endpoint, places in test.groupby("endpoint", sort=False).indices.items():
            before = train[train["endpoint"] == endpoint].tail(2 * window)
            for metric in metrics:
                values = pd.concat([before[metric], test[metric].iloc[places]], ignore_index=True)
                usual = values.rolling(window, min_periods=20).median().shift(1)
                rest = (values - usual).abs()
                noise = TO_SIGMA * rest.rolling(window, min_periods=20).median().shift(1)
                noise = noise.where(noise > 0, 0.01 * usual.abs() + 1e-9)
                far = (rest / noise).where(values.notna(), level).fillna(0.0).to_numpy()[len(before) :]
                score[places] = np.maximum(score[places], far)
        return Detected(score, held(test, score, lambda: Hold(level, np.inf, k, n, level / 2, 5)))

    return method


def nearest_neighbours(train: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]) -> Detected:
    """The distance to the 5th nearest training row of the same endpoint, metrics scaled to deviations of training."""

    def distances(fitted: Floats, rows: Floats, own: bool) -> Floats:
        model = NearestNeighbors(n_neighbors=NEIGHBOURS + own, algorithm="brute", n_jobs=1).fit(fitted)
        return np.asarray(model.kneighbors(rows)[0][:, -1])

    return _by_rows(distances, train, test, metrics)


def isolation_forest(train: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]) -> Detected:
    """scikit-learn's forest with its own settings over single rows of the same endpoint."""

    def depths(fitted: Floats, rows: Floats, own: bool) -> Floats:  # noqa: ARG001 - a forest need not know
        return np.asarray(-IsolationForest(random_state=7, n_jobs=1).fit(fitted).score_samples(rows))

    return _by_rows(depths, train, test, metrics)


def held(frame: pd.DataFrame, score: Floats, hold: Callable[[], Hold]) -> NDArray[np.bool_]:
    """The alarms `(n,)` of `score`, a fresh `hold` for each endpoint of `frame`."""
    alarm = np.zeros(len(frame), dtype=bool)
    for places in frame.groupby("endpoint", sort=False).indices.values():
        alarm[places] = hold().run(score[places])
    return alarm


def _by_rows(
    scorer: Callable[[Floats, Floats, bool], Floats], train: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]
) -> Detected:
    """Scores of each endpoint by its own training rows; `scorer`'s last argument says that the rows are the fitted ones."""
    score, level = np.zeros(len(test)), np.zeros(len(test))
    for endpoint, places in test.groupby("endpoint", sort=False).indices.items():
        fitted = train.loc[train["endpoint"] == endpoint, list(metrics)].to_numpy(np.float64)
        rows = test[list(metrics)].to_numpy(np.float64)[places]
        usual, deviation = np.nanmean(fitted, axis=0), np.nanstd(fitted, axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        fitted, rows = (np.nan_to_num((part - usual) / deviation, nan=0.0) for part in (fitted, rows))
        score[places] = scorer(fitted, rows, False)
        sample = fitted[:: max(1, len(fitted) // 2000)]
        level[places] = np.quantile(scorer(fitted, sample, True), 1 - FALSE_ALARMS)
    return Detected(score, score > level)


BASELINES: dict[str, Callable[[], Method]] = {
    "median_mad": median_mad,
    "knn": lambda: nearest_neighbours,
    "iforest": lambda: isolation_forest,
}
"""What stands beside the detectors."""


def method_named(text: str) -> Method:
    """A baseline by its name, or a plugin as `PLUGIN[:CONFIG.yaml][ key=value …]`."""
    head, *overrides = text.split(" ")
    if head in BASELINES:
        return BASELINES[head]()
    name, _, config = head.partition(":")
    return plugin_method(name, overrides, Path(config) if config else None)


def _no_model(reference: str) -> NoReturn:
    raise UsageError(f"the model `{reference}` is not here", "score plugins that need no registered model")
