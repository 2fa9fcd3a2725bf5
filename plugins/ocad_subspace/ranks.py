"""Ranks of a row among the rows before it: how rare are its level, its change and its losses; no shape is assumed."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ocad.detection.detector import Series, SeriesDetector
from ocad.detection.units import ALARM, ALARM_NATS
from ocad_subspace.config import RankSettings

Floats = NDArray[np.float64]

FEATURES = 3
"""Of each metric the averages of level, change from row to row, and share of lost rows."""
USUAL = 2
"""Nats of a usual row of one metric: one for its level and one for its change, as a rule none for its losses."""
SEED_ROWS = 512
"""Fitted rows at most, evenly spaced in time, that an endpoint is compared with at its beginning."""
FEW_ROWS = 30
"""Rows seen before which no rank is taken."""


class RankDetector(SeriesDetector):
    """A row's raw score is the sum of -ln p over metrics and features (Fisher 1932), p a conformal p-value, in noise units.

    p is the rank of the feature among those of the newest `memory` rows of the same endpoint, in both directions for the
    level (of a delay upwards), upwards for change and losses (Laxhammar and Falkman 2014). The rows that are compared with
    grow on while scoring: what goes on becomes normal. Lost rows are not among them: an outage never does.
    """

    in_noise_units = True

    def __init__(self, metrics: Sequence[str], settings: RankSettings) -> None:
        super().__init__(metrics)
        self.settings = settings
        self.seeds: dict[str, list[list[float]]] = {}
        """For each fitted endpoint rows of `FEATURES` numbers for each metric, in time order; "" stands for all together."""
        self._weight = 2 / (settings.smoothing + 1)

    def fit_series(self, series: Sequence[Series]) -> None:
        """See `SeriesDetector`."""
        self.seeds, together = {}, []
        for part in series:
            broken = self.breaks(part.endpoint, part.times).tolist()
            track = self._averages(part.endpoint)
            rows = [self._advance(track, row, fresh) for row, fresh in zip(part.values.tolist(), broken, strict=True)]
            self.seeds[part.endpoint] = _spaced(rows)
            together += self.seeds[part.endpoint]
        self.seeds.setdefault("", _spaced(together))
        self.forget()

    def raw_series(self, endpoint: str, times: NDArray[np.int64], values: Floats) -> Floats:
        """See `SeriesDetector`."""
        broken, track = self.breaks(endpoint, times).tolist(), self._track(endpoint)
        rows = zip(values.tolist(), broken, strict=True)
        return np.array([self._units(self._surprise(track, row, fresh)) for row, fresh in rows])

    def raw_point(self, endpoint: str, time_us: int, values: Sequence[float]) -> float:
        """See `SeriesDetector`."""
        fresh, track = self.is_break(endpoint, time_us), self._track(endpoint)
        return self._units(self._surprise(track, values, fresh))

    def parameters(self) -> dict[str, Any]:
        """See `SeriesDetector`."""
        return {"settings": self.settings.model_dump(mode="json"), "seeds": self.seeds}

    @classmethod
    def from_parameters(cls, metrics: Sequence[str], parameters: Mapping[str, Any]) -> Self:
        """See `SeriesDetector`."""
        detector = cls(metrics, RankSettings.model_validate(parameters["settings"]))
        detector.seeds = {
            str(name): [list(map(float, row)) for row in rows] for name, rows in parameters["seeds"].items()
        }
        return detector

    def _units(self, nats: float) -> float:
        """Noise units of a sum of -ln p: 0 for what is usual, the alarm level for `ALARM_NATS` of a single metric.

        By chance twice the sum has a chi-square distribution of two degrees of freedom for each p; of several metrics it
        counts as the sum of one that is as improbable (Wilson and Hilferty 1931).
        """
        count = len(self.metrics)
        if count > 1:
            spread = 1 / (9 * USUAL)
            sigmas = (math.cbrt(nats / (USUAL * count)) - 1 + spread / count) / math.sqrt(spread / count)
            nats = USUAL * max(0.0, 1 - spread + sigmas * math.sqrt(spread)) ** 3
        return ALARM * max(0.0, nats - USUAL) / (ALARM_NATS - USUAL)

    def _averages(self, endpoint: str) -> dict[str, Any]:
        """The track with `averages`, one for each feature, and `before`, each metric's last value."""
        track = self.track(endpoint)
        if "averages" not in track:
            track["averages"], track["before"] = [0.0] * (FEATURES * len(self.metrics)), [None] * len(self.metrics)
        return track

    def _track(self, endpoint: str) -> dict[str, Any]:
        """The track with `recent`, a ring of each feature's numbers with its `oldest`, and `ordered`, the same sorted."""
        track = self._averages(endpoint)
        if "recent" not in track:
            rows = self.seeds.get(endpoint, self.seeds.get("", []))[-self.settings.memory :]
            track["recent"] = [list(column) for column in zip(*rows, strict=True)] or [
                [] for _ in range(FEATURES * len(self.metrics))
            ]
            track["ordered"] = [sorted(column) for column in track["recent"]]
            track["oldest"] = [0] * len(track["recent"])
        return track

    def _advance(self, track: dict[str, Any], values: Sequence[float], fresh: bool) -> list[float]:
        """The features after one row; a lost value leaves level and change as they are."""
        averages, before, weight = track["averages"], track["before"], self._weight
        for index, value in enumerate(values):
            place, lost = FEATURES * index, math.isnan(value)
            last = before[index] = None if fresh else before[index]
            averages[place + 2] += weight * (lost - averages[place + 2])
            if lost:
                continue
            if last is None:
                averages[place] = value
            else:
                averages[place] += weight * (value - averages[place])
                averages[place + 1] += weight * (abs(value - last) - averages[place + 1])
            before[index] = value
        return list(averages)

    def _surprise(self, track: dict[str, Any], values: Sequence[float], fresh: bool) -> float:
        """The sum of -ln p of one row, in nats; takes in the features of what was measured."""
        memory, oldest, surprise = self.settings.memory, track["oldest"], 0.0
        features = self._advance(track, values, fresh)
        for index, (feature, recent, ordered) in enumerate(
            zip(features, track["recent"], track["ordered"], strict=True)
        ):
            count = len(ordered)
            if count >= FEW_ROWS:
                p = (count - bisect_left(ordered, feature) + 1) / (count + 1)
                if index % FEATURES == 0 and self.metrics[index // FEATURES] not in self.upward:
                    p = min(1.0, 2 * p, 2 * (bisect_right(ordered, feature) + 1) / (count + 1))
                surprise -= math.log(p)
            if math.isnan(values[index // FEATURES]):
                continue
            insort(ordered, feature)
            if count < memory:
                recent.append(feature)
                continue
            del ordered[bisect_left(ordered, recent[oldest[index]])]
            recent[oldest[index]] = feature
            oldest[index] = (oldest[index] + 1) % memory
        return surprise


def _spaced(rows: list[list[float]]) -> list[list[float]]:
    """At most `SEED_ROWS` of `rows`, evenly spaced."""
    if len(rows) <= SEED_ROWS:
        return rows
    return [rows[place] for place in np.linspace(0, len(rows) - 1, SEED_ROWS).round().astype(np.int64).tolist()]
