"""The detector: rolling features of a row, a graph in onnxruntime (or a server) that scores them, a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.detector import Series, SeriesDetector
from ocad.detection.features import RollingFeatures, State
from ocad.errors import UsageError
from ocad_isolation_forest.graph import FEATURES, SCORE
from ocad_isolation_forest.spikes import Spikes

if TYPE_CHECKING:
    from ocad.protocols import Arrays, Predictor

Floats = NDArray[np.float64]

BLOCK = 8192
"""Rows that are scored at a time: their features stay in the cache."""
_PROBE_ROWS, _OUT_ROWS = 64, 8
MOST_ROWS = 200_000
"""Training rows that trees draw theirs from, spread evenly over more."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How the forest is grown."""

    n_estimators: int = 100
    max_samples: int = 256
    contamination: float = 0.1
    """Share of rows that get one value out of the ordinary, so that trees can tell what normal rows never show."""
    seed: int = 7


class IsolationForestDetector(SeriesDetector):
    """Scores of several metrics together; fitted by scikit-learn, which only training needs."""

    def __init__(self, metrics: Sequence[str], growth: Growth | None = None) -> None:
        super().__init__(metrics)
        self.growth = growth or Growth()
        self.features: RollingFeatures | None = None
        self.spikes: Spikes | None = None
        self.forest: Any = None
        """scikit-learn's forest where this detector was fitted, None where it was loaded."""
        self._graph: Predictor | None = None
        self._reference = ""

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`."""
        from ocad_isolation_forest.growing import grow

        self.features = RollingFeatures.fit(self.metrics, {part.endpoint: part.values for part in series})
        found = {part.endpoint: self.feature_rows(part.endpoint, part.times, part.values) for part in series}
        self.forget()
        rows = np.concatenate(list(found.values()))
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_ROWS).astype(np.int64))]
        self.forest, self._graph = grow(chosen, self.features, self.growth)
        self.spikes = self._fit_spikes(found, chosen)

    def ceiling(self) -> float:
        """See `SeriesDetector`; what the trees say of a single metric ten deviations out for some rows."""
        return min(self._probed([column]) for column in range(len(self.metrics)))

    def feature_rows(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> NDArray[np.float32]:
        """The features `(n, k)` of one endpoint's rows in time order, as the graph takes them; advances its track."""
        features, state = self._rolling(endpoint)
        rows = features.rows(endpoint, state, self.breaks(endpoint, times), values)
        return rows.astype(np.float32, order="C")

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        features, state = self._rolling(endpoint)
        breaks, result, spikes = self.breaks(endpoint, times), np.empty(len(values)), self.fitted_spikes()
        for first in range(0, len(values), BLOCK):
            block = slice(first, first + BLOCK)
            rows = features.rows(endpoint, state, breaks[block], values[block]).astype(np.float32, order="C")
            result[block] = spikes.above(endpoint, rows, self._trees(rows))
        return result

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """See `SeriesDetector`."""
        features, state = self._rolling(endpoint)
        row = np.array([features.row(endpoint, state, self.is_break(endpoint, time_us), values)], np.float32)
        return float(self.fitted_spikes().above(endpoint, row, self._trees(row))[0])

    def predict(self, inputs: Arrays | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """`score` `(n, 1)` for `features` `(n, k)`; see `Predictor.predict`."""
        if self._graph is None:
            raise UsageError("the forest is not grown", "call `fit`, or load a registered version")
        return self._graph.predict(inputs)

    def graphs(self) -> dict[str, Predictor]:
        """What answers for the graph of each registered version that this detector asks: its own, once it is registered."""
        return {self._reference: self._graph} if self._reference and self._graph else {}

    def use_graph(self, reference: str, predictor: Predictor) -> None:
        """From now on `predictor`, perhaps a server, answers for the graph of the version `reference`."""
        if self._reference not in ("", reference):
            raise UsageError(f"the detector asks no graph of `{reference}`", f"it asks that of `{self._reference}`")
        self._reference, self._graph = reference, predictor

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`; the trees are in the graph."""
        growth = self.growth
        return {
            "n_estimators": growth.n_estimators,
            "max_samples": growth.max_samples,
            "contamination": growth.contamination,
            "seed": growth.seed,
            "features": self.fitted_features().to_json(),
            "spikes": self.fitted_spikes().to_json(),
        }

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`; `use_graph` gives it the trees."""
        names = ("n_estimators", "max_samples", "contamination", "seed")
        detector = cls(metrics, Growth(**{name: parameters[name] for name in names}))
        detector.features = RollingFeatures.from_json(metrics, parameters["features"])
        detector.spikes = Spikes(**parameters["spikes"])
        return detector

    def fitted_features(self) -> RollingFeatures:
        """The features; raises `UsageError` before `fit`."""
        if self.features is None:
            raise UsageError("the forest is not grown", "call `fit`, or load a registered version")
        return self.features

    def fitted_spikes(self) -> Spikes:
        """What single rows say; raises `UsageError` before `fit`."""
        if self.spikes is None:
            raise UsageError("the forest is not grown", "call `fit`, or load a registered version")
        return self.spikes

    def _fit_spikes(self, found: Mapping[str, NDArray[np.float32]], grown_on: NDArray[np.float32]) -> Spikes:
        """From the features of the training rows by endpoint, and those among them that the trees grew on."""
        down = [metric not in self.upward for metric in self.metrics]
        counts = [not share for share in self.is_share]
        gains = {endpoint: Spikes.gain(rows, down, counts) for endpoint, rows in found.items()}
        gains[""] = np.median(list(gains.values()), axis=0).tolist()
        scores = self._trees(grown_on)
        highest = max(float(scores.max()), self._probed(range(len(self.metrics))))
        return Spikes(down, gains, highest, float(np.median(scores)))

    def _probed(self, columns: Sequence[int]) -> float:
        """The highest score of the trees where the metrics of `columns` are ten deviations out for some rows."""
        features = self.fitted_features()
        normal = features.everywhere
        rows = np.tile(np.asarray(normal.center), (_PROBE_ROWS, 1))
        for column in columns:
            rows[-_OUT_ROWS:, column] += 10 * normal.scale[column]
        found = features.rows("", features.fresh(), np.arange(_PROBE_ROWS) == 0, rows)
        return float(self._trees(found.astype(np.float32, order="C"))[-_OUT_ROWS:].max())

    def _trees(self, features: NDArray[np.float32]) -> Floats:
        """The scores `(n,)` of the trees for `features` `(n, k)`."""
        return self.predict({FEATURES: features})[SCORE][:, 0].astype(np.float64)

    def _rolling(self, endpoint: str) -> tuple[RollingFeatures, State]:
        """The features and the endpoint's state of them."""
        features, track = self.fitted_features(), self.track(endpoint)
        if "features" not in track:
            track["features"] = features.fresh()
        return features, track["features"]
