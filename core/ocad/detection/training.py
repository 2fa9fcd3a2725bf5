"""From a frame to a registered detector: the bodies of the hooks that every detector plugin shares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ocad.contexts import Artifact, Evaluation, Export, PreparedData, Trained
from ocad.detection.calibration import Calibration
from ocad.detection.detector import normal_rows
from ocad.detection.events import count_frame
from ocad.detection.hold import REST, default_hold
from ocad.detection.power import measure_power
from ocad.detection.units import ALARM
from ocad.errors import DataError, UsageError, in_one_line
from ocad.figures import new_figure, write_figure
from ocad.metrics.ranking import auc, average_precision
from ocad.runs import write_json
from ocad.timeseries.frame import read_frame
from ocad.timeseries.windows import PARTS, split_rows

if TYPE_CHECKING:
    from ocad.contexts import RunContext
    from ocad.detection.config import DetectorConfig
    from ocad.detection.detector import SeriesDetector
    from ocad.protocols import Predictor
    from ocad_registry import Version

Floats = NDArray[np.float64]
Learn = Callable[["RunContext", Sequence[str], pd.DataFrame, pd.DataFrame], "SeriesDetector"]
AnyDetector = TypeVar("AnyDetector", bound="SeriesDetector")

DETECTOR_FILE = "detector.json"
_PROMISED = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""The surprises at which the promised share of false alarms is compared with the observed one."""


def prepare(context: RunContext) -> PreparedData:
    """Writes each endpoint's rows in time order as `train`, `validation` and `test`, the frame's columns kept.

    Of a version that is measured on another part than `test` those rows alone, as `test`. Raises `DataError` when an
    endpoint, or the training or validation part, has no normal row to learn from.
    """
    frame = read_frame(context.data, metrics_of(context), varying=False)
    part = split_rows(frame.data, cast("DetectorConfig", context.config).split.shares, gap=0)
    folder = context.run / "data"
    folder.mkdir(parents=True, exist_ok=True)
    digest, paths, rows = hashlib.sha256(), {}, {}
    wanted = {name: part == index for index, name in enumerate(PARTS)}
    if context.version and context.part != "test":
        wanted = {"test": wanted.get(context.part, np.ones(len(part), dtype=bool))}
    for name, chosen in wanted.items():
        piece = frame.data[chosen].reset_index(drop=True)
        _require_normal(context, piece, name)
        paths[name], rows[name] = folder / f"{name}.parquet", len(piece)
        piece.to_parquet(paths[name], index=False)
        digest.update(f"{name} {','.join(piece.columns)}\n".encode())
        digest.update(pd.util.hash_pandas_object(piece, index=False).to_numpy().tobytes())
    statistics = {"metrics": list(frame.metrics), "counts": frame.counts.as_dict()}
    return PreparedData(context.data.name, digest.hexdigest(), paths, rows, statistics)


def metrics_of(context: RunContext) -> tuple[str, ...]:
    """The columns that the run's detector reads: the configured ones, else the run's metric."""
    configured = cast("DetectorConfig", context.config).metrics
    if configured or context.metric:
        return configured or (str(context.metric),)
    raise UsageError(
        f"the plugin `{context.plugin}` needs a metric", "give it with `--metric NAME`, or `metrics` in its settings"
    )


def train(context: RunContext, data: PreparedData, learn: Learn) -> Trained:
    """Fits and calibrates by `learn`; both `trained.predictor` and `trained.model` are the detector."""
    parts = [pd.read_parquet(data.splits[name]) for name in ("train", "validation")]
    detector = learn(context, metrics_of(context), *parts)
    return Trained(predictor=cast("Predictor", detector), model=detector)


def fit_and_calibrate(
    detector: AnyDetector, train: pd.DataFrame, validation: pd.DataFrame, pooled: bool = False
) -> AnyDetector:
    """Fits on the normal rows of `train` and calibrates on those of `validation`, which it was not fitted on."""
    detector.fit(normal_rows(train))
    detector.calibrate(normal_rows(validation), pooled)
    return detector


def evaluate(context: RunContext, trained: Trained, data: PreparedData) -> Evaluation:
    """The test part from a fresh state: false alarms, power, and with labels how well incidents are found.

    `false_alarm_rate_1pct` (`_01pct`) is the share of normal test rows that score what 1 % (0.1 %) of the held-out rows
    reached; `alarm_rows` the share of them in alarm. `power_loss` and `power_shift` are the shares found of outages and of
    shifts of `ocad.detection.power` put into the test part. `held_out_rows` are the normal rows that calibration saw. With
    labels of both classes `auc`, `average_precision` and, under the default hold-down, `event_precision`, `event_recall`,
    `event_f1` and `point_fpr`. The curve `calibration` and its plot have the observed next to the promised share.
    """
    test = pd.read_parquet(data.splits["test"])
    detector = cast("SeriesDetector", trained.predictor)
    detector.restore({})
    scores = detector.score(test)
    detector.restore({})
    assert detector.calibration is not None
    normal = (test["label"] != 1).to_numpy() if "label" in test else np.ones(len(test), dtype=bool)
    surprise = surprises(detector.calibration, test, scores)[normal]
    metrics = {
        "false_alarm_rate_1pct": float((surprise >= 2).mean()),
        "false_alarm_rate_01pct": float((surprise >= 3).mean()),
        "alarm_rows": float((scores[normal] >= ALARM).mean()),
        "endpoints": float(test["endpoint"].nunique()),
        **measure_power(detector, test[normal], context.seed),
    }
    detector.restore({})
    if "validation" in data.splits:
        metrics["held_out_rows"] = float(len(normal_rows(pd.read_parquet(data.splits["validation"]))))
    if "label" in test and test["label"].nunique() == 2:
        metrics |= measure_labelled(test, scores)
    curve = [
        {"surprise": level, "promised": 10**-level, "observed": float((surprise >= level).mean())}
        for level in _PROMISED
    ]
    return Evaluation(metrics, {"calibration": curve}, [_plot(context.run / "plots" / "calibration.png", surprise)])


def surprises(calibration: Calibration, frame: pd.DataFrame, scores: Floats) -> Floats:
    """How rare each of the `scores` `(n,)` of `frame` was on the held-out rows of its endpoint; see `Calibration`."""
    found = np.empty(len(scores))
    for endpoint, places in frame.groupby("endpoint", sort=False).indices.items():
        found[places] = calibration.surprise(str(endpoint), scores[places])
    return found


def measure_labelled(frame: pd.DataFrame, scores: Floats) -> dict[str, float]:
    """Metrics of `scores` `(n,)` for the rows of `frame`, sorted by endpoint and time, labels of both classes."""
    label = frame["label"].to_numpy()
    metrics = {"auc": auc(label, scores), "average_precision": average_precision(label, scores)}
    alarm = np.zeros(len(frame), dtype=bool)
    for places in frame.groupby("endpoint", sort=False).indices.values():
        alarm[places] = default_hold().run(scores[places])
    return metrics | count_frame(frame, alarm, REST).metrics().to_json()


def export(context: RunContext, trained: Trained) -> Export:
    """The fitted detector with its calibration as `detector.json`; no graph."""
    return Export([write_detector(context.run / "export", trained.model)], signature=None)


def write_detector(folder: Path, detector: SeriesDetector) -> Artifact:
    """Writes `detector.json`, which `load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DETECTOR_FILE, detector.to_json())
    return Artifact(folder / DETECTOR_FILE, "estimator", "application/json")


def load(version: Version, read: Callable[[dict[str, Any]], AnyDetector]) -> AnyDetector:
    """The registered detector, its state fresh; raises `DataError` when its file is none that `read` reads."""
    try:
        value: dict[str, Any] = json.loads(version.file("estimator").read_text(encoding="utf-8"))
        return read(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = in_one_line(error)
        raise DataError(f"`{version.ref}` does not hold a detector ({reason})", "train and register it again") from None


def _require_normal(context: RunContext, piece: pd.DataFrame, part: str) -> None:
    if len(normal_rows(piece)):
        return
    if len(piece):
        message = f"the {part} part of data `{context.data.name}` has no normal row: all {len(piece)} are labelled 1"
        raise DataError(message, "change `split`, or give data with normal rows at its beginning")
    raise DataError(f"too few rows in data `{context.data.name}`: none is left for the {part} part", "give more rows")


def _plot(path: Path, normal: Floats) -> Path:
    """Observed against promised share of normal rows above each surprise."""
    figure, axes = new_figure("promised share of normal rows", "observed share of normal test rows")
    levels = np.linspace(0, 4, 81)
    promised, observed = 10**-levels, [(normal >= level).mean() for level in levels]
    axes.plot(promised, promised, color="0.25", linewidth=1, label="as promised")
    axes.plot(promised, observed, color="tab:orange", label="observed")
    axes.set_xscale("log")
    axes.set_yscale("log", nonpositive="clip")
    axes.legend(frameon=False)
    return write_figure(figure, path)
